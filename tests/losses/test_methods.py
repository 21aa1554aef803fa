"""Losses of methods: examples by hand, and properties for any numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from uniemox.errors import ShapeError
from uniemox.losses.methods import multiplicative_loss, polarity_loss, word_alignment_terms
from uniemox.losses.objective import soft_target_cross_entropy

POLARITY = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])  # of four labels
LOGITS = arrays(np.float32, (3, 4), elements=st.floats(-8, 8, width=32)).map(torch.from_numpy)


def test_an_error_across_polarity_costs_more() -> None:
    """Probabilities 0.1, 0.2, 0.3, 0.4: of the first label -log 0.1, of its polarity -log 0.3."""
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    target = torch.tensor([[1.0, 0, 0, 0]])
    assert polarity_loss(logits, target, POLARITY) == pytest.approx(-np.log(0.3))
    within = torch.tensor([[0.1, 0.7, 0.1, 0.1]]).log()
    across = torch.tensor([[0.1, 0.1, 0.7, 0.1]]).log()
    assert soft_target_cross_entropy(within, target) == pytest.approx(float(soft_target_cross_entropy(across, target)))
    assert polarity_loss(within, target, POLARITY) < polarity_loss(across, target, POLARITY)


@given(LOGITS)
def test_polarity_loss_is_at_most_the_loss_of_the_labels(logits: torch.Tensor) -> None:
    target = torch.eye(4)[:3]
    labels = soft_target_cross_entropy(logits, target)
    polarity = polarity_loss(logits, target, POLARITY)
    assert -1e-5 <= polarity <= labels + 1e-4
    # A single polarity of all labels is always predicted correctly.
    single = polarity_loss(logits, target, torch.ones(1, 4))
    assert single == pytest.approx(0, abs=1e-5)
    equal_weights = torch.tensor([2.0, 2.0, 2.0])
    assert polarity_loss(logits, target, POLARITY, equal_weights) == pytest.approx(float(polarity), rel=1e-4, abs=1e-5)


def test_an_uncertain_modality_has_a_low_weight() -> None:
    """Two modalities, 0.9 and 0.2 for the true label, β 1: -(0.9 log 0.9 + 0.2 log 0.2)."""
    logits = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]]).log()
    target = torch.tensor([[1.0, 0.0]])
    assert multiplicative_loss(logits, target) == pytest.approx(-(0.9 * np.log(0.9) + 0.2 * np.log(0.2)))
    assert multiplicative_loss(logits, target, beta=0) == pytest.approx(-np.log(0.9) - np.log(0.2))
    logits.requires_grad_()
    multiplicative_loss(logits, target).backward()
    # A higher logit of the true label lowers the loss, in every modality.
    assert (logits.grad[0, :, 0] < 0).all()


def test_word_alignment_by_hand() -> None:
    """Two kinds of words: the first image has two of three and none of two, the second one of each."""
    logits = torch.tensor([[0.5, 0.25, 0.25, 0.9, 0.1], [0.2, 0.2, 0.6, 0.3, 0.7]]).log()
    words = torch.tensor([[1.0, 1, 0, 0, 0], [0, 0, 1, 0, 1]])
    first = -((np.log(0.5) + np.log(0.25)) / 2 + np.log(0.6)) / 2
    assert word_alignment_terms(logits, words, (3, 2)).sum() == pytest.approx(first - np.log(0.7))
    assert word_alignment_terms(logits, torch.zeros(2, 5), (3, 2)).tolist() == [0, 0]


def test_other_shapes_are_refused() -> None:
    good = torch.zeros(2, 4)
    for wrong in (
        lambda: polarity_loss(good, good, torch.ones(2, 3)),
        lambda: polarity_loss(good, torch.zeros(3, 4), POLARITY),
        lambda: multiplicative_loss(torch.zeros(2, 1, 4), good),
        lambda: multiplicative_loss(torch.zeros(2, 3, 5), good),
        lambda: word_alignment_terms(good, good, (2, 1)),
    ):
        with pytest.raises(ShapeError, match="must"):
            wrong()
