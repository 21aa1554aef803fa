"""Map of moods: how many images have which valence and arousal, with an example image of each mood."""

import math
from collections import Counter
from dataclasses import dataclass

from uniemox.labels.rating_scale import HIGHEST_RATING, LOWEST_RATING, rating_of

# Side of the finest cell, in points of the scales from 1 to 9.
STEP = 0.25
MIDDLE = rating_of(0.5)
# Number of columns above which four cells become one.
MAX_COLUMNS = 16
# Number of rows and columns below which the words beside the axes would overlap.
MIN_CELLS = 7
# Number of images below which there is no map.
MIN_IMAGES = 12
Cell = tuple[int, int]
"""Column, counted from the lowest valence, and row, counted from the lowest arousal."""


@dataclass(frozen=True, slots=True)
class Example:
    """Example image of a cell."""

    path: str
    top: str
    """Most probable label."""
    distance: float
    """Distance from the centre of its cell, in points."""


@dataclass(frozen=True, slots=True)
class MapCell:
    """Cell of the drawn map."""

    column: int
    """From the left."""
    row: int
    """From the top."""
    valence: float
    """Lowest valence of the cell."""
    arousal: float
    """Lowest arousal of the cell."""
    images: int
    side: float
    """Side of the example image as a share of the cell's: larger for more images."""
    example: Example


@dataclass(frozen=True, slots=True)
class MoodMap:
    """Cells and numbers of a map that is ready to be drawn."""

    cells: list[MapCell]
    columns: int
    rows: int
    step: float
    """Side of a cell in points."""
    lowest: tuple[float, float]
    """Valence and arousal at the lower left corner."""
    quadrants: list[tuple[str, int]]
    """Number of images by quadrant of the scales."""


class Moods:
    """Counts images by valence and arousal; memory does not grow with the number of images."""

    def __init__(self) -> None:
        self.images = 0
        self._counts: Counter[Cell] = Counter()
        self._examples: dict[Cell, Example] = {}
        self._quadrants: Counter[tuple[bool, bool]] = Counter()

    def add(self, valence: float, arousal: float, path: str, top: str) -> None:
        """Count an image.

        Args:
            valence: 1 (negative) to 9 (positive).
            arousal: 1 (calm) to 9 (excited).
            path: Path of the image.
            top: Its most probable label.
        """
        cell = _cell_of(valence), _cell_of(arousal)
        distance = math.dist((valence, arousal), [LOWEST_RATING + (index + 0.5) * STEP for index in cell])
        self.images += 1
        self._counts[cell] += 1
        self._quadrants[valence >= MIDDLE, arousal >= MIDDLE] += 1
        if cell not in self._examples or distance < self._examples[cell].distance:
            self._examples[cell] = Example(path, top, distance)

    def map(self) -> MoodMap | None:
        """Return the map; None for fewer than 12 images."""
        if self.images < MIN_IMAGES:
            return None
        columns_used = [column for column, _ in self._counts]
        factor = 1
        if max(columns_used) - min(columns_used) >= MAX_COLUMNS:
            factor = 2
        counts: Counter[Cell] = Counter()
        examples: dict[Cell, Example] = {}
        # A larger cell shows the example of the part with the most images.
        for (column, row), count in self._counts.most_common():
            cell = column // factor, row // factor
            counts[cell] += count
            examples.setdefault(cell, self._examples[column, row])
        step = STEP * factor
        first_column, last_column = _ends([column for column, _ in counts], step)
        first_row, last_row = _ends([row for _, row in counts], step)
        most = max(counts.values())
        cells = [
            MapCell(
                column=column - first_column,
                row=last_row - row,
                valence=LOWEST_RATING + column * step,
                arousal=LOWEST_RATING + row * step,
                images=count,
                side=0.65 + 0.35 * math.sqrt(count / most),
                example=examples[column, row],
            )
            for (column, row), count in counts.items()
        ]
        return MoodMap(
            cells=cells,
            columns=last_column - first_column + 1,
            rows=last_row - first_row + 1,
            step=step,
            lowest=(LOWEST_RATING + first_column * step, LOWEST_RATING + first_row * step),
            quadrants=self._quadrant_counts(),
        )

    def _quadrant_counts(self) -> list[tuple[str, int]]:
        names = {
            (True, True): "positive and excited",
            (True, False): "positive and calm",
            (False, True): "negative and excited",
            (False, False): "negative and calm",
        }
        return [(name, self._quadrants[quadrant]) for quadrant, name in names.items()]


def _cell_of(value: float) -> int:
    """Return the index of the finest cell that contains a value; values outside of the scale are at its ends."""
    last = round((HIGHEST_RATING - LOWEST_RATING) / STEP) - 1
    return min(max(int((value - LOWEST_RATING) / STEP), 0), last)


def _ends(indices: list[int], step: float) -> tuple[int, int]:
    """Return the first and the last row or column of a map that shows all indices, at least MIN_CELLS apart.

    Args:
        indices: Indices of the cells with images.
        step: Side of a cell in points of the scale, on which the map ends.

    >>> _ends([3, 12], 0.25), _ends([16], 0.25), _ends([15], 0.5)
    ((3, 12), (13, 19), (9, 15))
    """
    count = round((HIGHEST_RATING - LOWEST_RATING) / step)
    first = min(indices)
    last = max(indices)
    missing = MIN_CELLS - (last - first + 1)
    if missing > 0:
        first = min(max(first - missing // 2, 0), count - MIN_CELLS)
        last = first + MIN_CELLS - 1
    return first, last
