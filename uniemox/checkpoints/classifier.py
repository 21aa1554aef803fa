"""A fine-tuned classifier as one safetensors file that needs no other: weights, and in its header what they mean."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from uniemox.checkpoints.saving import timm_model
from uniemox.checkpoints.timm_networks import TIMM, TimmSource
from uniemox.checkpoints.writing import write_tensors
from uniemox.classifier_info import ClassifierInfo, EncoderSpec, NetworkSpec, read_info
from uniemox.errors import CheckpointError, UniemoxError
from uniemox.io.files import open_regular
from uniemox.model.classifier import Classifier
from uniemox.model.config import refuse_foreign
from uniemox.model.encoders import MIXMAE, MixMAEEncoder
from uniemox.model.spec import build

KEY = "uniemox_classifier"
MAX_BLOCKS, MAX_ENCODERS = 256, 16
MAX_BUFFERS = 2**28  # bytes of masks and indices that are computed instead of stored
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, safetensors.SafetensorError)


def describe_encoder(encoder: Any) -> EncoderSpec:
    """Return how to build the encoder again.  encoder: of `load_published` or `load_timm`, with its report."""
    if encoder.report.path.startswith(TIMM):
        source = TimmSource.parse(encoder.report.path)
        size = getattr(getattr(encoder, "patch_embed", None), "img_size", None)
        sized = {"img_size": size[0]} if size else {}
        return EncoderSpec(name=source.name, options={"num_classes": 0, **source.options, **sized})
    name, options = timm_model(encoder)
    return EncoderSpec(name=MIXMAE if isinstance(encoder, MixMAEEncoder) else name, options=options)


def save_classifier(classifier: Classifier, info: ClassifierInfo, path: Path) -> None:
    """Write weights and info; the file is there whole or not at all. Raises CheckpointError."""
    write_tensors(path, classifier.state_dict(), {KEY: info.to_json()})


def load_classifier(path: Path, allow: Collection[str] = ()) -> tuple[Classifier, ClassifierInfo]:
    """Load a classifier, in eval mode, and its metadata.

    allow: packages whose own methods and fusions may be imported, in addition to those that the environment variable
    UNIEMOX_ALLOW_PACKAGES lists.  Raises CheckpointError if the file is not a classifier or needs another package.
    """
    header = _header(path)
    if header is None:
        raise CheckpointError(
            f"{path} is no classifier of uniemox; uniemox finetune writes one as RUN/model.safetensors"
        )
    try:
        info = read_info(header)
        spec = info.network
        if spec is None:
            raise CheckpointError("its header describes no network")
        refuse_foreign((spec.fusion, spec.method), allow)
        _check_blocks(spec)
        with torch.device("meta"):  # without memory, until the shapes are known to fit
            draft = build(spec)
        check_shapes(draft, _shapes(path))
        classifier = build(spec)
        classifier.load_state_dict(safetensors.torch.load_file(path))
    except (*UNREADABLE, AssertionError, UniemoxError) as error:
        raise CheckpointError(f"{path} can't be loaded: {error}") from error
    return classifier.eval(), info


def _check_blocks(spec: NetworkSpec) -> None:
    """Raise CheckpointError for more blocks or encoders than any network has: each takes time, also without weights."""
    depths = [one.options.get(key, 0) for one in spec.encoders for key in ("depth", "depths")]
    blocks = sum(abs(count) for depth in depths for count in (depth if isinstance(depth, tuple) else [depth]))
    if blocks > MAX_BLOCKS or len(spec.encoders) > MAX_ENCODERS:
        raise CheckpointError(
            f"its {len(spec.encoders)} encoders have {blocks} blocks; at most {MAX_ENCODERS} and {MAX_BLOCKS} are read"
        )


def check_shapes(draft: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a network on the meta device with the shapes in a file. Raises CheckpointError if they differ."""
    wanted = draft.state_dict()
    for name, value in wanted.items():
        shape = shapes.get(name)
        if shape != tuple(value.shape) and not (shape is None and value.ndim == 0):  # counters may be absent
            told = "is not" if shape is None else f"has shape {shape}"
            raise CheckpointError(f"{name} {told} in the file, but its header describes {tuple(value.shape)}")
    computed = sum(value.nbytes for name, value in draft.named_buffers() if name not in wanted)
    if computed > MAX_BUFFERS:
        raise CheckpointError(
            f"its network needs {computed / 2**20:,.0f} MiB beside its weights; at most {MAX_BUFFERS >> 20} are given"
        )


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with safetensors.safe_open(str(path), "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def is_classifier(path: Path) -> bool:
    """Return True if a safetensors file is a classifier of ours. Raises CheckpointError if it can't be read."""
    return _header(path) is not None


def _header(path: Path) -> str | None:
    try:
        with open_regular(path), safetensors.safe_open(str(path), "pt") as file:
            return (file.metadata() or {}).get(KEY)
    except UNREADABLE as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
