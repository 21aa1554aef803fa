"""Heat over an image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from uniemox.errors import ShapeError
from uniemox.insight.explain.explanation import (
    COLOURS,
    DIMMED_BRIGHTNESS,
    MIN_AGREEMENT,
    OPACITY,
    Explanation,
    coloured,
    enlarged,
    map_agreement,
    normalised,
    with_agreement,
)
from uniemox.persons.box import Box


def explanation(heat: np.ndarray, size: tuple[int, int], box: Box) -> Explanation:
    image = Image.new("RGB", size, (100, 200, 40))
    return Explanation(label="awe", probability=0.5, method="cam", heat=heat, box=box, image=image)


def test_colours_run_from_dark_to_bright() -> None:
    for step, colour in enumerate(COLOURS):
        heat = np.full((2, 2), step / (len(COLOURS) - 1), np.float32)
        assert coloured(heat, (4, 6)).getpixel((3, 5)) == pytest.approx(colour, abs=1)
    brightness = [sum(colour) for colour in COLOURS]
    assert brightness == sorted(brightness)


def test_an_overlay_mixes_inside_the_box_and_dims_outside() -> None:
    overlay = explanation(np.ones((3, 3), np.float32), (60, 40), Box(10, 0, 50, 40)).overlay()
    assert overlay.size == (60, 40)
    # The image below the heat is grey, so all colours belong to the heat.
    grey = Image.new("RGB", (1, 1), (100, 200, 40)).convert("L").getpixel((0, 0))
    mixed = [round(OPACITY * hot + (1 - OPACITY) * grey) for hot in COLOURS[-1]]
    assert overlay.getpixel((30, 20)) == pytest.approx(tuple(mixed), abs=1)
    assert overlay.getpixel((5, 20)) == pytest.approx(
        tuple(DIMMED_BRIGHTNESS * value for value in (100, 200, 40)), abs=1
    )
    # The edge of the box is white.
    assert overlay.getpixel((10, 20)) == (255, 255, 255)


def test_a_large_image_becomes_small() -> None:
    large = explanation(np.eye(4, dtype=np.float32), (3000, 1500), Box(750, 0, 2250, 1500))
    assert large.overlay().size == (1024, 512)
    assert large.overlay(100).size == (100, 50)


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(*[st.floats(-3, 43)] * 4),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_any_box_and_heat_can_be_drawn(size: tuple[int, int], ends: tuple[float, ...], grid: tuple[int, int]) -> None:
    x1, x2 = sorted(ends[:2])
    y1, y2 = sorted(ends[2:])
    heat = np.random.default_rng(0).random(grid, np.float32)
    assert explanation(heat, size, Box(x1, y1, x2, y2)).overlay().size == size


def test_normalised_heat_keeps_positive_evidence() -> None:
    assert normalised(np.array([[-3.0, -1.0]])).tolist() == [[0, 0]]
    assert normalised(np.array([[5.0]])).tolist() == [[1]]
    assert normalised(np.array([[-8.0, 2.0, 4.0]])).tolist() == [[0, 0.5, 1]]


@pytest.mark.parametrize("values", [np.array([[np.nan]]), np.array([[np.inf, 1]])])
def test_invalid_maps_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ShapeError, match="finite"):
        normalised(values)


def test_enlarging_keeps_range_and_position() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[1, 3] = 1
    large = enlarged(heat, (80, 40))
    assert large.shape == (40, 80)
    assert large.max() == pytest.approx(1, abs=0.2)
    assert large.min() == 0
    row, column = np.unravel_index(large.argmax(), large.shape)
    assert (row // 10, column // 20) == (1, 3)


def of_heat(heat: np.ndarray) -> Explanation:
    image = Image.new("RGB", (8, 8))
    heat = heat.astype(np.float32)
    return Explanation(label="awe", probability=0.5, method="cam", heat=heat, box=Box(0, 0, 8, 8), image=image)


def test_agreement_depends_on_positions_not_on_values() -> None:
    heat = np.zeros((14, 14))
    heat[:, :7] = np.arange(1, 8)
    left_half = of_heat(heat)
    assert map_agreement(left_half, left_half) == pytest.approx(1)
    assert map_agreement(left_half, of_heat(heat[:, ::-1])) < -0.5
    # The correlation depends on ranks alone.
    assert map_agreement(left_half, of_heat(np.sqrt(heat))) == pytest.approx(1)


def test_an_empty_map_has_agreement_zero() -> None:
    empty = of_heat(np.zeros((7, 7)))
    full = of_heat(np.eye(7))
    assert map_agreement(empty, full) == map_agreement(empty, empty) == 0


@given(st.integers(0, 2**16), st.tuples(st.integers(2, 14), st.integers(2, 14)))
def test_agreement_matches_scipy_spearmanr(seed: int, grid: tuple[int, int]) -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(seed)
    first, second = draw.integers(0, 4, (2, 14, 14))
    assert map_agreement(of_heat(first), of_heat(second)) == pytest.approx(
        stats.spearmanr(first.ravel(), second.ravel()).statistic
    )
    assert -1 <= map_agreement(of_heat(first), of_heat(draw.random(grid))) <= 1 + 1e-9


def test_maps_are_compared_in_pairs() -> None:
    same = of_heat(np.eye(14))
    other = of_heat(np.eye(14)[::-1])
    first, second, third, fourth = with_agreement([same, same, same, other])
    assert first.agreement == second.agreement == pytest.approx(1)
    assert third.agreement == fourth.agreement < MIN_AGREEMENT
    assert [compared.is_unlike for compared in (first, third, same)] == [False, True, False]
    assert third.heat is same.heat
