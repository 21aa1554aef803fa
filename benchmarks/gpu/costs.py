"""Count the waits of the host for a GPU in a training step, and compare the memory that a run uses with its plan.

    python -m benchmarks.gpu.costs --device cuda --out results

A step reads losses and gradient norm back once, to stop before a bad update. Every other wait leaves the GPU idle.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import open_clip
import torch
from torch import Tensor

from benchmarks.gpu.networks import (
    MIXED,
    classifier,
    finetuning_batch,
    pretraining_batch,
    pretraining_model,
    region_method,
    side_px,
    view_batch,
)
from benchmarks.gpu.reporting import Report, arguments
from uniemox.bench.step import random_clip
from uniemox.finetune.step import Objective, finetune_step
from uniemox.labels import MIKELS
from uniemox.model.config import REGION_METHODS, Precision
from uniemox.pretrain.step import PretrainBatch, forward, make_batch, pretrain_step
from uniemox.teacher.sources import ClipTeacher
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import ready_to_train, setup_device
from uniemox.training.memory import activation_bytes, memory_estimate
from uniemox.training.optimization import build_optimizer
from uniemox.views.patches import IMAGENET

# Reads of results that a step needs.
READ_BACKS = 1
# Steps that fill caches of constants.
WARM_UP = 2
PRECISION: Precision = "bfloat16"
# Text of torch's warning for each wait. Switching the debug mode on gives another warning, with "synchronizing" in it.
WAIT = "called a synchronizing CUDA operation"


def waits_in(step: Callable[[], object], device: torch.device) -> list[str]:
    """Return the lines of code at which the host waited for the GPU in one call."""
    for _ in range(WARM_UP):
        step()
    if device.type != "cuda":
        return []
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{warning.filename}:{warning.lineno}" for warning in caught if WAIT in str(warning.message)]


def check_waits(report: Report, device: torch.device, *, tiny: bool) -> None:
    """Count the waits in one step of each kind."""
    count = 4 if tiny else 32
    for name, step in {
        "pre-training, stored features": stored_features_step(device, count, tiny=tiny),
        "pre-training, CLIP in the step": clip_step(device, count, tiny=tiny),
        "fine-tuning, scene": finetuning_step(device, count, "scene", tiny=tiny),
        "fine-tuning, scene and person": finetuning_step(device, count, "both", tiny=tiny),
    }.items():
        with report.attempt(name):
            _report_waits(report, name, waits_in(step, device))
    for name in REGION_METHODS:
        with report.attempt(name):
            _report_waits(report, f"fine-tuning, {name}", waits_in(region_step(device, 4, name, tiny=tiny), device))


def _report_waits(report: Report, name: str, lines: list[str]) -> None:
    report.at_most(f"waits of a step: {name}", len(lines), READ_BACKS, "; ".join(sorted(set(lines))))


def stored_features_step(device: torch.device, count: int, *, tiny: bool) -> Callable[[], object]:
    """Return a pre-training step on batches as the loader makes them, with features from a file."""
    model = pretraining_model(tiny=tiny)
    patches = model.encoder.patch_embed.num_patches
    views = view_batch(count, model.image_size[0], patches)
    if device.type == "cuda":
        views = views.pin_memory()
    features = pretraining_batch(model, count)
    batch = replace(
        make_batch(views, with_emotion=True),
        image_features=features.image_features,
        text_features=features.text_features,
    )
    ready_to_train(model, device)
    optimizer = build_optimizer(model, lr=1e-4)
    return partial(pretrain_step, model, optimizer, [batch], precision=PRECISION, max_grad_norm=1.0)


def clip_step(device: torch.device, count: int, *, tiny: bool) -> Callable[[], object]:
    """Return a pre-training step in which a CLIP with random weights computes images and texts."""
    clip = tiny_clip() if tiny else random_clip("ViT-B-16")
    teacher = ClipTeacher(clip.to(device), open_clip.get_tokenizer("ViT-B-16"))
    model = pretraining_model(tiny=tiny)
    model = type(model)(model.encoder, replace(model.config, teacher_width=teacher.width)).train()
    ready_to_train(model, device)
    batch = pretraining_batch(model, count, texts=["A photo of a dog."] * count, stored=False)
    optimizer = build_optimizer(model, lr=1e-4)
    return partial(pretrain_step, model, optimizer, [batch], teacher=teacher, precision=PRECISION)


def tiny_clip() -> open_clip.CLIP:
    """Return a CLIP of two blocks with random weights."""
    vision = {"image_size": 64, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    clip = open_clip.CLIP(32, vision, text)
    clip.visual.image_mean, clip.visual.image_std = IMAGENET
    return clip


def finetuning_step(device: torch.device, count: int, streams: str, *, tiny: bool) -> Callable[[], object]:
    """Return a fine-tuning step with mixup, erasing and class weights."""
    model = classifier(streams, tiny=tiny)
    batch = finetuning_batch(count, side_px(tiny=tiny))
    if streams == "scene":
        batch = replace(batch, person=None)
    return _classifier_step(model, device, batch)


def region_step(device: torch.device, count: int, name: str, *, tiny: bool) -> Callable[[], object]:
    """Return a fine-tuning step of a method that relates regions."""
    return _classifier_step(region_method(name, tiny=tiny), device, finetuning_batch(count, side_px(tiny=tiny)))


def _classifier_step(model: torch.nn.Module, device: torch.device, batch: object) -> Callable[[], object]:
    ready_to_train(model.train(), device)
    weights = torch.linspace(0.5, 1.5, len(MIKELS))
    objective = Objective(task="label", class_weights=weights, method=model.method)  # type: ignore[arg-type] # Relation
    return partial(
        finetune_step,
        model,
        build_optimizer(model, lr=1e-4),
        [batch],  # type: ignore[list-item] # FinetuneBatch
        objective=objective,
        augment=MIXED,
        stats=IMAGENET,
        precision=PRECISION,
    )


def check_memory(report: Report, device: torch.device, *, tiny: bool) -> None:
    """Compare the estimated memory of a pre-training step with the memory that it takes, twice."""
    count = 4 if tiny else 128
    model = pretraining_model(tiny=tiny, name="vit_base_patch16_224")
    ready_to_train(model, device)
    optimizer = build_optimizer(model, lr=1e-4)
    width = model.config.decoder.width

    def probe(pixels: Tensor) -> None:
        features = torch.randn(len(pixels), width)
        batch = PretrainBatch(scene=pixels, person=pixels, image_features=features, text_features=features)
        forward(model, batch, precision=PRECISION)

    def estimate() -> int:
        return memory_estimate(model, activation_bytes(model, probe, model.image_size[0], count))

    first = estimate()
    before = allocated_bytes(device)
    second = estimate()
    after = allocated_bytes(device)
    report.at_most("estimates differ by, bytes", abs(second - first), 0)
    report.at_most("memory left by an estimate, MB", (after - before) / 1e6, 0.1)
    report.note("estimated for a ViT-B step, GB", first / 1e9)
    if device.type != "cuda":
        return
    batch = pretraining_batch(model, count)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        pretrain_step(model, optimizer, [batch], precision=PRECISION)
    used = torch.cuda.max_memory_allocated()
    report.note("used by a ViT-B step, GB", used / 1e9)
    report.at_most("estimate is wrong by a factor of, minus 1", max(first / used, used / first) - 1, 0.3)


def allocated_bytes(device: torch.device) -> int:
    """Return the memory of a GPU that tensors use; 0 on the CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    return 0


def main() -> None:
    """Run both checks."""
    device, out, tiny = arguments(__doc__)
    setup_device(HardwareConfig(device=device.type))  # type: ignore[arg-type] # Literal
    check_waits(Report("waits", out), device, tiny=tiny)
    report = Report("memory", out)
    with report.attempt("memory"):
        check_memory(report, device, tiny=tiny)


if __name__ == "__main__":
    main()
