"""Print docs/fidelity.md's table: the largest difference to every stored number. Run: python -m tools.fidelity"""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from tests.checkpoints.test_published import HEADS, METHODS
from tests.conftest import REFERENCE, SHARED
from tests.networks import clip_folder, load_npz, mae_model
from uniemox.checkpoints import load_published
from uniemox.losses import (
    contrastive_feature_alignment,
    reconstruction_loss,
    semantic_visual_alignment,
    soft_target_cross_entropy,
)
from uniemox.model.fusion import build_fusion
from uniemox.teacher.sources import ClipTeacher

Row = tuple[str, str, float, str]  # set, what was compared, largest absolute difference, precision and tolerance
GOLDEN = SHARED / "golden" / "checkpoints"
EXACT = "float64, 1e-9"
SINGLE = "float32, 1e-5"


def apart(value: Tensor, expected: Tensor) -> float:
    """The largest absolute difference."""
    return (value.detach().double() - expected.double()).abs().max().item()


def equations() -> Iterator[Row]:
    """Fusions and losses, both stored sizes."""
    for path in sorted((REFERENCE / "equations").iterdir()):
        e = load_npz(path)
        for name, equation in (("static", "2"), ("dynamic", "3, 4"), ("attention", "5"), ("gated", "6")):
            heads, channels = e["dynamic.scene_weight"].shape
            fusion = build_fusion(name, channels=channels, heads=heads).double()
            weights = {key.removeprefix(f"{name}."): value for key, value in e.items() if key.startswith(f"{name}.")}
            expected = weights.pop("out")
            fusion.load_state_dict(weights)
            yield (
                f"equations/{path.stem}",
                f"{name} fusion, eq {equation}",
                apart(fusion(e["scene"], e["person"]), expected),
                EXACT,
            )
        cfa = contrastive_feature_alignment(e["fused"], e["image"], e["text"], float(e["tau"]))
        for what, value, expected in (
            ("L1, eq 1", reconstruction_loss(e["pred"], e["target"], e["mask"]), "reconstruction_loss"),
            (
                "L1, norm_pix",
                reconstruction_loss(e["pred"], e["target"], e["mask"], True),
                "reconstruction_loss_norm_pix",
            ),
            ("L2, eq 7-9", cfa, "cfa_loss"),
            ("L3, eq 10", semantic_visual_alignment(e["fused"], e["image"]), "sva_loss"),
            ("soft targets, eq 12", soft_target_cross_entropy(e["logits"], e["soft_target"]), "soft_loss"),
        ):
            yield f"equations/{path.stem}", what, apart(value, e[expected]), EXACT


def mae() -> Iterator[Row]:
    """MAE's pre-training: four mask ratios, with and without norm_pix."""
    stored = load_npz(GOLDEN / "mae_pretrain" / "expected.npz")
    worst: dict[str, float] = {}
    for percent in (25, 50, 75, 85):
        for norm_pix in (False, True):
            model = mae_model(GOLDEN, percent, norm_pix=norm_pix)
            output = model(stored["x"], scene_noise=stored[f"noise_{percent}"])
            output.total.backward()
            tag = f"{percent}_npl{int(norm_pix)}"
            for what, value, name in (
                ("mask", output.scene_mask.hidden, f"mask_{percent}"),
                ("prediction", output.scene_pred, f"pred_{percent}"),
                ("loss", output.total, f"loss_{tag}"),
                (
                    "gradient of the patch embedding",
                    model.encoder.patch_embed.proj.weight.grad,
                    f"grad_patch_embed_{tag}",
                ),
                ("gradient of the mask token", model.decoder.mask_token.grad, f"grad_mask_token_{tag}"),
            ):
                worst[what] = max(worst.get(what, 0), apart(value, stored[name]))
    for what, difference in worst.items():
        yield "mae_pretrain", f"{what}, 4 ratios, norm_pix off and on", difference, SINGLE


def methods() -> Iterator[Row]:
    """Features of the published starts."""
    for method in METHODS:
        stored = load_npz(GOLDEN / method / "expected.npz")
        encoder = load_published(GOLDEN / method / "checkpoint.pth", heads=HEADS.get(method))
        yield method, "features", apart(encoder(stored["x"]), stored["features"]), SINGLE
    stored = load_npz(GOLDEN / "simmim_swin" / "expected.npz")
    table = load_published(GOLDEN / "simmim_swin" / "checkpoint.pth", image_size=160).layers[0].blocks[0].attn
    yield (
        "simmim_swin",
        "table of window 5",
        apart(table.relative_position_bias_table, stored["rel_pos_table_w5"]),
        SINGLE,
    )


def clip() -> Iterator[Row]:
    """CLIP through the teacher, exact and quick GELU."""
    with np.load(GOLDEN / "clip" / "expected.npz") as file:
        texts = [str(text) for text in file["texts"]]
    stored = load_npz(GOLDEN / "clip" / "expected.npz")
    for quick_gelu in (False, True):
        with TemporaryDirectory() as folder:
            teacher = ClipTeacher.load(f"local-dir:{clip_folder(GOLDEN, Path(folder), quick_gelu=quick_gelu)}")
        tag = "_quickgelu" if quick_gelu else ""
        yield "clip", f"text features{tag}", apart(teacher.text_features(texts), stored[f"text_features{tag}"]), SINGLE
        visual = teacher.model.visual  # the stored images are normalised already: back to pixels, in float64
        mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (visual.image_mean, visual.image_std))
        image = teacher.image_features(stored["images"].double() * std + mean)
        yield "clip", f"image features{tag}", apart(image, stored[f"image_features{tag}"]), SINGLE


def soft_targets() -> Iterator[Row]:
    """Equation 12 on timm's mixed targets."""
    stored = load_npz(GOLDEN / "soft_targets" / "expected.npz")
    names = [name for name in stored if name.startswith("mixup_target_")]
    losses = [soft_target_cross_entropy(stored["logits"], stored[name]) for name in names]
    expected = [stored[name.replace("mixup_target", "soft_ce")] for name in names]
    yield "soft_targets", "equation 12, 6 targets", apart(torch.stack(losses), torch.stack(expected)), SINGLE


def main() -> None:
    """Print the table."""
    if not GOLDEN.is_dir():
        sys.exit(f"the golden files are not in {GOLDEN}")
    print("| golden set | compared | largest difference | precision, tolerance |\n| --- | --- | --- | --- |")
    for part in (equations, mae, methods, clip, soft_targets):
        for name, what, difference, precision in part():
            print(f"| {name} | {what} | {difference:.1e} | {precision} |")


if __name__ == "__main__":
    main()
