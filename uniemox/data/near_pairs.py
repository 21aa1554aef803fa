"""Pairs of images that may be near duplicates, found without comparing every pair of a large collection.

Each image belongs to the cell of its most similar centre, and is compared with the images in the cells of the centres
that are nearly as similar to it. The centres are random images. Their number grows with the square root of the number
of images, so the time grows with its power 1.5.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from uniemox.io.parallel import parallel_map

# Maximum number of images of which every pair is compared. It takes seconds, and misses no pair.
EXACT_IMAGES = 20_000
# Number of centres, divided by the square root of the number of images.
CENTRES_PER_ROOT = 4
# A cell is searched if the cosine with its centre is smaller than with the most similar centre by less than this.
MARGIN = 0.12
# Images whose cells are listed at a time.
QUERIES = 2**17
# Rows and columns of the matrix of cosines when every pair is compared, and between images of a cell.
ROWS = 1024
COLUMNS = 4096
CELL_ROWS = 1024
CELL_COLUMNS = 1024
# Maximum number of cosines with centres that a thread has in memory.
CENTRE_COSINES = 2**22
# Minimum number of images of a group for which pairs inside of the group are skipped.
MIN_SKIPPED = 16

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Numbers of images, the lower number of each pair first, (M,) and (M,)."""
Roots = Callable[[NDArray[np.intp]], NDArray[np.intp]]
"""Returns the number of the group to which each image belongs by now, (M,) -> (M,)."""


class Descriptions(NamedTuple):
    """Descriptions of unit length, in the parts that mirroring keeps and that change their sign."""

    even: NDArray[np.float32]
    """(N, 32)."""
    odd: NDArray[np.float32]
    """(N, 32)."""
    is_flat: NDArray[np.bool_]
    """True for images without structure, whose descriptions are noise, (N,)."""

    def cosines(self, rows: NDArray[np.intp] | slice, columns: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        """Return the cosines of images, or of one and the mirror image of the other if that is larger, (R, C)."""
        # The larger of even + odd and even - odd, in place: the matrix is large.
        cosines = self.even[rows] @ self.even[columns].T
        odd_part = self.odd[rows] @ self.odd[columns].T
        cosines += np.abs(odd_part, out=odd_part)
        return cosines


def similar_pairs(descriptions: Descriptions, min_cosine: float, roots: Roots) -> Iterator[Pairs]:
    """Yield the pairs of images whose descriptions have a cosine above a limit, also after mirroring.

    Pairs of two flat images are left out. Above EXACT_IMAGES images a few pairs are missed; a pair may occur twice;
    and pairs may be left out that are in one group already.
    """
    if len(descriptions.even) <= EXACT_IMAGES:
        yield from _every_pair(descriptions, min_cosine)
    else:
        yield from _pairs_in_cells(descriptions, min_cosine, roots)


def pairs_of_colour(colours: NDArray[np.float32], max_difference: float, roots: Roots) -> Iterator[Pairs]:
    """Yield the pairs of colours that differ by less than a limit in each channel, unless they are in one group.

    Args:
        colours: (N, 3).
        max_difference: The limit, above 0.
        roots: Groups by now.
    """
    # Such colours are in the same or in neighbouring cubes with sides of this length.
    cubes: dict[tuple[int, ...], list[int]] = {}
    for i, cube in enumerate(np.floor(colours / max_difference).astype(int).tolist()):
        cubes.setdefault(tuple(cube), []).append(i)
    steps = [step for step in product((-1, 0, 1), repeat=3) if step >= (0, 0, 0)]
    for cube, members in cubes.items():
        for step in steps:
            others = cubes.get(tuple(a + b for a, b in zip(cube, step, strict=True)), [])
            for rows, columns in _blocks(np.array(members, np.intp), np.array(others, np.intp)):
                for part_rows, part_columns in _unjoined(rows, columns, roots):
                    differences = np.abs(colours[part_rows][:, None] - colours[part_columns]).max(axis=2)
                    yield _ordered(*_hits(differences < max_difference, part_rows, part_columns))


def _every_pair(descriptions: Descriptions, min_cosine: float) -> Iterator[Pairs]:
    count = len(descriptions.even)

    def compare(start: int) -> Pairs:
        parts = []
        for column_start in range(start, count, COLUMNS):
            cosines = descriptions.cosines(slice(start, start + ROWS), slice(column_start, column_start + COLUMNS))
            hits = np.flatnonzero(cosines > min_cosine)
            parts.append((hits // cosines.shape[1] + start, hits % cosines.shape[1] + column_start))
        first, second = _joined(parts)
        is_wanted = (first < second) & ~(descriptions.is_flat[first] & descriptions.is_flat[second])
        return first[is_wanted], second[is_wanted]

    with closing(parallel_map(range(0, count, ROWS), compare)) as blocks:
        yield from blocks


def _pairs_in_cells(descriptions: Descriptions, min_cosine: float, roots: Roots) -> Iterator[Pairs]:
    # Images of one colour have descriptions of zeros, which are like no other.
    described = np.flatnonzero(descriptions.even.any(axis=1) | descriptions.odd.any(axis=1))
    structured = np.flatnonzero(~descriptions.is_flat)
    if not len(structured):
        return
    centres = _choose_centres(descriptions, structured, min_cosine)
    cells = _cells(descriptions, described, centres)
    order = np.argsort(cells, kind="stable")
    members = described[order]
    starts = np.searchsorted(cells[order], np.arange(len(centres) + 1))

    def jobs() -> Iterator[Pairs]:
        # Flat images are found by others, and need no search of their own.
        for start in range(0, len(structured), QUERIES):
            visitors, bounds = _visitors(descriptions, structured[start : start + QUERIES], centres)
            for cell in range(len(centres)):
                inside = members[starts[cell] : starts[cell + 1]]
                yield from _blocks(visitors[bounds[cell] : bounds[cell + 1]], inside)

    def compare(job: Pairs) -> Pairs:
        parts = []
        for rows, columns in _unjoined(*job, roots):
            is_similar = descriptions.cosines(rows, columns) > min_cosine
            parts.append(_hits(is_similar, rows, columns))
        return _ordered(*_joined(parts))

    with closing(parallel_map(jobs(), compare)) as blocks:
        yield from blocks


def _choose_centres(descriptions: Descriptions, structured: NDArray[np.intp], min_cosine: float) -> NDArray[np.intp]:
    """Return random images that are not similar to each other, (K,)."""
    count = math.ceil(CENTRES_PER_ROOT * math.sqrt(len(descriptions.even)))
    drawn = np.random.default_rng(0).choice(structured, min(count, len(structured)), replace=False)
    is_new = np.ones(len(drawn), np.bool_)
    # An image with thousands of copies would be several centres, and each copy would search all their cells.
    for start in range(0, len(drawn), ROWS):
        rows = drawn[start : start + ROWS]
        is_copy = np.tril(descriptions.cosines(rows, drawn) > min_cosine, start - 1).any(axis=1)
        is_new[start : start + ROWS] = ~is_copy
    return drawn[is_new]


def _cells(descriptions: Descriptions, images: NDArray[np.intp], centres: NDArray[np.intp]) -> NDArray[np.int32]:
    """Return the number of the most similar centre of each image, (M,)."""
    even_centres = descriptions.even[centres].T
    odd_centres = descriptions.odd[centres].T

    def nearest(rows: NDArray[np.intp]) -> NDArray[np.int32]:
        cosines = descriptions.even[rows] @ even_centres
        cosines += descriptions.odd[rows] @ odd_centres
        return cosines.argmax(axis=1).astype(np.int32)

    with closing(parallel_map(_in_blocks(images, len(centres)), nearest)) as parts:
        return np.concatenate(list(parts))


def _visitors(
    descriptions: Descriptions, images: NDArray[np.intp], centres: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the images that search each cell, for themselves or for their mirror images.

    Returns:
        The images by cell, (V,), and the bounds of each cell in them, (number of centres + 1,).
    """
    even_centres = descriptions.even[centres].T
    odd_centres = descriptions.odd[centres].T

    def search(rows: NDArray[np.intp]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
        even_part = descriptions.even[rows] @ even_centres
        odd_part = descriptions.odd[rows] @ odd_centres
        is_near = np.zeros(even_part.shape, np.bool_)
        for cosines in (even_part + odd_part, even_part - odd_part):
            is_near |= cosines > cosines.max(axis=1, keepdims=True) - MARGIN
        hits = np.flatnonzero(is_near)
        return (hits % len(centres)).astype(np.int32), rows[hits // len(centres)]

    with closing(parallel_map(_in_blocks(images, len(centres)), search)) as blocks:
        parts = list(blocks)
    cells = np.concatenate([cells for cells, _ in parts])
    visitors = np.concatenate([rows for _, rows in parts])
    order = np.argsort(cells, kind="stable")
    return visitors[order], np.searchsorted(cells[order], np.arange(len(centres) + 1))


def _in_blocks(images: NDArray[np.intp], centre_count: int) -> Iterator[NDArray[np.intp]]:
    """Yield images in parts whose cosines with all centres fit in memory."""
    size = max(1, CENTRE_COSINES // centre_count)
    for start in range(0, len(images), size):
        yield images[start : start + size]


def _blocks(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Iterator[Pairs]:
    """Yield the rows and columns of blocks of a matrix."""
    for row in range(0, len(rows), CELL_ROWS):
        for column in range(0, len(columns), CELL_COLUMNS):
            yield rows[row : row + CELL_ROWS], columns[column : column + CELL_COLUMNS]


def _unjoined(rows: NDArray[np.intp], columns: NDArray[np.intp], roots: Roots) -> Iterator[Pairs]:
    """Yield the parts of a block outside of the largest group among its columns.

    Without it, thousands of copies of an image would be compared with each other.
    """
    column_roots = roots(columns)
    names, counts = np.unique(column_roots, return_counts=True)
    if counts.max() < MIN_SKIPPED:
        yield rows, columns
        return
    largest = names[counts.argmax()]
    is_member = roots(rows) == largest
    yield rows[~is_member], columns
    yield rows[is_member], columns[column_roots != largest]


def _hits(is_hit: NDArray[np.bool_], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Pairs:
    """Return the rows and columns at which a matrix is true."""
    row, column = np.nonzero(is_hit)
    return rows[row], columns[column]


def _ordered(first: NDArray[np.intp], second: NDArray[np.intp]) -> Pairs:
    """Return pairs of different images with the lower number first."""
    is_pair = first != second
    return np.minimum(first, second)[is_pair], np.maximum(first, second)[is_pair]


def _joined(pairs: list[Pairs]) -> Pairs:
    return np.concatenate([first for first, _ in pairs]), np.concatenate([second for _, second in pairs])
