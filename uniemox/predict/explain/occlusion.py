"""Which parts of an image an answer needs: cover each in turn, see how far the answer falls (arXiv 1311.2901).

Any network, without torch, in about a hundred forward passes: large covers over the whole image first, small ones
where those mattered most.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ShapeError
from uniemox.predict.explain.explanation import Array

Score = Callable[[Array], NDArray[np.floating]]
"""Pixels (N, 3, S, S) -> how much speaks for the label, (N,); a log-probability keeps apart what is nearly sure."""

CELLS = 16  # of a side; a map has CELLS x CELLS values
COARSE, COARSE_STEP = 4, 2  # side of a large cover and from one to the next, in cells: 7 x 7 covers
FINE = 2  # side of a small cover, in cells
FINE_COVERS = 48
BATCH = 14  # images at a time: 49 and 48 covers in seven runs


def occlusion_map(score: Score, pixels: Array) -> Array:
    """How much the score falls when a place is covered, in 98 passes.

    pixels: (3, S, S), normalised; S at least 16.  Returns (16, 16): of each place the mean fall over the large covers
    on it, plus the mean over the small covers on it, which lie on the 48 hottest places. It is negative where the score
    rises. A cover has the mean colour of the image. Raises ShapeError for other pixels.
    """
    if pixels.ndim != 3 or pixels.shape[0] != 3 or min(pixels.shape[1:]) < CELLS:
        raise ShapeError(f"expected pixels (3, S, S) with S at least {CELLS}, got {pixels.shape}")
    before = float(score(pixels[None])[0])
    starts = range(0, CELLS - COARSE + 1, COARSE_STEP)
    large = [(row, column) for row in starts for column in starts]
    coarse = _mean_fall(before, large, COARSE, score, pixels)
    hottest = np.argsort(-coarse, axis=None, kind="stable")
    small: list[tuple[int, int]] = []
    for place in hottest:
        corner = (min(int(place) // CELLS, CELLS - FINE), min(int(place) % CELLS, CELLS - FINE))
        if corner not in small:
            small.append(corner)
        if len(small) == FINE_COVERS:
            break
    return coarse + _mean_fall(before, small, FINE, score, pixels)


def _mean_fall(before: float, corners: list[tuple[int, int]], side: int, score: Score, pixels: Array) -> Array:
    """Of each place the mean fall of the score over the covers on it, 0 where none is: (CELLS, CELLS)."""
    falls = np.concatenate([before - score(batch) for batch in _covered(corners, side, pixels)])  # (M,)
    total, count = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for (row, column), fall in zip(corners, falls, strict=True):
        total[row : row + side, column : column + side] += fall
        count[row : row + side, column : column + side] += 1
    return (total / np.maximum(count, 1)).astype(np.float32)


def _covered(corners: list[tuple[int, int]], side: int, pixels: Array) -> Iterator[Array]:
    """Batches (n, 3, S, S) of the image, each with one square of cells covered."""
    mean = pixels.mean(axis=(1, 2), keepdims=True)  # (3, 1, 1)
    rows, columns = (np.linspace(0, length, CELLS + 1).round().astype(int) for length in pixels.shape[1:])
    for first in range(0, len(corners), BATCH):
        part = corners[first : first + BATCH]
        batch = np.repeat(pixels[None], len(part), axis=0)
        for one, (row, column) in zip(batch, part, strict=True):
            one[:, rows[row] : rows[row + side], columns[column] : columns[column + side]] = mean
        yield batch
