"""The losses against stored values (float64, rtol 1e-9), finite differences and their own properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from uniemox.errors import ConfigError, ShapeError
from uniemox.losses import (
    contrastive_feature_alignment,
    reconstruction_loss,
    semantic_visual_alignment,
    soft_target_cross_entropy,
)
from uniemox.losses.config import LossWeights


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_close(value: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(value, expected.to(value.dtype), rtol=1e-9, atol=1e-12)


def test_losses_equal_stored_values(equations: dict[str, Tensor]) -> None:
    e = equations
    assert_close(reconstruction_loss(e["pred"], e["target"], e["mask"]), e["reconstruction_loss"])
    assert_close(
        reconstruction_loss(e["pred"], e["target"], e["mask"], norm_pix=True), e["reconstruction_loss_norm_pix"]
    )
    assert_close(contrastive_feature_alignment(e["fused"], e["image"], e["text"], float(e["tau"])), e["cfa_loss"])
    assert_close(semantic_visual_alignment(e["fused"], e["image"]), e["sva_loss"])
    assert_close(soft_target_cross_entropy(e["logits"], e["soft_target"]), e["soft_loss"])


def test_gradients_match_finite_differences() -> None:
    fused, image, text = (draw(4, 6, seed=i).requires_grad_() for i in range(3))
    assert gradcheck(lambda f, i, t: contrastive_feature_alignment(f, i, t, 14.0), (fused, image, text))
    assert gradcheck(semantic_visual_alignment, (fused, image))
    pred = draw(2, 5, 12).requires_grad_()
    target = draw(2, 5, 12, seed=1).requires_grad_()
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]], dtype=torch.float64)
    for norm_pix in (False, True):
        assert gradcheck(lambda p, t, n=norm_pix: reconstruction_loss(p, t, mask, n), (pred, target))
    logits = draw(4, 8).requires_grad_()
    soft = draw(4, 8, seed=1).softmax(-1).requires_grad_()
    assert gradcheck(soft_target_cross_entropy, (logits, soft))


@given(st.floats(1e-3, 1e3))
def test_feature_alignment_does_not_depend_on_the_temperature(temperature: float) -> None:
    fused, image, text = (draw(5, 7, seed=i) for i in range(3))
    expected = contrastive_feature_alignment(fused, image, text, 1.0)
    assert_close(contrastive_feature_alignment(fused, image, text, temperature), expected)


@given(st.permutations(range(5)))
def test_order_of_images_and_of_texts_does_not_matter(order: list[int]) -> None:
    """Equation 9 compares images by their cosines with all texts, whichever image a text belongs to."""
    fused, image, text = (draw(5, 7, seed=i) for i in range(3))
    expected = contrastive_feature_alignment(fused, image, text, 1.0)
    assert_close(contrastive_feature_alignment(fused[order], image[order], text, 1.0), expected)
    assert_close(contrastive_feature_alignment(fused, image, text[order], 1.0), expected)
    assert_close(semantic_visual_alignment(fused[order], image[order]), semantic_visual_alignment(fused, image))


def test_no_error_gives_zero_loss_and_opposites_the_largest() -> None:
    image = draw(5, 7)
    text = draw(9, 7, seed=1)
    for scale in (0.01, 1.0, 300.0):
        assert semantic_visual_alignment(scale * image, image).item() == pytest.approx(0, abs=1e-12)
        assert contrastive_feature_alignment(scale * image, image, text, 10.0).item() == pytest.approx(0, abs=1e-12)
    assert semantic_visual_alignment(-image, image).item() == pytest.approx(2)
    assert contrastive_feature_alignment(-image, image, text, 10.0).item() == pytest.approx(2)
    patches = draw(2, 5, 12)
    mask = torch.ones(2, 5, dtype=torch.float64)
    assert reconstruction_loss(patches, patches, mask).item() == 0


def test_only_hidden_patches_count() -> None:
    pred = draw(2, 4, 6)
    target = draw(2, 4, 6, seed=1)
    mask = torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 0]]).double()
    changed = torch.where(mask[..., None] == 1, pred, torch.full_like(pred, 99.0))
    assert_close(reconstruction_loss(changed, target, mask), reconstruction_loss(pred, target, mask))
    by_hand = torch.stack([((pred - target) ** 2)[i, j].mean() for i, j in [(0, 0), (0, 3), (1, 1), (1, 2)]]).mean()
    assert_close(reconstruction_loss(pred, target, mask), by_hand)


def test_a_zero_feature_gives_a_finite_gradient() -> None:
    fused = torch.zeros(2, 4, requires_grad=True)
    loss = contrastive_feature_alignment(fused, draw(2, 4).float(), draw(2, 4, seed=1).float(), 1.0)
    (loss + semantic_visual_alignment(fused, draw(2, 4).float())).backward()
    assert fused.grad.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: semantic_visual_alignment(draw(2, 4), draw(2, 5)), "must both be"),
        (lambda: contrastive_feature_alignment(draw(2, 4), draw(3, 4), draw(2, 4), 1.0), "must both be"),
        (lambda: contrastive_feature_alignment(draw(2, 4), draw(2, 4), draw(2, 5), 1.0), "must have the width"),
        (lambda: reconstruction_loss(draw(2, 4, 3), draw(2, 4, 3), draw(2, 3)), "mask"),
        (lambda: soft_target_cross_entropy(draw(2, 8), draw(2, 7)), "logits"),
    ],
)
def test_widths_that_do_not_fit_are_refused(call: object, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call()


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weights_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"losses\.person_reconstruction"):
        LossWeights(person_reconstruction=value)


def test_a_model_without_losses_is_refused() -> None:
    off = dict.fromkeys(LossWeights.__slots__, 0.0)
    with pytest.raises(ConfigError, match="every loss is turned off"):
        LossWeights(**off)


def test_mixup_targets_give_timms_loss(shared: object) -> None:
    """Equation 12 on the soft targets of golden/checkpoints/soft_targets (timm 1.0.31), float32, 1e-6."""
    from tests.networks import load_npz

    stored = load_npz(shared / "golden" / "checkpoints" / "soft_targets" / "expected.npz")
    pairs = [name for name in stored if name.startswith("mixup_target_")]
    assert len(pairs) == 6
    for name in pairs:
        loss = soft_target_cross_entropy(stored["logits"], stored[name])
        torch.testing.assert_close(
            loss, stored[name.replace("mixup_target", "soft_ce")].to(loss.dtype), rtol=1e-6, atol=1e-6
        )
