"""Presets of fine-tuning: complete settings. Change them with `dataclasses.replace` or with options of the command."""

from collections.abc import Callable, Mapping

from uniemox.finetune.config import AugmentConfig, FinetuneConfig, NetworkConfig
from uniemox.training.config import HardwareConfig, OptimizerConfig, ScheduleConfig
from uniemox.views.config import ViewConfig

LIGHT = AugmentConfig(randaugment=None, mixup=0.0, cutmix=0.0, smoothing=0.1, erasing=0.0)

# The authors' evaluation resizes the short side to 256 px and then crops the middle 224 px.
AUTHORS_CROP = 224 / 256


def paper() -> FinetuneConfig:
    """Return the defaults of the authors' code, with a batch of 256 (theirs: 16 per GPU).

    These are 100 epochs, soft targets, RandAugment, mixup, CutMix, erasing and drop path 0.2.
    As in the authors' code, a plain ViT gives the mean of its patch tokens, the epoch with the highest validation
    accuracy is used, and evaluation shows the middle 7/8 of the image.
    Region methods have the form of their papers: without `network.skip`.
    """
    return FinetuneConfig(
        network=NetworkConfig(pool="mean", drop_path=0.2, skip=False),
        view=ViewConfig(min_area=0.08, crop_fraction=AUTHORS_CROP),
        select="accuracy",
    )


def best() -> FinetuneConfig:
    """Return settings for small labelled sets: layer-wise learning rates, head initialised from a probe, EMA."""
    return FinetuneConfig(
        network=NetworkConfig(drop_path=0.1),
        view=ViewConfig(min_area=0.35),
        augment=AugmentConfig(mixup=0.2, cutmix=0.0),
        optimizer=OptimizerConfig(base_lr=5e-4, betas=(0.9, 0.999), max_grad_norm=1.0),
        schedule=ScheduleConfig(epochs=20, warmup_epochs=2, min_lr=1e-6),
        layer_decay=0.75,
        ema_decay=0.99,
        class_weighting="balanced",
        probe_first=True,
        batch_size=64,
    )


def demo() -> FinetuneConfig:
    """Return settings for minutes on two CPU cores, and for the network that preset demo pre-trains."""
    return FinetuneConfig(
        network=NetworkConfig(streams="both", pool="token", dropout=0.0),
        view=ViewConfig(size=96, min_area=0.5),
        augment=LIGHT,
        optimizer=OptimizerConfig(base_lr=8e-4, betas=(0.9, 0.999), max_grad_norm=1.0),
        schedule=ScheduleConfig(epochs=4, warmup_epochs=0.5, min_lr=1e-6),
        head_lr_scale=5,
        # The encoder has already learned scenes and faces; fine-tuning combines them.
        probe_first=True,
        batch_size=64,
        hardware=HardwareConfig(threads=1),
    )


PRESETS: Mapping[str, Callable[[], FinetuneConfig]] = {"paper": paper, "best": best, "demo": demo}
