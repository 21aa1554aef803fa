"""The network of a run: of a method that relates regions, or any other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from uniemox.checkpoints.classifier import build_described_method
from uniemox.checkpoints.detectors import load_detector_weights
from uniemox.checkpoints.embedded import FOLDED
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.network import (
    BuiltNetwork,
    add_confounders,
    build_histogram,
    build_network,
    feature_width,
    open_start,
)
from uniemox.model.classifier import Classifier
from uniemox.model.regions import feature_map


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
