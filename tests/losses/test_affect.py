"""Losses of fine-tuning on valence and arousal, on votes, and with weights, against numpy and scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from torch import Tensor
from torch.autograd import gradcheck

from uniemox.errors import ShapeError
from uniemox.losses.objective import mean_over_images, soft_target_cross_entropy
from uniemox.losses.tasks import affect_loss, concordance, distribution_loss

seeds = st.integers(0, 999)
counts = st.integers(2, 20)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def written_out(pred: np.ndarray, target: np.ndarray, weight: np.ndarray) -> float:
    """The loss in numpy, from weighted covariance matrices."""
    columns = []
    for x, y in zip(pred.T, target.T, strict=True):
        matrix = np.cov(x, y, aweights=weight, bias=True)
        shift = np.average(x, weights=weight) - np.average(y, weights=weight)
        columns.append(2 * matrix[0, 1] / (matrix[0, 0] + matrix[1, 1] + shift**2))
    error = np.average(((pred - target) ** 2).mean(axis=1), weights=weight)
    return float(error + 1 - np.mean(columns))


@given(counts, seeds)
def test_affect_equals_numpy(count: int, seed: int) -> None:
    pred = draw(count, 2, seed=seed)
    target = draw(count, 2, seed=seed + 1)
    weight = draw(count, seed=seed + 2).exp()
    for weights in (torch.ones(count, dtype=torch.float64), weight):
        expected = written_out(pred.numpy(), target.numpy(), weights.numpy())
        assert affect_loss(pred, target, weights).item() == pytest.approx(expected, rel=1e-6)
    assert affect_loss(pred, target).item() == pytest.approx(
        affect_loss(pred, target, torch.ones(count).double()).item()
    )


@given(st.permutations(range(6)))
def test_a_weight_of_two_equals_a_repeated_image_in_any_order(order: list[int]) -> None:
    pred = draw(6, 2)
    target = draw(6, 2, seed=1)
    weight = torch.tensor([2.0, 1, 1, 0, 1, 1], dtype=torch.float64)
    rows = [0, 0, 1, 2, 4, 5]
    expected = affect_loss(pred[rows], target[rows])
    torch.testing.assert_close(affect_loss(pred[order], target[order], weight[order]), expected)
    shares = draw(6, 3).softmax(-1)
    other = draw(6, 3, seed=1)
    for loss in (distribution_loss, soft_target_cross_entropy):
        expected = loss(other[rows], shares[rows])
        torch.testing.assert_close(loss(other[order], shares[order], weight[order]), expected)


def test_no_error_gives_zero_loss_and_opposites_the_lowest_concordance() -> None:
    target = draw(5, 2)
    assert affect_loss(target, target).item() == pytest.approx(0, abs=1e-12)
    centred = target - target.mean(dim=0)
    assert concordance(-centred, centred).tolist() == pytest.approx([-1, -1])
    # A correlation of 1 is not enough: the means must agree too.
    assert concordance(centred, centred + 100).max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 4])
def test_a_batch_of_equal_numbers_has_a_finite_gradient(count: int, dtype: torch.dtype) -> None:
    # Predicted exactly; and off by a half, without any concordance.
    for value, expected in ((0.25, 0.0), (0.75, 1.25)):
        pred = torch.full((count, 2), value, dtype=dtype, requires_grad=True)
        loss = affect_loss(pred, torch.full((count, 2), 0.25, dtype=dtype))
        loss.backward()
        assert loss.item() == pytest.approx(expected, abs=1e-6)
        assert pred.grad.isfinite().all()


@given(st.integers(1, 8), st.integers(2, 8), seeds)
def test_divergence_equals_scipy_and_differs_from_cross_entropy_by_a_constant(n: int, e: int, seed: int) -> None:
    logits = draw(n, e, seed=seed)
    target = draw(n, e, seed=seed + 1).softmax(-1)
    target = torch.where(target < 0.1, 0.0, target)
    target = target / target.sum(dim=1, keepdim=True)
    loss = distribution_loss(logits, target)
    assert loss.item() == pytest.approx(entropy(target.numpy(), logits.softmax(-1).numpy(), axis=1).mean())
    gap = soft_target_cross_entropy(logits, target) - loss
    assert gap.item() == pytest.approx(entropy(target.numpy(), axis=1).mean())


def test_divergence_of_the_right_shares_is_zero_and_zero_shares_are_finite() -> None:
    logits = draw(3, 5)
    assert distribution_loss(logits, logits.softmax(-1)).item() == pytest.approx(0, abs=1e-12)
    one_hot = torch.eye(3, 5, dtype=torch.float64)
    logits.requires_grad_()
    loss = distribution_loss(logits, one_hot)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, torch.arange(3)))
    loss.backward()
    assert logits.grad.isfinite().all()


def test_gradients_match_finite_differences() -> None:
    pred = draw(5, 2).requires_grad_()
    target = draw(5, 2, seed=1)
    weight = draw(5, seed=2).exp()
    assert gradcheck(affect_loss, (pred, target))
    assert gradcheck(lambda p: affect_loss(p, target, weight), (pred,))
    logits = draw(5, 4).requires_grad_()
    shares = draw(5, 4, seed=1).softmax(-1)
    assert gradcheck(lambda x: distribution_loss(x, shares, weight), (logits,))
    assert gradcheck(lambda x: soft_target_cross_entropy(x, shares, weight), (logits,))


def test_weighted_cross_entropy_equals_torchs_with_class_weights() -> None:
    logits = draw(6, 3)
    labels = torch.tensor([0, 1, 2, 2, 0, 2])
    class_weights = torch.tensor([0.5, 2, 1]).double()
    expected = torch.nn.functional.cross_entropy(logits, labels, weight=class_weights)
    one_hot = torch.eye(3, dtype=torch.float64)[labels]
    torch.testing.assert_close(soft_target_cross_entropy(logits, one_hot, class_weights[labels]), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: affect_loss(draw(2), draw(2)), r"\(N, K\)"),
        (lambda: affect_loss(draw(2, 2), draw(2, 3)), r"\(N, K\)"),
        (lambda: affect_loss(draw(2, 2), draw(3, 2)), r"\(N, K\)"),
        (lambda: affect_loss(draw(2, 2), draw(2, 2), torch.ones(3)), "one per image"),
        (lambda: distribution_loss(draw(2, 8), draw(2, 7)), r"\(N, E\)"),
        (lambda: distribution_loss(draw(2, 8), draw(2, 8), torch.ones(2, 1)), "one per image"),
        (lambda: mean_over_images(draw(2), torch.ones(1)), "one per image"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call: object, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call()
