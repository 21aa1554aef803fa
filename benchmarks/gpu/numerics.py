"""Compare a device with the CPU, and with stored reference values.

    python -m benchmarks.gpu.numerics --device cuda --out results

Bounds are relative errors, ‖result - reference‖ / ‖reference‖: float32 without TF32 stays far below 1e-4, bfloat16
between 1e-3 and 3e-2.
"""

import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from benchmarks.gpu.networks import (
    CLASSES,
    PLAIN,
    classifier,
    finetuning_batch,
    pretraining_batch,
    pretraining_model,
    region_method,
    side_px,
    smooth_images,
)
from benchmarks.gpu.reporting import Report, arguments
from uniemox.checkpoints import load_published
from uniemox.finetune.augmentation import augment_views, prepare_targets
from uniemox.losses import (
    contrastive_feature_alignment,
    reconstruction_loss,
    semantic_visual_alignment,
    soft_target_cross_entropy,
)
from uniemox.model.classifier import Classifier
from uniemox.model.config import REGION_METHODS, Precision
from uniemox.model.detectors import Candidates, YoloxNano, YuNet
from uniemox.model.distance import Distance
from uniemox.model.fusion import build_fusion
from uniemox.model.regions import DETECTOR_PX, non_maximum_suppression
from uniemox.model.uniemox import UniEmoX
from uniemox.pretrain.step import forward, pretrain_step
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import ready_to_train, setup_device
from uniemox.training.optimization import build_optimizer
from uniemox.views.patches import normalise

# Bounds of relative errors.
FLOAT32 = 1e-4
BFLOAT16 = 3e-2
FEATURES = 1e-3
EQUATIONS = Path(__file__).parents[2] / "tests" / "reference" / "equations"
# Written by prepare.py.
GOLDEN = Path("build") / "gpu" / "golden"
HEADS = {"mae": 3, "dino": 3, "moco_v3": 4, "dbot": 3, "cae": 3, "siameseim": 3, "tinymim": 3}
FUSIONS = ("static", "dynamic", "attention", "gated")
IMAGES = 8
# Number of a detector's boxes.
CANDIDATES = 500
ADAM_STEPS = 5
MIXING = replace(PLAIN, mixup=0.8, cutmix=1.0)
ERASING = replace(PLAIN, smoothing=0.0, erasing=1.0)


def arrays(path: Path) -> dict[str, Tensor]:
    """Return the numeric arrays of a .npz file."""
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file if file[name].dtype.kind in "fiu"}


def check_equations(report: Report, device: torch.device) -> None:
    """Compute every equation of the paper in float32 and compare it with values of float64."""
    for path in sorted(EQUATIONS.glob("*.npz")):
        exact = arrays(path)
        on_device = {name: value.float().to(device) for name, value in exact.items()}
        scene = on_device["scene"]
        person = on_device["person"]
        heads = len(exact["attention.scene_proj"])
        for name in FUSIONS:
            prefix = f"{name}."
            weights = {key.removeprefix(prefix): value for key, value in exact.items() if key.startswith(prefix)}
            expected = weights.pop("out")
            fusion = build_fusion(name, channels=scene.shape[1], heads=heads)
            fusion.load_state_dict(weights)
            report.close(f"{path.stem}, fusion {name}", fusion.to(device)(scene, person), expected, FLOAT32)
        fused = on_device["fused"]
        image = on_device["image"]
        text = on_device["text"]
        pred = on_device["pred"]
        target = on_device["target"]
        mask = on_device["mask"]
        losses = {
            "reconstruction_loss": reconstruction_loss(pred, target, mask),
            "reconstruction_loss_norm_pix": reconstruction_loss(pred, target, mask, norm_pix=True),
            "cfa_loss": contrastive_feature_alignment(fused, image, text, float(exact["tau"])),
            "sva_loss": semantic_visual_alignment(fused, image),
            "soft_loss": soft_target_cross_entropy(on_device["logits"], on_device["soft_target"]),
        }
        for name, loss in losses.items():
            report.close(f"{path.stem}, {name}", loss, exact[name], FLOAT32)


@torch.no_grad()
def check_encoders(report: Report, device: torch.device) -> None:
    """Compare published encoders with features that the methods' own code computed."""
    folders = sorted(folder for folder in GOLDEN.glob("*") if (folder / "checkpoint.pth").exists())
    if not folders:
        report.note("encoders", f"skipped: {GOLDEN} is empty; run python -m benchmarks.gpu.prepare")
    for folder in folders:
        stored = arrays(folder / "expected.npz")
        encoder = load_published(folder / "checkpoint.pth", heads=HEADS.get(folder.name)).to(device)
        pixels = stored["x"].to(device)
        report.close(f"{folder.name}, float32", encoder(pixels), stored["features"], FLOAT32)
        with torch.autocast(device.type, torch.bfloat16):
            report.close(f"{folder.name}, bfloat16", encoder(pixels), stored["features"], BFLOAT16)


def check_training_step(report: Report, device: torch.device, *, tiny: bool) -> None:
    """Compare losses and gradients of one pre-training batch with those of the CPU in float32."""
    reference = pretraining_model(tiny=tiny)
    batch = pretraining_batch(reference, IMAGES)
    expected = _gradients(reference, torch.device("cpu"), batch, "float32")
    bounds: tuple[tuple[Precision, float, float], ...] = (("float32", FLOAT32, 1e-3), ("bfloat16", BFLOAT16, 5e-2))
    for precision, loss_bound, gradient_bound in bounds:
        values = _gradients(pretraining_model(tiny=tiny), device, batch, precision)
        for name, on_cpu in expected.items():
            bound = gradient_bound if name.startswith("gradient") else loss_bound
            report.close(f"pre-training, {precision}, {name}", values[name], on_cpu, bound)


def _gradients(model: UniEmoX, device: torch.device, batch: Any, precision: Precision) -> dict[str, Tensor]:
    """Return the losses of a batch, and the gradient of the encoder and of the other parts."""
    ready_to_train(model, device)
    output = forward(model, batch, precision=precision)
    output.total.backward()
    gradients = {"gradient of the encoder": list[Tensor](), "gradient of the rest": list[Tensor]()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            part = "gradient of the encoder" if name.startswith("encoder.") else "gradient of the rest"
            gradients[part].append(parameter.grad.flatten().cpu())
    return output.losses | {name: torch.cat(parts) for name, parts in gradients.items()}


def check_optimizer(report: Report, device: torch.device) -> None:
    """Compare the fused AdamW with the CPU's, on the same gradients."""
    model = classifier("scene", tiny=True)
    models = [copy.deepcopy(model), copy.deepcopy(model).to(device)]
    optimizers = [build_optimizer(copied, lr=1e-2) for copied in models]
    report.note("optimiser is fused", str(bool(optimizers[1].param_groups[0].get("fused"))))
    for step in range(ADAM_STEPS):
        for copied, optimizer in zip(models, optimizers, strict=True):
            generator = torch.Generator().manual_seed(step)
            for parameter in copied.parameters():
                gradient = torch.randn(parameter.shape, generator=generator)
                parameter.grad = gradient.to(parameter.device)
            optimizer.step()
    cpu_weights, device_weights = (
        torch.cat([parameter.detach().flatten().cpu() for parameter in model.parameters()]) for model in models
    )
    report.close(f"AdamW after {ADAM_STEPS} steps", device_weights, cpu_weights, 1e-5)


def randomise_head(model: Classifier) -> None:
    """Draw the weights of the head anew. Those of a new classifier are almost 0, which would hide differences."""
    weight = model.head.weight
    assert isinstance(weight, Tensor)
    torch.nn.init.normal_(weight, std=0.1)


@torch.no_grad()
def check_convolutions(report: Report, device: torch.device, *, tiny: bool) -> None:
    """Compare logits and distances of convolutional classifiers with the CPU's."""
    names = ("mobilenetv2_050",) if tiny else ("mobilenetv2_100", "efficientnet_b0", "resnet50")
    side = side_px(tiny=tiny)
    images = smooth_images(IMAGES, side, seed=9)
    for name in names:
        torch.manual_seed(0)
        encoder: Any = timm.create_model(name, num_classes=0)
        model = Classifier(encoder, feature_width=encoder.num_features, outputs=CLASSES, streams="scene").eval()
        randomise_head(model)
        features = model.encode(normalise(smooth_images(40, side, seed=10), torch.device("cpu")))[:, 0]
        model.distance = Distance.fit(features, model.head(features))
        expected = model.answer(normalise(images, torch.device("cpu")))
        ready_to_train(model, device)
        answer = model.answer(normalise(images, device))
        for output, value, reference in zip(("logits", "distances"), answer, expected, strict=True):
            assert value is not None
            assert reference is not None
            report.close(f"{name}, {output}", value, reference, FEATURES)


@torch.no_grad()
def check_region_methods(report: Report, device: torch.device, *, tiny: bool) -> None:
    """Compare the features of the six methods that relate regions with the CPU's, on fixed regions.

    Detectors with random weights have nearly equal confidences: the last bit decides which box suppresses which, and so
    which regions there are. `check_detectors` compares them.
    """
    side = side_px(tiny=tiny)
    scene = smooth_images(4, side, seed=11)
    person = smooth_images(4, side, seed=12)
    cpu = torch.device("cpu")
    for name in REGION_METHODS:
        with report.attempt(name):
            model = region_method(name, tiny=tiny, has_detectors=False).eval()
            expected = model.features(normalise(scene, cpu), normalise(person, cpu))
            ready_to_train(model, device)
            features = model.features(normalise(scene, device), normalise(person, device))
            report.close(f"{name}, features", features, expected, FEATURES)


@torch.no_grad()
def check_detectors(report: Report, device: torch.device) -> None:
    """Compare the raw outputs of both detectors with the CPU's."""
    # Values from 0 to 1: from 0 to 255, the exponentials of the boxes' sizes would be huge with random weights.
    rgb = smooth_images(2, DETECTOR_PX, seed=13).float() / 255
    detectors: tuple[nn.Module, ...] = (YoloxNano(), YuNet())
    for detector in detectors:
        name = type(detector).__name__
        torch.manual_seed(0)
        for parameter in detector.parameters():
            if parameter.ndim > 1:
                # With torch's own initial weights every position has almost the same output.
                nn.init.kaiming_normal_(parameter)
        expected: Candidates = detector(rgb)
        candidates: Candidates = detector.to(device)(rgb.to(device))
        for field in Candidates._fields:
            reference = getattr(expected, field)
            if reference.numel():
                report.close(f"{name}, {field}", getattr(candidates, field), reference, FEATURES)


def check_suppression(report: Report, device: torch.device) -> None:
    """Choose boxes among the same candidates on both devices; no two have the same confidence."""
    generator = torch.Generator().manual_seed(14)
    centres = torch.rand(2, CANDIDATES, 2, generator=generator)
    sizes = 0.1 + 0.3 * torch.rand(2, CANDIDATES, 2, generator=generator)
    order = torch.stack([torch.randperm(CANDIDATES, generator=generator) for _ in range(2)])
    candidates = Candidates(
        boxes=torch.cat([centres - sizes / 2, centres + sizes / 2], dim=2),
        confidence=(order + 1) / CANDIDATES,
        classes=torch.rand(2, CANDIDATES, 80, generator=generator),
    )
    expected = non_maximum_suppression(candidates)
    chosen = non_maximum_suppression(Candidates(*(values.to(device) for values in candidates)))
    for name, value, reference in zip(("boxes", "presence", "classes"), chosen, expected, strict=True):
        report.close(f"suppression of overlapping boxes, {name}", value, reference, FLOAT32)


def check_augmentation(report: Report, device: torch.device) -> None:
    """Check that mixup and CutMix draw the same on every device, and that erasing hits the same boxes."""
    batch = finetuning_batch(IMAGES, 64)
    mixed = []
    erased = []
    for target_device in (torch.device("cpu"), device):
        random.seed(0)
        np.random.seed(0)
        target, mixing = prepare_targets(batch.scene, batch.person, batch.target, MIXING, task="label")
        scene, _ = augment_views(batch.scene, batch.person, MIXING, mixing, device=target_device)
        assert scene is not None
        mixed.append((scene.cpu(), target.cpu()))
        random.seed(0)
        flat = torch.zeros(IMAGES, 3, 64, 64, dtype=torch.uint8)
        scene, _ = augment_views(flat, None, ERASING, None, device=target_device)
        assert scene is not None
        erased.append((scene.cpu() - scene[:, :, :1, :1].cpu() != 0).any(dim=1).float())
    report.close("mixed pixels", mixed[1][0], mixed[0][0], FLOAT32)
    report.close("mixed targets", mixed[1][1], mixed[0][1], FLOAT32)
    # The noise in an erased box comes from the device's own generator; the boxes come from Python's.
    report.close("erased boxes", erased[1].mean(dim=0), erased[0].mean(dim=0), 0.05)


def check_classifier(report: Report, device: torch.device, *, tiny: bool) -> None:
    """Compare the logits of a ViT classifier with two streams with the CPU's."""
    model = classifier("both", tiny=tiny).eval()
    randomise_head(model)
    batch = finetuning_batch(IMAGES, side_px(tiny=tiny))
    logits = []
    for target_device in (torch.device("cpu"), device):
        ready_to_train(model, target_device)
        scene, person = augment_views(batch.scene, batch.person, PLAIN, None, device=target_device)
        with torch.no_grad():
            logits.append(model(scene, person).cpu())
    report.close("ViT with two streams, logits", logits[1], logits[0], FEATURES)


def check_convergence(report: Report, device: torch.device, *, tiny: bool) -> None:
    """Train 20 steps in float32 and in bfloat16 and compare the last losses."""
    totals = []
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        model = pretraining_model(tiny=tiny)
        batch = pretraining_batch(model, IMAGES)
        ready_to_train(model, device)
        optimizer = build_optimizer(model, lr=1e-3)
        for _ in range(20):
            values = pretrain_step(model, optimizer, [batch], precision=precision)
        totals.append(values["total"])
    report.at_most("bfloat16 against float32 after 20 steps", abs(totals[1] / totals[0] - 1), 5e-2)


def main() -> None:
    """Run all comparisons."""
    device, out, tiny = arguments(__doc__)
    setup_device(HardwareConfig(device=device.type))  # type: ignore[arg-type] # Literal
    report = Report("numerics", out)
    report.note("TF32 of convolutions", str(torch.backends.cudnn.allow_tf32))
    with report.attempt("equations"):
        check_equations(report, device)
    with report.attempt("encoders"):
        check_encoders(report, device)
    with report.attempt("pre-training step"):
        check_training_step(report, device, tiny=tiny)
    with report.attempt("optimiser"):
        check_optimizer(report, device)
    with report.attempt("convolutions"):
        check_convolutions(report, device, tiny=tiny)
    with report.attempt("classifier"):
        check_classifier(report, device, tiny=tiny)
    check_region_methods(report, device, tiny=tiny)
    with report.attempt("detectors"):
        check_detectors(report, device)
    with report.attempt("suppression"):
        check_suppression(report, device)
    with report.attempt("augmentation"):
        check_augmentation(report, device)
    with report.attempt("convergence"):
        check_convergence(report, device, tiny=tiny)


if __name__ == "__main__":
    main()
