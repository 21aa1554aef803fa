"""Our own finder's output: a heat map of people's centres with four distances in every cell, in numpy."""

from collections.abc import Sequence

import numpy as np

from uniemox.persons.decoding import Array, Decoded
from uniemox.persons.fitting import Size

STRIDE = 8
"""Px of the input that a cell covers."""


def decode_centres_map(outputs: Sequence[Array], size: Size) -> Decoded:
    """(N, 5, H/8, W/8): the probability of a person's centre, and distances to left, top, right, bottom in px.

    Distances are from the middle of the cell; column i covers the px from 8 i to 8 i + 8 of the input, whose left edge
    is 0. A cell that one of its eight neighbours exceeds has confidence 0 (CenterNet, arXiv 1904.07850, section 4).
    """
    del size
    maps = outputs[0]
    n, _, rows, columns = maps.shape
    y, x = (np.mgrid[:rows, :columns].astype(np.float32) + 0.5) * STRIDE
    left, top, right, bottom = np.moveaxis(maps[:, 1:], 1, 0)  # (N, rows, columns) each
    boxes = np.stack([x - left, y - top, x + right, y + bottom], axis=-1)  # (N, rows, columns, 4)
    heat = maps[:, 0]
    peaks = np.where(heat >= highest_around(heat), heat, 0)
    return boxes.reshape(n, -1, 4), peaks.reshape(n, -1).astype(np.float32)


def highest_around(heat: Array) -> Array:
    """The highest value of each cell and its eight neighbours. heat: (N, rows, columns)."""
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    along = np.maximum(np.maximum(padded[:, :, :-2], padded[:, :, 2:]), padded[:, :, 1:-1])  # (N, rows + 2, columns)
    return np.maximum(np.maximum(along[:, :-2], along[:, 2:]), along[:, 1:-1])  # (N, rows, columns)
