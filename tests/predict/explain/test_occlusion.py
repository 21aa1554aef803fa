"""Covering parts of an image, against a plain form."""

import numpy as np
import pytest

from uniemox.errors import ShapeError
from uniemox.predict.explain.maps import CELLS, COARSE, COARSE_STEP, FINE, FINE_COVERS, occlusion_map


def plain(score: object, pixels: np.ndarray) -> np.ndarray:
    """The same, one cover at a time: written for this test."""
    length = pixels.shape[1] // CELLS
    mean = pixels.reshape(3, -1).mean(axis=1)
    before = score(pixels[None])[0]

    def level(corners: list[tuple[int, int]], side: int) -> np.ndarray:
        falls = np.full((len(corners), CELLS, CELLS), np.nan)
        for i, (row, column) in enumerate(corners):
            covered = pixels.copy()
            rows, columns = (slice(at * length, (at + side) * length) for at in (row, column))
            covered[:, rows, columns] = mean[:, None, None]
            falls[i, row : row + side, column : column + side] = before - score(covered[None])[0]
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(np.nansum(falls, axis=0) / (~np.isnan(falls)).sum(axis=0))

    starts = range(0, CELLS - COARSE + 1, COARSE_STEP)
    coarse = level([(row, column) for row in starts for column in starts], COARSE)
    corners: list[tuple[int, int]] = []
    for place in np.argsort(-coarse.astype(np.float32), axis=None, kind="stable"):
        corner = tuple(min(int(at), CELLS - FINE) for at in np.unravel_index(place, coarse.shape))
        if len(corners) < FINE_COVERS and corner not in corners:
            corners.append(corner)  # type: ignore[arg-type]
    return coarse + level(corners, FINE)


def random_score(seed: int, size: int) -> tuple[object, np.ndarray]:
    rng = np.random.default_rng(seed)
    weight, pixels = rng.standard_normal((3, size, size)), rng.standard_normal((3, size, size)).astype(np.float32)
    return lambda batch: np.tanh((batch * weight).sum(axis=(1, 2, 3)) / size), pixels


@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_plain_form(seed: int) -> None:
    score, pixels = random_score(seed, 32)
    np.testing.assert_allclose(occlusion_map(score, pixels), plain(score, pixels), atol=1e-5)


def test_an_image_of_one_colour_has_no_heat() -> None:
    score, _ = random_score(0, 32)
    assert not occlusion_map(score, np.full((3, 32, 32), 0.25, np.float32)).any()


def test_what_lowers_the_score_is_negative() -> None:
    pixels = np.zeros((3, 32, 32), np.float32)
    pixels[:, 8:10, 8:10] = 1
    heat = occlusion_map(lambda batch: -batch[:, 0, 8:10, 8:10].sum(axis=(1, 2)), pixels)
    assert heat[4, 4] < 0
    assert heat.min() == heat[4, 4]


@pytest.mark.parametrize("size", [16, 17, 50, 224])
def test_any_size_of_at_least_a_px_a_cell(size: int) -> None:
    pixels = np.random.default_rng(0).random((3, size, size), np.float32)
    pixels[:, -1, -1] = 50
    heat = occlusion_map(lambda batch: batch[:, 0, -1, -1].astype(np.float64), pixels)
    assert heat.shape == (CELLS, CELLS)
    assert heat.argmax() == CELLS**2 - 1


@pytest.mark.parametrize("shape", [(3, 15, 15), (1, 32, 32), (32, 32), (1, 3, 32, 32)])
def test_other_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected pixels"):
        occlusion_map(lambda batch: batch.mean(axis=(1, 2, 3)), np.zeros(shape, np.float32))
