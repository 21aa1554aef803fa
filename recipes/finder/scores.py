"""How well people are found in images whose people are known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from uniemox.errors import DataError
from uniemox.io.files import read_limited
from uniemox.io.images import decode
from uniemox.persons.box import Box, Detection, overlap

MIN_OVERLAP = 0.5
LARGE = 0.02  # of the image's area


@dataclass(frozen=True, slots=True)
class Known:
    """The people of an image. Who is only perhaps there is neither missed nor found."""

    width_px: int
    height_px: int
    people: tuple[Detection, ...]
    perhaps: tuple[Detection, ...] = ()


@dataclass(frozen=True, slots=True)
class FinderScores:
    """Counts over images, at an overlap of 0.5, one box to one person."""

    people: int
    found: int
    large: int
    """People over 2 % of their image."""
    large_found: int
    boxes: int

    @property
    def recall(self) -> float:
        """Share of the people who were found."""
        return self.found / max(self.people, 1)

    @property
    def large_recall(self) -> float:
        """Share of those over 2 % of their image."""
        return self.large_found / max(self.large, 1)

    @property
    def precision(self) -> float:
        """Share of the boxes that are a person."""
        return self.found / max(self.boxes, 1)

    @property
    def f_half(self) -> float:
        """Weighted harmonic mean in which precision counts twice as much as recall: F0.5."""
        return 1.25 * self.found / max(0.25 * self.people + self.boxes, 1)


def read_labelled(folder: Path, limit: int | None = None) -> list[tuple[Image.Image, Known]]:
    """Photographs and their people, in order of their names.

    sides, class 0 a person.

    Args:
        folder: images/ and labels/, in it for each image a file of lines `class cx cy w h`, shares of the image's.
        limit: The first so many; None for all.

    Raises:
        DataError: If an image has no such file or a line is not of that form.
    """
    samples = []
    for path in sorted((folder / "images").iterdir())[:limit]:
        image = decode(read_limited(path), str(path))[0]
        people = []
        labels = folder / "labels" / f"{path.stem}.txt"
        try:
            lines = [[float(word) for word in line.split()] for line in read_limited(labels).decode().splitlines()]
            for label, cx, cy, w, h in lines:
                x1, y1 = (cx - w / 2) * image.width, (cy - h / 2) * image.height
                if label == 0:
                    people.append(Detection(Box(x1, y1, x1 + w * image.width, y1 + h * image.height), 1.0))
        except (OSError, ValueError) as error:
            raise DataError(f"{labels}: expected lines `class cx cy w h`, one a box; {error}") from None
        samples.append((image, Known(image.width, image.height, tuple(people))))
    return samples


def score(known: Sequence[Known], detections: Sequence[Sequence[Detection]]) -> FinderScores:
    """Scores of boxes, most confident first, image by image."""
    rows = np.zeros(5, dtype=int)
    for one, found in zip(known, detections, strict=True):
        large = {i for i, person in enumerate(one.people) if person.box.area > LARGE * one.width_px * one.height_px}
        hits, spare = _match(one.people, found)
        wrong = len(spare) - len(_match(one.perhaps, spare)[0])
        rows += (len(one.people), len(hits), len(large), len(hits & large), len(hits) + wrong)
    return FinderScores(*(int(count) for count in rows))


def best_threshold(known: Sequence[Known], detections: Sequence[Sequence[Detection]]) -> tuple[float, FinderScores]:
    """The least confidence with the best F0.5, a multiple of 0.01, and the scores with it.

    A box without a person does more harm than a person who is missed.
    """
    best = 0.0
    best_scores = None
    for threshold in np.arange(1, 100) / 100:
        scores = score(known, [[one for one in found if one.confidence >= threshold] for found in detections])
        if best_scores is None or scores.f_half > best_scores.f_half:
            best = float(threshold)
            best_scores = scores
    assert best_scores is not None
    return best, best_scores


def _match(people: Sequence[Detection], found: Sequence[Detection]) -> tuple[set[int], list[Detection]]:
    """Which people were found, and the boxes that are none of them: each takes the free one that it overlaps most."""
    hits: set[int] = set()
    if not people or not found:
        return hits, list(found)
    table = overlap(np.array([one.box for one in found]), np.array([one.box for one in people]))
    spare = []
    for detection, row in zip(found, table, strict=True):
        best = max((i for i in range(len(people)) if i not in hits), key=lambda i: row[i], default=None)
        if best is not None and row[best] >= MIN_OVERLAP:
            hits.add(best)
        else:
            spare.append(detection)
    return hits, spare
