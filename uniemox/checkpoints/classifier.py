"""Files of classifiers: safetensors with a description of the network."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from uniemox.checkpoints.reading import MAX_ENCODERS, check_file
from uniemox.checkpoints.saving import timm_model, write_tensors
from uniemox.checkpoints.timm_networks import TIMM, TimmSource
from uniemox.classifier_info import ClassifierInfo, read_info
from uniemox.errors import CheckpointError, UniemoxError
from uniemox.io.files import open_regular
from uniemox.model.building import build_classifier
from uniemox.model.classifier import Classifier
from uniemox.model.config import refuse_foreign
from uniemox.model.encoders import MIXMAE, MixMAEEncoder
from uniemox.network_spec import EncoderSpec, NetworkSpec

CLASSIFIER_KEY = "uniemox_classifier"
# Maximum number of blocks in all encoders of a file.
MAX_BLOCKS = 256
CLASSIFIER_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    AttributeError,
    safetensors.SafetensorError,
)


def describe_encoder(encoder: Any) -> EncoderSpec:
    """Return the description from which the encoder can be rebuilt.

    Args:
        encoder: Result of `load_published` or `load_timm`, with its report.
    """
    if encoder.report.path.startswith(TIMM):
        source = TimmSource.parse(encoder.report.path)
        size = getattr(getattr(encoder, "patch_embed", None), "img_size", None)
        options: dict[str, Any] = {"num_classes": 0, **source.options}
        if size:
            options["img_size"] = size[0]
        return EncoderSpec(name=source.name, options=options)
    name, options = timm_model(encoder)
    return EncoderSpec(name=MIXMAE if isinstance(encoder, MixMAEEncoder) else name, options=options)


def save_classifier(classifier: Classifier, info: ClassifierInfo, path: Path) -> None:
    """Write weights and info atomically.

    Raises:
        CheckpointError: If the file can't be written.
    """
    write_tensors(path, classifier.state_dict(), {CLASSIFIER_KEY: info.to_json()})


def load_classifier(path: Path, allow: Collection[str] = ()) -> tuple[Classifier, ClassifierInfo]:
    """Load a classifier, in eval mode, and its metadata.

    Args:
        path: A file that `save_classifier` wrote.
        allow: Packages whose methods and fusions may be imported, in addition to those listed in the environment
            variable UNIEMOX_ALLOW_PACKAGES.

    Raises:
        CheckpointError: If the file is not a classifier or needs another package.
    """
    header = _header(path)
    if header is None:
        raise CheckpointError(
            f"{path} is not a uniemox classifier; uniemox finetune writes one as RUN/model.safetensors"
        )
    try:
        info = read_info(header)
        spec = info.network
        if not spec.encoders:
            raise CheckpointError("its header does not describe a network")
        refuse_foreign((spec.fusion, spec.method), allow)
        _check_blocks(spec)
        # A header may claim any size: compare shapes on the meta device before memory is allocated.
        with torch.device("meta"):
            draft = build_classifier(spec)
        check_file(draft, path)
        classifier = build_classifier(spec)
        classifier.load_state_dict(safetensors.torch.load_file(path))
    except (*CLASSIFIER_ERRORS, AssertionError, UniemoxError) as error:
        raise CheckpointError(f"{path} can't be loaded: {error}") from error
    return classifier.eval(), info


def _check_blocks(spec: NetworkSpec) -> None:
    """Refuse more blocks or encoders than any network has; building each takes time even without weights.

    Raises:
        CheckpointError: If there are more.
    """
    depths = [encoder.options.get(key, 0) for encoder in spec.encoders for key in ("depth", "depths")]
    blocks = sum(abs(count) for depth in depths for count in (depth if isinstance(depth, tuple) else [depth]))
    if blocks > MAX_BLOCKS or len(spec.encoders) > MAX_ENCODERS:
        raise CheckpointError(
            f"its {len(spec.encoders)} encoders have {blocks} blocks; at most {MAX_ENCODERS} and {MAX_BLOCKS} are read"
        )


def read_classifier_info(path: Path) -> ClassifierInfo | None:
    """Read the metadata of a classifier without its weights; None for other safetensors files.

    Raises:
        CheckpointError: If the file or its metadata can't be read.
    """
    header = _header(path)
    if header is None:
        return None
    return read_info(header)


def is_classifier(path: Path) -> bool:
    """Return True if a safetensors file is a uniemox classifier.

    Raises:
        CheckpointError: If it can't be read.
    """
    return _header(path) is not None


def _header(path: Path) -> str | None:
    """Return the description in a classifier's file; None for other safetensors files.

    Raises:
        CheckpointError: If the file can't be read.
    """
    try:
        with open_regular(path), safetensors.safe_open(str(path), "pt") as file:
            return (file.metadata() or {}).get(CLASSIFIER_KEY)
    except CLASSIFIER_ERRORS as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
