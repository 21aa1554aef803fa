"""A fine-tuned classifier as one safetensors file that needs no other: weights, and in its header what they mean."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import timm
import torch
from torch import nn

from uniemox.checkpoints.published import TIMM
from uniemox.checkpoints.saving import timm_model
from uniemox.checkpoints.swin import MixMAEEncoder
from uniemox.checkpoints.vit import parse_timm
from uniemox.checkpoints.writing import write_tensors
from uniemox.errors import CheckpointError, UniemoxError
from uniemox.labels import KINDS, LabelSet
from uniemox.model.classifier import OLD_NORM_EPS, Classifier, NeighbourHead, Streams
from uniemox.model.colour_histogram import ColourHistogram
from uniemox.model.fusion import build_fusion
from uniemox.model.side_by_side import SideBySide
from uniemox.views.pixels import PixelStats

CalibrationImages = Literal["independent", "selection", "unknown"]
KEY = "uniemox_classifier"
MIXMAE = "mixmae"  # a Swin of its own, which timm does not have
COLOUR_HISTOGRAM = "colour_histogram"  # no network at all
OPTIONS = {
    *("num_classes", "img_size", "patch_size", "embed_dim", "depth", "depths", "num_heads", "global_pool"),
    *("init_values", "qkv_bias", "mlp_ratio", "use_abs_pos_emb", "window_size", "pad_type"),
}
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, safetensors.SafetensorError)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierInfo:
    """What a classifier's numbers mean, and what it sees; JSON has the same fields."""

    labels: tuple[str, ...]
    """Of its outputs, in order; valence and arousal for task affect."""
    label_set: str
    """Name of the label set."""
    kind: str
    """evoked or felt."""
    task: str = "label"
    """label, distribution or affect."""
    temperature: float | None = None
    """By which logits are divided before the softmax, fitted on pictures it was not trained on."""
    streams: Streams = "scene"
    person: str = "largest"
    """Which part of the picture the person view is, see persons/crop.py."""
    size: int = 224
    """Side of its input, px."""
    crop_fraction: float = 0.9
    """Share of the short side that the middle crop keeps."""
    mean: tuple[float, ...] = ()
    """Of pixels in [0, 1], by channel."""
    std: tuple[float, ...] = ()
    trained_on: str = ""
    """The data set's name."""
    conformal_scores: tuple[float, ...] = ()
    """1 - p(true label) of held-out pictures after temperature, sorted; at most 2,000 quantiles; () for affect."""
    calibration_images: CalibrationImages = "unknown"
    """Which images temperature and conformal scores were fitted on: independent ones, held out of training, that chose
    nothing; or the selection, too few to be divided, that chose the epoch as well; unknown: of an older version."""
    encoder: Mapping[str, Any] = field(default_factory=dict)
    """timm's name of the network (or mixmae, colour_histogram) and the options that make it; or "several", a list of
    these with mean and std."""
    parts: Mapping[str, Any] = field(default_factory=dict)
    """What follows the encoder: feature_width, outputs; fused_width, fusion, heads and norm_eps with both streams;
    bank, neighbours and vote_temperature of a neighbour head."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.size < 1 or not self.labels:
            raise CheckpointError(f"there is no classifier of kind {self.kind!r}, {self.size} px, {self.labels} labels")

    def find_labels(self) -> LabelSet:
        """Its labels as a set."""
        return LabelSet(self.label_set, self.labels, self.kind)  # type: ignore[arg-type] # checked


def describe_encoder(encoder: Any) -> dict[str, Any]:
    """How to build the encoder again without its weights.  encoder: of `load_published` or `load_timm`, with report."""
    if encoder.report.path.startswith(TIMM):
        name, given, _, _ = parse_timm(encoder.report.path.removeprefix(TIMM))
        size = getattr(getattr(encoder, "patch_embed", None), "img_size", None)
        sized = {"img_size": size[0]} if size else {}
        return {"name": name, "options": {"num_classes": 0, **given, **sized}}
    name, options = timm_model(encoder)
    return {"name": MIXMAE if isinstance(encoder, MixMAEEncoder) else name, "options": options}


def save_classifier(classifier: Classifier, info: ClassifierInfo, path: Path) -> None:
    """Write weights and info; the file is there whole or not at all. Raises CheckpointError."""
    write_tensors(path, classifier.state_dict(), {KEY: json.dumps(as_dict(info))})


def as_dict(info: ClassifierInfo) -> dict[str, Any]:
    """Plain values."""
    return {name: getattr(info, name) for name in ClassifierInfo.__slots__}


def load_classifier(path: Path) -> tuple[Classifier, ClassifierInfo]:
    """The classifier, in eval mode, and what it means. Raises CheckpointError if the file is none of ours."""
    header = _header(path)
    if header is None:
        raise CheckpointError(
            f"{path} is no classifier of uniemox; uniemox finetune writes one as RUN/model.safetensors"
        )
    try:
        values = json.loads(header)
        for name in ("labels", "mean", "std", "conformal_scores"):
            values[name] = tuple(values.get(name, ()))
        info = ClassifierInfo(**values)
        classifier = _build(info)
        classifier.load_state_dict(safetensors.torch.load_file(path))
    except (*UNREADABLE, AssertionError, UniemoxError) as error:
        raise CheckpointError(f"{path} can't be loaded: {error}") from error
    return classifier.eval(), info


def is_classifier(path: Path) -> bool:
    """Whether a safetensors file is a classifier of ours. Raises CheckpointError if it can't be read."""
    return _header(path) is not None


def _header(path: Path) -> str | None:
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            return (file.metadata() or {}).get(KEY)
    except UNREADABLE as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error


def build_described(described: Mapping[str, Any]) -> nn.Module:
    """A network with random weights.  described: by `describe_encoder`, a single one.

    Raises CheckpointError for what could make timm open other files.
    """
    name = described["name"]
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in described["options"].items()}
    foreign = options.keys() - OPTIONS
    if name == MIXMAE and not foreign:
        return MixMAEEncoder(**options)
    if name == COLOUR_HISTOGRAM and not options:
        return ColourHistogram()
    if not timm.is_model(name) or foreign:
        raise CheckpointError(
            f"its encoder {name!r} with {', '.join(sorted(foreign)) or 'its options'} is none of timm's"
        )
    return timm.create_model(name, **options)


def _build(info: ClassifierInfo) -> Classifier:
    """The network with other weights."""
    parts, several = info.parts, info.encoder.get("several")
    if several is None:
        encoder = build_described(info.encoder)
    else:
        stats = [PixelStats(tuple(one["mean"]), tuple(one["std"])) for one in several]
        encoder = SideBySide([build_described(one) for one in several], stats)
    fusion = embed = None
    if "fusion" in parts:
        embed = nn.Linear(parts["feature_width"], parts["fused_width"])
        fusion = build_fusion(parts["fusion"], parts["fused_width"], parts["heads"])
    classifier = Classifier(
        encoder,
        feature_width=parts["feature_width"],
        outputs=parts["outputs"],
        streams=info.streams,
        embed=embed,
        fusion=fusion,
        norm_eps=parts.get("norm_eps", OLD_NORM_EPS),
    )
    if "bank" in parts:
        bank = torch.ones(parts["bank"], parts.get("fused_width", parts["feature_width"]))
        votes = torch.ones(parts["bank"], parts["outputs"])
        classifier.head = NeighbourHead(bank, votes, parts["neighbours"], parts["vote_temperature"])
    return classifier
