"""Print the largest difference to every stored number; docs/fidelity.md sums it up. Run: python -m tools.fidelity"""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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

# Reference set, compared quantity, largest absolute difference, precision and tolerance.
Row = tuple[str, str, float, str]
GOLDEN = SHARED / "golden" / "checkpoints"
EXACT = "float64, 1e-9"
SINGLE = "float32, 1e-5"


def largest_difference(value: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference."""
    return (value.detach().double() - expected.double()).abs().max().item()


def equations() -> Iterator[Row]:
    """Compare fusions and losses, in both stored sizes."""
    for path in sorted((REFERENCE / "equations").iterdir()):
        arrays = load_npz(path)
        for name, equation in (("static", "2"), ("dynamic", "3, 4"), ("attention", "5"), ("gated", "6")):
            heads, channels = arrays["dynamic.scene_weight"].shape
            fusion = build_fusion(name, channels=channels, heads=heads).double()
            weights = {
                key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")
            }
            expected = weights.pop("out")
            fusion.load_state_dict(weights)
            yield (
                f"equations/{path.stem}",
                f"{name} fusion, eq {equation}",
                largest_difference(fusion(arrays["scene"], arrays["person"]), expected),
                EXACT,
            )
        cfa = contrastive_feature_alignment(arrays["fused"], arrays["image"], arrays["text"], float(arrays["tau"]))
        for description, value, stored in (
            ("L1, eq 1", reconstruction_loss(arrays["pred"], arrays["target"], arrays["mask"]), "reconstruction_loss"),
            (
                "L1, norm_pix",
                reconstruction_loss(arrays["pred"], arrays["target"], arrays["mask"], True),
                "reconstruction_loss_norm_pix",
            ),
            ("L2, eq 7-9", cfa, "cfa_loss"),
            ("L3, eq 10", semantic_visual_alignment(arrays["fused"], arrays["image"]), "sva_loss"),
            ("soft targets, eq 12", soft_target_cross_entropy(arrays["logits"], arrays["soft_target"]), "soft_loss"),
        ):
            yield f"equations/{path.stem}", description, largest_difference(value, arrays[stored]), EXACT


def mae() -> Iterator[Row]:
    """Compare MAE's pre-training: four mask ratios, with and without norm_pix."""
    reference = load_npz(GOLDEN / "mae_pretrain" / "expected.npz")
    largest: dict[str, float] = {}
    for percent in (25, 50, 75, 85):
        for norm_pix in (False, True):
            model = mae_model(GOLDEN, percent, norm_pix=norm_pix)
            output = model(reference["x"], scene_noise=reference[f"noise_{percent}"])
            output.total.backward()
            decoder = model.decoder
            assert decoder is not None
            assert output.scene_mask is not None
            assert output.scene_pred is not None
            assert isinstance(decoder.mask_token.grad, Tensor)
            patch_embedding: Any = model.encoder.patch_embed
            tag = f"{percent}_npl{int(norm_pix)}"
            for quantity, value, name in (
                ("mask", output.scene_mask.hidden, f"mask_{percent}"),
                ("prediction", output.scene_pred, f"pred_{percent}"),
                ("loss", output.total, f"loss_{tag}"),
                ("gradient of the patch embedding", patch_embedding.proj.weight.grad, f"grad_patch_embed_{tag}"),
                ("gradient of the mask token", decoder.mask_token.grad, f"grad_mask_token_{tag}"),
            ):
                largest[quantity] = max(largest.get(quantity, 0), largest_difference(value, reference[name]))
    for quantity, difference in largest.items():
        yield "mae_pretrain", f"{quantity}, 4 ratios, norm_pix off and on", difference, SINGLE


def methods() -> Iterator[Row]:
    """Compare the features of the published checkpoints."""
    for method in METHODS:
        reference = load_npz(GOLDEN / method / "expected.npz")
        encoder = load_published(GOLDEN / method / "checkpoint.pth", heads=HEADS.get(method))
        yield method, "features", largest_difference(encoder(reference["x"]), reference["features"]), SINGLE
    reference = load_npz(GOLDEN / "simmim_swin" / "expected.npz")
    swin: Any = load_published(GOLDEN / "simmim_swin" / "checkpoint.pth", image_size=160)
    table = swin.layers[0].blocks[0].attn
    yield (
        "simmim_swin",
        "table of window 5",
        largest_difference(table.relative_position_bias_table, reference["rel_pos_table_w5"]),
        SINGLE,
    )


def clip() -> Iterator[Row]:
    """Compare CLIP as a teacher, with exact and quick GELU."""
    with np.load(GOLDEN / "clip" / "expected.npz") as file:
        texts = [str(text) for text in file["texts"]]
    reference = load_npz(GOLDEN / "clip" / "expected.npz")
    for quick_gelu in (False, True):
        with TemporaryDirectory() as folder:
            teacher = ClipTeacher.load(f"local-dir:{clip_folder(GOLDEN, Path(folder), quick_gelu=quick_gelu)}")
        tag = "_quickgelu" if quick_gelu else ""
        yield (
            "clip",
            f"text features{tag}",
            largest_difference(teacher.text_features(texts), reference[f"text_features{tag}"]),
            SINGLE,
        )
        # The stored images are normalised, so they are turned back into pixels, in float64.
        visual = teacher.model.visual
        mean, std = (
            torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (visual.image_mean, visual.image_std)
        )
        image = teacher.image_features(reference["images"].double() * std + mean)
        yield "clip", f"image features{tag}", largest_difference(image, reference[f"image_features{tag}"]), SINGLE


def soft_targets() -> Iterator[Row]:
    """Compare equation 12 on timm's mixed targets."""
    reference = load_npz(GOLDEN / "soft_targets" / "expected.npz")
    names = [name for name in reference if name.startswith("mixup_target_")]
    losses = [soft_target_cross_entropy(reference["logits"], reference[name]) for name in names]
    expected = [reference[name.replace("mixup_target", "soft_ce")] for name in names]
    yield (
        "soft_targets",
        "equation 12, 6 targets",
        largest_difference(torch.stack(losses), torch.stack(expected)),
        SINGLE,
    )


def main() -> None:
    """Print the table."""
    if not GOLDEN.is_dir():
        sys.exit(f"the golden files are not in {GOLDEN}")
    print("| golden set | compared | largest difference | precision, tolerance |\n| --- | --- | --- | --- |")
    for part in (equations, mae, methods, clip, soft_targets):
        for name, description, difference, precision in part():
            print(f"| {name} | {description} | {difference:.1e} | {precision} |")


if __name__ == "__main__":
    main()
