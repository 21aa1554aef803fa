"""Networks and batches of the checks, the same on every device."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor

from uniemox.data.synthetic_scenes import synthetic
from uniemox.finetune.config import AugmentConfig
from uniemox.finetune.step import FinetuneBatch
from uniemox.labels import MIKELS
from uniemox.model.building import build_classifier
from uniemox.model.classifier import Classifier
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.fusion import build_fusion
from uniemox.model.uniemox import UniEmoX
from uniemox.network_spec import NetworkSpec
from uniemox.pretrain.step import PretrainBatch
from uniemox.views.loader import ViewBatch

CLASSES = len(MIKELS)
TINY: dict[str, Any] = {"patch_size": 16, "embed_dim": 48, "depth": 2, "num_heads": 3}
PLAIN = AugmentConfig(randaugment=None, mixup=0.0, cutmix=0.0, smoothing=0.1, erasing=0.0)
MIXED = AugmentConfig(randaugment=None, mixup=0.8, cutmix=1.0, smoothing=0.1, erasing=0.25)


def side_px(*, tiny: bool) -> int:
    """Return the side of the images."""
    return 64 if tiny else 224


def pretraining_model(*, tiny: bool, name: str = "vit_small_patch16_224") -> UniEmoX:
    """Return a pre-training model with random weights, the same at every call."""
    torch.manual_seed(0)
    if tiny:
        encoder = build_encoder("vit_tiny_patch16_224", side_px(tiny=True), **TINY)
        decoder = DecoderConfig(width=32, depth=1, heads=2)
        return UniEmoX(encoder, ModelConfig(decoder=decoder)).train()
    return UniEmoX(build_encoder(name), ModelConfig()).train()


def smooth_images(count: int, side: int, seed: int) -> Tensor:
    """Return images whose pixels vary slowly, as in photographs: (N, 3, S, S) uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=side, mode="bicubic").clamp(0, 1)
    return (images * 255).round().byte()


def pretraining_batch(model: UniEmoX, count: int, *, texts: Sequence[str] = (), stored: bool = True) -> PretrainBatch:
    """Return a batch on the CPU with fixed draws of the masks.

    Args:
        model: Model that the batch is for.
        count: Number of images.
        texts: Texts of the images.
        stored: Add the teacher's features; otherwise a teacher computes features of images and texts.
    """
    generator = torch.Generator().manual_seed(1)
    patches = model.encoder.patch_embed.num_patches
    width = model.config.teacher_width or model.config.decoder.width
    side = model.image_size[0]
    return PretrainBatch(
        scene=smooth_images(count, side, seed=2),
        person=smooth_images(count, side, seed=3),
        image_features=torch.randn(count, width, generator=generator) if stored else None,
        text_features=torch.randn(count, width, generator=generator) if stored else None,
        texts=texts,
        scene_noise=torch.rand(count, patches, generator=generator),
        person_noise=torch.rand(count, patches, generator=generator),
    )


def classifier(streams: str, *, tiny: bool) -> Classifier:
    """Return a classifier on a ViT with random weights.

    Args:
        streams: Views that it reads, scene or both.
        tiny: Use tiny sizes.
    """
    torch.manual_seed(0)
    side = side_px(tiny=tiny)
    options = TINY if tiny else {}
    encoder: Any = timm.create_model(
        "vit_small_patch16_224", num_classes=0, global_pool="token", img_size=side, **options
    )
    width = encoder.embed_dim
    is_fused = streams == "both"
    return Classifier(
        encoder,
        feature_width=width,
        outputs=CLASSES,
        streams="both" if is_fused else "scene",
        embed=torch.nn.Linear(width, 64) if is_fused else None,
        fusion=build_fusion("gated", 64, 3) if is_fused else None,
    )


def region_method(name: str, *, tiny: bool, has_detectors: bool = True) -> Classifier:
    """Return a method that relates regions, on a ViT with random weights.

    Args:
        name: Name of the method.
        tiny: Use tiny sizes.
        has_detectors: Add detectors of objects and faces, with random weights; otherwise the regions are fixed cells.
    """
    torch.manual_seed(0)
    options = TINY if tiny else {}
    side = side_px(tiny=tiny)
    encoder: Any = timm.create_model(
        "vit_small_patch16_224", num_classes=0, global_pool="token", img_size=side, **options
    )
    spec = NetworkSpec(
        feature_width=encoder.embed_dim,
        outputs=CLASSES,
        labels=MIKELS.labels,
        method=name,
        has_detector=has_detectors,
        has_face_finder=has_detectors,
        confounders=(16, encoder.embed_dim) if name == "emoticon" else None,
    )
    return build_classifier(spec, encoder)


def finetuning_batch(count: int, side: int) -> FinetuneBatch:
    """Return a labelled batch on the CPU."""
    labels = torch.arange(count) % CLASSES
    return FinetuneBatch(
        scene=smooth_images(count, side, seed=4),
        person=smooth_images(count, side, seed=5),
        target=torch.nn.functional.one_hot(labels, CLASSES).float(),
    )


def view_batch(count: int, side: int, patches: int) -> ViewBatch:
    """Return a batch in the form of the loader's."""
    samples = tuple(synthetic(count).samples)
    return ViewBatch(
        scene=smooth_images(count, side, seed=6),
        person=smooth_images(count, side, seed=7),
        samples=samples,
        person_sources=("target",) * count,
        noise=torch.rand(2, count, patches, generator=torch.Generator().manual_seed(8)),
    )
