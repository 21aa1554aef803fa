"""Gallery of a survey: a random selection of its images, with the values that the page filters and sorts by."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from random import Random
from typing import Any

from uniemox.io.files import write_rows
from uniemox.labels import AFFECT
from uniemox.predict.tables import as_cells, as_utf8, headings, shares_of_answer

# A page with this number of images has about 10 MB, and opens in less than two seconds.
MAX_IMAGES = 1000
# Columns of the downloaded list that a survey never fills, or that have the same value in every row.
_LEFT_OUT = ("error", "kind", "label_set", "model")


@dataclass(frozen=True, slots=True)
class GalleryImage:
    """Image of the gallery."""

    number: int
    """Position in the survey, from 0."""
    path: str
    top: str
    """Most probable label; `none` if no requested label fits."""
    top_value: float
    """Its probability."""
    values: dict[str, float]
    """Share of each label, see `shares_of_answer`; valence, arousal and familiarity as far as they were predicted."""
    cells: list[Any]
    """Cells of the downloaded list, under `GallerySample.columns`."""
    taken: str | None
    """Date of the photograph, YYYY-MM-DD."""
    people: int | None
    """Number of people; None: no detector was run."""
    is_unfamiliar: bool

    @property
    def for_script(self) -> dict[str, Any]:
        """Values that the page's script filters and sorts by."""
        return {
            "path": as_utf8(self.path),
            "top": self.top,
            "values": {name: round(value, 4) for name, value in self.values.items()},
            "taken": self.taken,
            "people": self.people,
            "unfamiliar": self.is_unfamiliar,
        }


class GallerySample:
    """Random selection of a survey's images: each image is equally likely to be in it.

    Args:
        labels: Labels of the predictions.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.columns = (*headings(tuple(labels), of_film=False), "taken")
        """Names of the cells of each image."""
        self.total = 0
        """Number of images from which the selection was drawn."""
        self._labels = tuple(labels)
        self._images: list[GalleryImage] = []
        self._random = Random(0)

    def add(self, answer: Mapping[str, Any]) -> None:
        """Offer an image to the selection.  answer: its prediction in JSON form, with the date `taken`."""
        # Vitter's algorithm R.
        is_full = len(self._images) >= MAX_IMAGES
        position = self._random.randrange(self.total + 1) if is_full else len(self._images)
        if position < MAX_IMAGES:
            self._images[position : position + 1] = [self._image_of(answer)]
        self.total += 1

    def _image_of(self, answer: Mapping[str, Any]) -> GalleryImage:
        cells = [*next(iter(as_cells([dict(answer)], self._labels, of_film=False))), answer.get("taken")]
        row = dict(zip(self.columns, cells, strict=True))
        values = {label: float(value) for label, value in shares_of_answer(answer).items()}
        for name in (*AFFECT, "familiarity"):
            if name not in values and answer.get(name) is not None:
                values[name] = float(answer[name])
        people = None
        if answer.get("persons") is not None:
            people = len(answer["persons"])
        top = str(row["top"])
        return GalleryImage(
            number=self.total,
            path=answer["path"],
            top=top,
            # On the scale of the other values: `row` divides the probabilities of requested labels by their sum.
            top_value=values[top],
            values=values,
            cells=cells,
            taken=answer.get("taken"),
            people=people,
            is_unfamiliar=bool(answer.get("is_unfamiliar")),
        )

    @property
    def images(self) -> list[GalleryImage]:
        """The selection, in the order of the survey."""
        return sorted(self._images, key=lambda image: image.number)


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a CSV table with their ends, its header first; columns without a value are left out.

    Args:
        columns: Names of the columns.
        rows: Cells of each row.
    """
    rows = list(rows)
    has_value = [
        name not in _LEFT_OUT and any(row[index] not in (None, "") for row in rows)
        for index, name in enumerate(columns)
    ]
    lines = []
    for row in chain([columns], rows):
        text = io.StringIO(newline="")
        write_rows(text, [list(compress(row, has_value))], line_end="\r\n")
        lines.append(as_utf8(text.getvalue()))
    return lines


def csv_url(lines: Iterable[str]) -> str:
    """Return a data URL of a CSV table."""
    data = "".join(lines).encode("utf-8")
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(data).decode()}"
