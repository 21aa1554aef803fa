"""Initial weights of a fine-tuning run for which the user names none."""

from dataclasses import replace

from uniemox.errors import ConfigError
from uniemox.finetune.config import INIT_MISSING, FinetuneConfig

DEFAULT_INIT = "embedded"
"""Name of the package's model."""
# The package's networks are small and know photographs' emotions, so these methods can start from them.
METHODS = ("full", "probe", "knn")


def needs_default_init(config: FinetuneConfig, preset: str) -> bool:
    """Return True if a run has no initial weights and starts from the package's model.

    Args:
        config: Settings of the run.
        preset: Name of the preset. Preset best alone suits the package's networks.

    Raises:
        ConfigError: If the run needs initial weights that only the user can choose.
    """
    if config.init or config.method == "histogram":
        return False
    if preset != "best" or config.method not in METHODS:
        raise ConfigError(INIT_MISSING)
    return True


def with_default_init(config: FinetuneConfig, *, has_method: bool) -> tuple[FinetuneConfig, str]:
    """Let a run without initial weights start from the package's model.

    On the CPU, and if the user has not chosen a method, only a new head is fitted (method probe): minutes, not hours.

    Args:
        config: Settings of a run that `needs_default_init`.
        has_method: True if the user has chosen the method.

    Returns:
        The settings, and a sentence about what was chosen.
    """
    config = replace(config, init=DEFAULT_INIT)
    if has_method or _has_gpu(config):
        return config, f"no --init: starts from {DEFAULT_INIT}, the model in the package"
    chosen = f"no --init: fits a new head on {DEFAULT_INIT}, the model in the package (--method full trains all layers)"
    return replace(config, method="probe"), chosen


def _has_gpu(config: FinetuneConfig) -> bool:
    """Return True if the run will train on a GPU."""
    import torch  # noqa: PLC0415 - seconds, which mistakes in the settings don't wait for

    return config.hardware.device != "cpu" and torch.cuda.is_available()
