"""Settings that `uniemox.pretrain`, `finetune` and `few_labels` take by name, with their types for editors."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from uniemox.errors import ConfigError
from uniemox.spelling import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from uniemox.finetune.config import AugmentConfig, DistillationConfig, LoraConfig, NetworkConfig, Task
    from uniemox.finetune.few_labels_config import FewLabelsMethod
    from uniemox.model.config import ModelConfig
    from uniemox.pretrain.config import EncoderConfig, TeacherConfig
    from uniemox.training.config import HardwareConfig, OptimizerConfig, SaveConfig, ScheduleConfig
    from uniemox.views.config import ViewConfig

Config = TypeVar("Config", bound="DataclassInstance")


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
    """Fields of `FewLabelsConfig` that replace its defaults; see `uniemox.finetune.few_labels_config`."""

    methods: "tuple[FewLabelsMethod, ...]"
    images: tuple[int, ...]
    seeds: int
    size: int
    lora: "LoraConfig"
    device: Literal["cpu", "cuda"] | None
    workers: int | None
    max_unreadable: int


def preset_of(presets: Mapping[str, Callable[[], Config]], name: str) -> Config:
    """Return the config of a preset.

    Raises:
        ConfigError: If there is no such preset.
    """
    if name not in presets:
        raise ConfigError(f"there is no preset {name!r}; choose one of {', '.join(presets)}")
    return presets[name]()


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return a config with some of its fields replaced.

    Raises:
        TypeError: For a name that is no field.
        ConfigError: For a value out of range.
    """
    names = [field.name for field in fields(config)]
    for name in settings:
        if name not in names:
            raise TypeError(f"there is no setting {name!r}{_hint(name, names)}")
    return replace(config, **settings)


def _hint(name: str, names: list[str]) -> str:
    """Return the end of an error about an unknown setting."""
    from uniemox.data.added_files import FILES  # noqa: PLC0415 - readers of all formats, only after a mistake

    if name in FILES:
        return f"; it is an option of the data: open_data('KIND:PATH', {name}=FILE)"
    return did_you_mean(name, names) or f"; the settings are {', '.join(names)}"
