"""Dry run of pre-training: everything up to the first step, without weights in memory."""

from dataclasses import dataclass

import torch

from uniemox.data.order import steps_in_epoch
from uniemox.data.sample import DataSet
from uniemox.pretrain.config import PretrainConfig
from uniemox.pretrain.run import build_encoder_of, build_start
from uniemox.teacher.opening import teacher_width
from uniemox.training.run_notes import origin_of_weights


@dataclass(frozen=True, slots=True)
class PretrainDryRun:
    """What a pre-training run would start from."""

    images: int
    steps_per_epoch: int
    start: str
    """Origin of the initial weights."""
    teacher_width: int | None
    """Channels of the teacher's image features; None: no teacher."""


def dry_run(config: PretrainConfig, data: DataSet) -> PretrainDryRun:
    """Read settings, data and initial weights as a run does; train and write nothing.

    The model is built on torch's meta device.

    Args:
        config: Settings of the run.
        data: Its training images.

    Raises:
        UniemoxError: For whatever would stop the run before its first step.
    """
    steps = steps_in_epoch(len(data), config.batch_size)
    width = teacher_width(config.teacher.source) if config.model.needs_image_features else None
    with torch.device("meta"):
        encoder = build_encoder_of(config)
        _, decoder = build_start(config, width, encoder)
    start = config.encoder.start
    origin = "random weights" if start is None else f"{origin_of_weights(encoder, start)}, {decoder}"
    return PretrainDryRun(len(data), steps, origin, width)
