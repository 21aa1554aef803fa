"""Targets from labels, votes and affect, and samples without a target."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.errors import DataError
from uniemox.finetune.config import Task
from uniemox.finetune.presets import PRESETS
from uniemox.finetune.targets import class_weights, has_target, target_of
from uniemox.labels import AFFECT, AXES, EKMAN, MIKELS, POLARITY


def sample(**fields: object) -> Sample:
    return Sample(key="a.jpg", image=ImageFile(Path("a.jpg")), **fields)


def test_label_targets_are_one_hot() -> None:
    assert torch.equal(target_of([sample(label=2), sample(label=0)], "label", EKMAN), torch.eye(6)[[2, 0]])


def test_votes_for_other_words_are_dropped_and_the_rest_sums_to_one() -> None:
    votes = {"anger": 0.1, "joy": 0.3, "neutral": 0.6}
    (row,) = target_of([sample(distribution=votes)], "distribution", EKMAN).tolist()
    assert row == pytest.approx([0.25, 0, 0, 0.75, 0, 0])


def test_other_spellings_of_a_label_are_added() -> None:
    votes = {"Happy": 0.5, "joy": 0.25, "SAD": 0.25}
    (row,) = target_of([sample(distribution=votes)], "distribution", EKMAN).tolist()
    assert row == pytest.approx([0, 0, 0, 0.75, 0.25, 0])


@given(st.dictionaries(st.sampled_from([*EKMAN.labels, "neutral"]), st.floats(0, 1)))
def test_shares_keep_their_proportions(votes: dict[str, float]) -> None:
    votes_of_labels = np.array([votes.get(word, 0.0) for word in EKMAN.labels])
    voted = sample(distribution=votes)
    assert has_target(voted, "distribution", EKMAN) == (votes_of_labels.sum() > 0)
    if votes_of_labels.sum() > 0:
        row = target_of([voted], "distribution", EKMAN)[0].double().numpy()
        np.testing.assert_allclose(row, votes_of_labels / votes_of_labels.sum(), atol=1e-6)


def test_affect_is_scaled_to_minus_one_to_one() -> None:
    ends = [sample(valence=1, arousal=9), sample(valence=5, arousal=6)]
    assert target_of(ends, "affect", EKMAN).tolist() == [[-1, 1], [0, 0.25]]
    controlled = [sample(valence=1, arousal=9, dominance=7)]
    assert target_of(controlled, "affect", EKMAN, AXES).tolist() == [[-1, 1, 0.5]]


def test_dominance_is_an_axis_if_every_rated_sample_has_it() -> None:
    rated = {"valence": 5.0, "arousal": 5.0}
    complete = [sample(**rated, dominance=3.0), sample(label=1)]
    assert DataSet("data", EKMAN, complete).axes == AXES
    assert DataSet("data", EKMAN, [*complete, sample(**rated)]).axes == AFFECT
    assert DataSet("data", EKMAN, [sample(label=1)]).axes == AFFECT


@pytest.mark.parametrize("preset", PRESETS)
def test_affect_needs_no_other_option(preset: str) -> None:
    assert replace(PRESETS[preset](), task="affect").resolved().class_weighting == "none"
    assert replace(PRESETS[preset]()).resolved() == PRESETS[preset]()


@pytest.mark.parametrize(("task", "width"), [("label", 6), ("distribution", 6), ("affect", 2)])
def test_no_samples_give_no_rows(task: Task, width: int) -> None:
    assert target_of([], task, EKMAN).shape == (0, width)


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("label", {"distribution": {"joy": 1.0}, "valence": 5.0, "arousal": 5.0}),
        ("distribution", {"label": 3, "valence": 5.0, "arousal": 5.0}),
        ("distribution", {"distribution": {"neutral": 1.0}}),
        ("distribution", {"distribution": {"joy": 0.0}}),
        ("affect", {"label": 3, "valence": 5.0}),
        ("affect", {"label": 3, "arousal": 5.0}),
    ],
)
def test_samples_without_target_are_named(task: Task, fields: dict[str, object]) -> None:
    labelled = sample(label=1, distribution={"joy": 1.0}, valence=2.0, arousal=3.0)
    assert has_target(labelled, task, EKMAN)
    assert not has_target(sample(**fields), task, EKMAN)
    with pytest.raises(DataError, match=rf"a\.jpg has no .*task='{task}'"):
        target_of([labelled, sample(**fields)], task, EKMAN)


def test_a_label_beyond_the_set_is_no_target() -> None:
    """Mapped to a smaller set, a sample must bring the smaller set's label."""
    assert not has_target(sample(label=2), "label", POLARITY)
    with pytest.raises(DataError, match=r"a\.jpg"):
        target_of([sample(label=2)], "label", POLARITY)


@given(st.lists(st.integers(0, 7), min_size=1))
def test_class_weights_are_scikit_learns(labels: list[int]) -> None:
    weights = class_weights([*(sample(label=label) for label in labels), sample()], MIKELS)
    present = np.unique(labels)
    expected = np.zeros(8)
    expected[present] = compute_class_weight("balanced", classes=present, y=labels)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    assert weights[labels].mean().item() == pytest.approx(1, rel=1e-5)


def test_class_weights_of_votes_count_shares_not_majorities() -> None:
    """Awe is never the majority; all its votes together count as much as those for fear."""
    votes = [sample(distribution={"fear": 0.75, "awe": 0.25}), sample(distribution={"fear": 1.0})]
    weights = class_weights([*votes, sample(label=0)], MIKELS, "distribution")
    expected = np.zeros(8)
    expected[MIKELS.index("fear")] = 2 / (2 * 1.75)
    expected[MIKELS.index("awe")] = 2 / (2 * 0.25)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)


def test_class_weights_need_a_label() -> None:
    for samples in ([], [sample(), sample()]):
        with pytest.raises(DataError, match=f"all {len(samples)} samples"):
            class_weights(samples, MIKELS)
