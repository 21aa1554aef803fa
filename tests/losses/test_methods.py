"""Losses of methods: worked examples by hand, and what they must be under any numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from uniemox.errors import ShapeError
from uniemox.losses.methods import hierarchical_cross_entropy, multiplicative_loss, polarity_loss, word_alignment_loss
from uniemox.losses.objective import soft_target_cross_entropy

POLARITY = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])  # of four labels
LOGITS = arrays(np.float32, (3, 4), elements=st.floats(-8, 8, width=32)).map(torch.from_numpy)


def test_an_error_across_polarity_costs_more() -> None:
    """Probabilities 0.1, 0.2, 0.3, 0.4: of the first label -log 0.1, of its polarity -log 0.3."""
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    target = torch.tensor([[1.0, 0, 0, 0]])
    assert polarity_loss(logits, target, POLARITY) == pytest.approx(-np.log(0.3))
    assert hierarchical_cross_entropy(logits, target, POLARITY, 0.5) == pytest.approx(-np.log(0.1) - 0.5 * np.log(0.3))
    within, across = (torch.tensor([[0.1, *rest]]).log() for rest in ((0.7, 0.1, 0.1), (0.1, 0.7, 0.1)))
    assert soft_target_cross_entropy(within, target) == pytest.approx(float(soft_target_cross_entropy(across, target)))
    assert hierarchical_cross_entropy(within, target, POLARITY) < hierarchical_cross_entropy(across, target, POLARITY)


@given(LOGITS)
def test_polarities_cost_at_most_what_labels_cost(logits: torch.Tensor) -> None:
    target = torch.eye(4)[:3]
    labels = soft_target_cross_entropy(logits, target)
    polarity = polarity_loss(logits, target, POLARITY)
    assert -1e-5 <= polarity <= labels + 1e-4
    everything = polarity_loss(logits, target, torch.ones(1, 4))  # one polarity is always right
    assert everything == pytest.approx(0, abs=1e-5)
    twice = torch.tensor([2.0, 2.0, 2.0])
    assert polarity_loss(logits, target, POLARITY, twice) == pytest.approx(float(polarity), rel=1e-4, abs=1e-5)


def test_a_context_that_is_unsure_weighs_little() -> None:
    """Two contexts, 0.9 and 0.2 for the truth, β 1: -(0.9 log 0.9 + 0.2 log 0.2)."""
    logits = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]]).log()
    target = torch.tensor([[1.0, 0.0]])
    assert multiplicative_loss(logits, target) == pytest.approx(-(0.9 * np.log(0.9) + 0.2 * np.log(0.2)))
    assert multiplicative_loss(logits, target, beta=0) == pytest.approx(-np.log(0.9) - np.log(0.2))
    shown = logits.clone().requires_grad_()
    multiplicative_loss(shown, target).backward()
    assert (shown.grad[0, :, 0] < 0).all()  # more for the truth is better, in every context


def test_words_of_an_image_among_all_words() -> None:
    """Two kinds: of three words two are true, of two none."""
    logits = torch.tensor([[0.5, 0.25, 0.25, 0.9, 0.1], [0.2, 0.2, 0.6, 0.3, 0.7]]).log()
    words = torch.tensor([[1.0, 1, 0, 0, 0], [0, 0, 1, 0, 1]])
    first = -((np.log(0.5) + np.log(0.25)) / 2 + np.log(0.6)) / 2
    assert word_alignment_loss(logits, words, (3, 2)) == pytest.approx(first - np.log(0.7))
    assert word_alignment_loss(logits, torch.zeros(2, 5), (3, 2)) == 0


def test_other_shapes_are_refused() -> None:
    good = torch.zeros(2, 4)
    for wrong in (
        lambda: polarity_loss(good, good, torch.ones(2, 3)),
        lambda: polarity_loss(good, torch.zeros(3, 4), POLARITY),
        lambda: multiplicative_loss(torch.zeros(2, 1, 4), good),
        lambda: multiplicative_loss(torch.zeros(2, 3, 5), good),
        lambda: word_alignment_loss(good, good, (2, 1)),
    ):
        with pytest.raises(ShapeError, match="must"):
            wrong()
