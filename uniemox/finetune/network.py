"""The classifier that a run starts from: encoder, fusion or region method, and head."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from uniemox.checkpoints.classifier import (
    COLOUR_HISTOGRAM,
    FOLDED,
    build_described,
    build_described_method,
    check_shapes,
    describe_encoder,
    is_classifier,
    load_classifier,
    load_detector_weights,
    load_embedded,
)
from uniemox.checkpoints.published import load_published, load_start, report_timm
from uniemox.checkpoints.reading import is_sincos
from uniemox.checkpoints.timm_networks import TIMM, load_timm
from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import CheckpointError, ConfigError
from uniemox.finetune.config import INIT_MISSING, FinetuneConfig, NetworkConfig
from uniemox.io.files import CONFIG, ENCODER, WEIGHTS, open_regular
from uniemox.io.weight_names import IN_PACKAGE, Init
from uniemox.model.classifier import NORM_EPS, Classifier, set_drop_path, token_encoder
from uniemox.model.config import FusionName
from uniemox.model.encoder import FEATURES, ColourHistogram, ConcatEncoder, start_as_mae
from uniemox.model.fusion import Fusion, build_fusion
from uniemox.model.methods.ccim import Ccim
from uniemox.model.regions import feature_map
from uniemox.training.run_folder import read_json
from uniemox.views.patches import IMAGENET, PixelStats


@dataclass(frozen=True, slots=True)
class BuiltNetwork:
    """A classifier at its start, and what is needed to describe it."""

    classifier: Classifier
    encoder: dict[str, Any]  # see ClassifierInfo
    parts: dict[str, Any]
    stats: PixelStats  # of the pixels that the encoder was trained on


def build_network(init: str, config: NetworkConfig, *, size: int, outputs: int) -> BuiltNetwork:
    """The classifier that `init` names; random weights are drawn from torch's generator.

    size: side of the views, px.  outputs: E.  Raises CheckpointError, EncoderError, ShapeError or ConfigError.
    """
    start, encoder, described, stats = open_start(init, config, size)
    width = feature_width(encoder, size)
    parts: dict[str, Any] = {"feature_width": width, "outputs": outputs}
    embed = fusion = None
    if config.streams == "both":
        folder = Path(start.networks[0])
        is_run = folder.is_dir() and start.networks[0] not in IN_PACKAGE
        saved = _saved_parts(folder) if is_run and not start.from_scratch else {}
        embed, fusion, shapes = build_fused(saved, config, width)
        parts |= shapes
    classifier = Classifier(
        encoder, feature_width=width, outputs=outputs, streams=config.streams, embed=embed, fusion=fusion
    )
    classifier.keeps_norm_statistics = config.keep_norm_statistics or FOLDED in described
    parts |= add_confounders(classifier, config, outputs, width)
    return BuiltNetwork(classifier.train(), described, parts, stats)


def open_start(init: str, config: NetworkConfig, size: int) -> tuple[Init, Any, dict[str, Any], PixelStats]:
    """What `init` says, and its encoder with description and what its pixels are normalised with."""
    start = Init.parse(init)
    if not start.networks:
        raise ConfigError(INIT_MISSING)
    encoder: Any
    if len(start.networks) > 1:
        encoder, described, stats = _several(start.networks, config.pool, size, start.from_scratch)
    else:
        encoder, described, stats = _one(start.networks[0], config.pool, size, start.from_scratch)
    set_drop_path(encoder, config.drop_path)
    return start, encoder, described, stats


def add_confounders(classifier: Classifier, config: NetworkConfig, outputs: int, width: int) -> dict[str, Any]:
    """Give a classifier CCIM's head, if that is asked for; what describes it.  width: of the encoder's features."""
    if not config.confounders:
        return {}
    classifier.head = Ccim(classifier.width, outputs, config.confounders, width)
    return {"confounders": [config.confounders, width]}


def build_histogram(config: NetworkConfig, *, outputs: int) -> BuiltNetwork:
    """A linear head over the colours of one view, for method histogram.  outputs: E."""
    parts = {"feature_width": FEATURES, "outputs": outputs}
    classifier = Classifier(ColourHistogram(), feature_width=FEATURES, outputs=outputs, streams=config.streams)
    return BuiltNetwork(classifier.train(), {"name": COLOUR_HISTOGRAM, "options": {}}, parts, IMAGENET)


def load_encoder(source: str, pool: str, size: int, from_scratch: bool) -> Any:
    """The encoder that gives features (N, D), with its report.

    pool: of plain ViTs, "mean" or "token".  from_scratch: with random weights, drawn as MAE draws a ViT's.
    """
    if source.startswith(TIMM) and from_scratch:
        return report_timm(load_timm(source, size, pretrained=False), source, size)
    load: Any = load_start if pool == "token" else load_published
    encoder = load(source, image_size=size)
    if pool == "token":
        report = encoder.report
        encoder = token_encoder(encoder)
        encoder.report = report
    if from_scratch:
        restart(encoder, describe_encoder(encoder))
    return encoder.train()


def _several(
    sources: Sequence[str], pool: str, size: int, from_scratch: bool
) -> tuple[Any, dict[str, Any], PixelStats]:
    """Several encoders side by side, their description, and what their common pixels are normalised with."""
    encoders, described, stats = zip(*(_one(source, pool, size, from_scratch) for source in sources), strict=True)
    if any("several" in one for one in described):
        raise ConfigError(
            "one of these has several encoders itself: name small in place of embedded, and in place of a run those "
            "that it was made of"
        )
    several = [one | own._asdict() for one, own in zip(described, stats, strict=True)]
    folded = {FOLDED: True} if any(FOLDED in one for one in described) else {}
    return ConcatEncoder(encoders, stats), {"several": several} | folded, IMAGENET


def _one(source: str, pool: str, size: int, from_scratch: bool) -> tuple[Any, dict[str, Any], PixelStats]:
    """An encoder, its description, and what its pixels are normalised with."""
    if source in IN_PACKAGE:
        return _described(*load_embedded(source), from_scratch)
    folder = Path(source) if not source.startswith(TIMM) and Path(source).is_dir() else None
    if folder is not None and not (folder / ENCODER).is_file():
        raise CheckpointError(f"{folder} holds no {ENCODER}: is it a finished run?")
    if folder is not None and is_classifier(folder / WEIGHTS):
        return _finetuned_encoder(folder, size, from_scratch)
    encoder = load_encoder(source if folder is None else str(folder / ENCODER), pool, size, from_scratch)
    return encoder, describe_encoder(encoder), PixelStats(*(encoder.report.mean_std or IMAGENET))


def mean_head(sources: Sequence[str], labels: Sequence[str]) -> nn.Linear:
    """The head over several fine-tuned encoders side by side that gives the mean of their calibrated logits.

    sources: folders of fine-tuning runs.  labels: what all of them must tell apart.
    Raises CheckpointError or ConfigError for what is none, has other labels, or another head than a linear one.
    """
    weights, biases = [], []
    for source in sources:
        if not (Path(source) / WEIGHTS).is_file():
            raise CheckpointError(f"{source} is no fine-tuning run; method mean takes folders of them")
        classifier, info = load_classifier(Path(source) / WEIGHTS)
        head = classifier.head
        is_alone = info.streams == "scene" and classifier.method is None
        if info.labels != tuple(labels) or not is_alone or not isinstance(head, nn.Linear):
            raise ConfigError(
                f"method mean takes runs with a linear head on the scene and the labels {', '.join(labels)}; "
                f"{source} has {', '.join(info.labels)}, streams={info.streams!r}, a {type(head).__name__}"
            )
        scale = len(sources) * (info.temperature or 1.0)
        weights.append(head.weight.detach() / scale)
        biases.append(head.bias.detach() / scale)
    head = nn.Linear(sum(one.shape[1] for one in weights), len(labels))
    head.load_state_dict({"weight": torch.cat(weights, dim=1), "bias": torch.stack(biases).sum(dim=0)})
    return head


def _finetuned_encoder(folder: Path, size: int, from_scratch: bool) -> tuple[Any, dict[str, Any], PixelStats]:
    """The encoder of a fine-tuning run, as it was trained there; its description; what its pixels are normalised with.

    Raises ConfigError if it was built for another size.
    """
    classifier, info = load_classifier(folder / WEIGHTS)
    if "img_size" in info.encoder.get("options", {}) and info.size != size:
        raise ConfigError(f"{folder} was fine-tuned at {info.size} px; give --view.size {info.size}")
    return _described(classifier.encoder, info, from_scratch)


def _described(
    encoder: nn.Module, info: ClassifierInfo, from_scratch: bool
) -> tuple[nn.Module, dict[str, Any], PixelStats]:
    """The encoder of a classifier, or that with random weights, its description, and its pixels' normalisation."""
    described = dict(info.encoder)
    if from_scratch:
        restart(encoder, described)
        described.pop(FOLDED, None)
    return encoder.train(), described, PixelStats(info.mean, info.std)


@torch.no_grad()
def restart(encoder: nn.Module, described: Mapping[str, Any]) -> None:
    """Draw all weights anew: matrices as MAE does, norms as they begin, learned tables and scales as timm starts them.

    Sin-cos position tables stay.  described: how the encoder is built.
    """
    with torch.random.fork_rng(devices=[]):
        fresh = dict(build_described(described).named_parameters())
    drawn = set()
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d | nn.Linear | nn.Conv2d):
            drawn |= {id(parameter) for parameter in module.parameters(recurse=False)}
    start_as_mae(encoder)
    for name, parameter in encoder.named_parameters():
        if name.endswith(("cls_token", "mask_token")):
            nn.init.normal_(parameter, std=0.02)
        elif id(parameter) not in drawn and not any(is_sincos(parameter, rows_first=first) for first in (True, False)):
            parameter.copy_(fresh[name])


@torch.no_grad()
def feature_width(encoder: nn.Module, size: int) -> int:
    """D, channels of the encoder's features. Raises CheckpointError if it gives none."""
    was_training = encoder.training
    features = encoder.eval()(torch.zeros(1, 3, size, size))
    encoder.train(was_training)
    if features.ndim != 2:
        raise CheckpointError(f"expected features (N, D) of the encoder, got {tuple(features.shape)}")
    return features.shape[1]


def build_fused(
    saved: Mapping[str, Any], config: NetworkConfig, width: int
) -> tuple[nn.Linear, Fusion, dict[str, Any]]:
    """The projection to C3 and Γ: those of the pre-training run where they are what is asked for, or else new ones.

    saved: the run's fusion, heads, width (C3) and tensors, which may be absent; empty if it has none.
    """
    name: FusionName | None = config.fusion or saved.get("fusion")
    if name is None:
        raise ConfigError(
            "streams both needs a fusion, and --init has none: give --network.fusion, one of static, dynamic, "
            "attention, gated"
        )
    is_own = name == saved.get("fusion")
    heads = saved["heads"] if is_own else config.fusion_heads
    channels = saved["width"] if is_own else config.fused_width
    embed, fusion = nn.Linear(width, channels), build_fusion(name, channels, heads)
    nn.init.xavier_uniform_(embed.weight)
    nn.init.zeros_(embed.bias)
    if is_own and "tensors" in saved:
        embed.load_state_dict(_under(saved["tensors"], "embed."))
        fusion.load_state_dict(_under(saved["tensors"], "fusion."))
    return embed, fusion, {"fused_width": channels, "fusion": name, "heads": heads, "norm_eps": NORM_EPS}


def _saved_parts(folder: Path) -> dict[str, Any]:
    """Name, heads, width and weights of a run's own fusion; empty if it has none. Raises CheckpointError."""
    path = folder / WEIGHTS
    try:
        with open_regular(path), safetensors.safe_open(str(path), "pt") as file:
            names = [name for name in file.keys() if name.startswith(("embed.", "fusion."))]  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in names}
            header = (file.metadata() or {}).get("uniemox_classifier")
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
    if not any(name.startswith("fusion.") for name in tensors):
        return {}
    if header is not None:
        parts = json.loads(header)["parts"]
        name, heads, width = parts["fusion"], parts["heads"], parts["fused_width"]
    else:
        model = read_json(folder / CONFIG)["config"]["model"]
        name, heads, width = model["fusion"], model["fusion_heads"], model["decoder"]["width"]
    with torch.device("meta"):  # a header may claim any size
        draft = build_fusion(name, width, heads)
    try:
        check_shapes(draft, {key: tuple(value.shape) for key, value in _under(tensors, "fusion.").items()})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return {"fusion": name, "heads": heads, "width": width, "tensors": tensors}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def checkpoint_activations(encoder: Any) -> None:
    """Let the encoder compute its activations twice instead of keeping them. Raises ConfigError if it can't."""
    if not hasattr(encoder, "set_grad_checkpointing"):
        raise ConfigError(f"hardware.grad_checkpointing is not there for a {type(encoder).__name__}; turn it off")
    encoder.set_grad_checkpointing(True)


def network_of(config: FinetuneConfig, labels: Sequence[str], word_counts: Sequence[int] = ()) -> BuiltNetwork:
    """What a run trains; random weights are drawn from torch's generator.

    labels: of its data.  word_counts: of method eap, see `build_method`.
    Raises CheckpointError, EncoderError, ShapeError or ConfigError.
    """
    outputs = 2 if config.task == "affect" else len(labels)
    if config.method == "histogram":
        return build_histogram(config.network, outputs=outputs)
    if config.region_method is not None:
        return _build_region_network(config, labels, word_counts)
    return build_network(config.init, config.network, size=config.view.size, outputs=outputs)


def _build_region_network(config: FinetuneConfig, labels: Sequence[str], word_counts: Sequence[int]) -> BuiltNetwork:
    """The classifier of a method that relates regions of what the encoder of `init` sees."""
    settings, size = config.network, config.view.size
    _, encoder, described, stats = open_start(config.init, settings, size)
    width = _freeze_unused(encoder, size)
    parts: dict[str, Any] = {"feature_width": width, "outputs": len(labels), "method": config.region_method}
    parts |= {"fused_width": settings.fused_width, "word_counts": list(word_counts), "skip": settings.skip}
    parts |= {"has_detector": bool(settings.objects), "has_face_finder": bool(settings.faces)}
    relate = build_described_method(parts, labels, stats)
    relate.reader.dropout = settings.dropout
    if relate.reader.detector is not None:
        load_detector_weights(relate.reader.detector, Path(settings.objects))
    if relate.reader.face_finder is not None:
        load_detector_weights(relate.reader.face_finder, Path(settings.faces))
    classifier = Classifier(
        encoder, feature_width=width, outputs=len(labels), streams=relate.reader.streams, method=relate
    )
    classifier.keeps_norm_statistics = settings.keep_norm_statistics or FOLDED in described
    parts |= add_confounders(classifier, settings, len(labels), feature_width(encoder, size))
    return BuiltNetwork(classifier.train(), described, parts, stats)


def _freeze_unused(encoder: nn.Module, size: int) -> int:
    """Freeze what the last map does not come from, such as a pooling: DDP waits for gradients of all that trains.

    Returns D, the channels of that map.
    """
    was_training = encoder.training
    places = feature_map(encoder.eval(), torch.zeros(1, 3, size, size))  # (1, D, h, w)
    places.sum().backward()
    encoder.train(was_training)
    for parameter in encoder.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    return places.shape[1]
