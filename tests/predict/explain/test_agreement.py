"""Whether two maps point at the same places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from uniemox.persons.box import Box
from uniemox.predict.explain.explanation import UNLIKE, Explanation, compared, map_agreement


def explanation(heat: np.ndarray) -> Explanation:
    image = Image.new("RGB", (8, 8))
    heat = heat.astype(np.float32)
    return Explanation(label="awe", probability=0.5, method="cam", heat=heat, box=Box(0, 0, 8, 8), image=image)


def test_maps_of_the_same_places_agree_and_of_others_do_not() -> None:
    left = np.zeros((14, 14))
    left[:, :7] = np.arange(1, 8)
    one = explanation(left)
    assert map_agreement(one, one) == pytest.approx(1)
    assert map_agreement(one, explanation(left[:, ::-1])) < -0.5
    assert map_agreement(one, explanation(np.sqrt(left))) == pytest.approx(1)  # places count, not how much


def test_a_map_that_says_nothing_agrees_with_none() -> None:
    empty, full = explanation(np.zeros((7, 7))), explanation(np.eye(7))
    assert map_agreement(empty, full) == map_agreement(empty, empty) == 0


@given(st.integers(0, 2**16), st.tuples(st.integers(2, 14), st.integers(2, 14)))
def test_agreement_is_spearman_s(seed: int, grid: tuple[int, int]) -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(seed)
    one, other = draw.integers(0, 4, (2, 14, 14))
    assert map_agreement(explanation(one), explanation(other)) == pytest.approx(
        stats.spearmanr(one.ravel(), other.ravel()).statistic
    )
    assert -1 <= map_agreement(explanation(one), explanation(draw.random(grid))) <= 1 + 1e-9


def test_rows_are_compared_by_twos() -> None:
    same, other = explanation(np.eye(14)), explanation(np.eye(14)[::-1])
    first, second, third, fourth = compared([same, same, same, other])
    assert first.agreement == second.agreement == pytest.approx(1)
    assert third.agreement == fourth.agreement < UNLIKE
    assert [one.is_unlike for one in (first, third, same)] == [False, True, False]
    assert third.heat is same.heat
