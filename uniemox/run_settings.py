"""Settings that `uniemox.pretrain`, `finetune` and `few_labels` take by name, with their types for editors."""

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from uniemox.finetune.config import (
        AugmentConfig,
        DistillationConfig,
        FewLabelsMethod,
        LoraConfig,
        NetworkConfig,
        Task,
    )
    from uniemox.model.config import ModelConfig
    from uniemox.pretrain.config import EncoderConfig, TeacherConfig
    from uniemox.training.config import HardwareConfig, OptimizerConfig, SaveConfig, ScheduleConfig
    from uniemox.views.config import ViewConfig


class PretrainSettings(TypedDict, total=False):
    """Fields of `PretrainConfig` that replace the preset's; see `uniemox.pretrain.config`."""

    encoder: "EncoderConfig"
    model: "ModelConfig"
    view: "ViewConfig"
    teacher: "TeacherConfig"
    optimizer: "OptimizerConfig"
    schedule: "ScheduleConfig"
    hardware: "HardwareConfig"
    save: "SaveConfig"
    batch_size: int
    accumulation: int
    layer_decay: float | None
    diagnose_every: int
    fresh_decoder: bool
    force_lr: bool
    stop_on_divergence: bool
    sharded: bool
    seed: int
    max_unreadable: int


class FinetuneSettings(TypedDict, total=False):
    """Fields of `FinetuneConfig` that replace the preset's; see `uniemox.finetune.config`."""

    method: str
    task: "Task"
    network: "NetworkConfig"
    view: "ViewConfig"
    augment: "AugmentConfig"
    optimizer: "OptimizerConfig"
    schedule: "ScheduleConfig"
    hardware: "HardwareConfig"
    save: "SaveConfig"
    distillation: "DistillationConfig"
    lora: "LoraConfig"
    zero_shot: bool
    layer_decay: float | None
    head_lr_scale: float
    probe_first: bool
    ema_decay: float | None
    class_weighting: Literal["none", "balanced", "discrete"]
    logit_adjustment: float
    fraction: float
    monitor: Literal["val", "holdout"] | None
    calibrate_on: Literal["votes", "labels"]
    holdout_fraction: float
    select: Literal["best", "accuracy", "last"]
    batch_size: int
    accumulation: int
    seed: int
    max_unreadable: int


class FewLabelsSettings(TypedDict, total=False):
    """Fields of `FewLabelsConfig` that replace its defaults; see `uniemox.finetune.config`."""

    methods: "tuple[FewLabelsMethod, ...]"
    images: tuple[int, ...]
    seeds: int
    size: int
    lora: "LoraConfig"
    device: Literal["cpu", "cuda"] | None
    workers: int | None
    max_unreadable: int
