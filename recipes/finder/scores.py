"""Scores of person finders on images whose people are known."""

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
# A person is large if its box covers more than this share of the image.
LARGE = 0.02


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """Size and people of an image."""

    width_px: int
    height_px: int
    people: tuple[Detection, ...]
    uncertain: tuple[Detection, ...] = ()
    """People with unsure labels, who count as neither missed nor found."""


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


def read_labelled(folder: Path, limit: int | None = None) -> list[tuple[Image.Image, LabelledImage]]:
    """Read photographs and their people, in order of their names.

    Args:
        folder: Folder with images/ and labels/. labels/ has a file for each image, with lines `class cx cy w h` in
            shares of the image's sides; class 0 is a person.
        limit: Maximum number of images; None: all.

    Raises:
        DataError: If an image has no such file, or a line has another form.
    """
    samples = []
    for path in sorted((folder / "images").iterdir())[:limit]:
        image = decode(read_limited(path), str(path))[0]
        people = []
        labels = folder / "labels" / f"{path.stem}.txt"
        try:
            lines = [[float(word) for word in line.split()] for line in read_limited(labels).decode().splitlines()]
            for label, center_x, center_y, box_width, box_height in lines:
                x1, y1 = (center_x - box_width / 2) * image.width, (center_y - box_height / 2) * image.height
                if label == 0:
                    people.append(
                        Detection(Box(x1, y1, x1 + box_width * image.width, y1 + box_height * image.height), 1.0)
                    )
        except (OSError, ValueError) as error:
            raise DataError(f"{labels}: expected lines `class cx cy w h`, one a box; {error}") from None
        samples.append((image, LabelledImage(image.width, image.height, tuple(people))))
    return samples


def score(labelled: Sequence[LabelledImage], detections: Sequence[Sequence[Detection]]) -> FinderScores:
    """Score the boxes of each image, most confident first."""
    rows = np.zeros(5, dtype=int)
    for image, boxes in zip(labelled, detections, strict=True):
        large = {
            i for i, person in enumerate(image.people) if person.box.area > LARGE * image.width_px * image.height_px
        }
        hits, spare = _match(image.people, boxes)
        # A box on an uncertain person is neither right nor wrong.
        wrong_count = len(spare) - len(_match(image.uncertain, spare)[0])
        rows += (len(image.people), len(hits), len(large), len(hits & large), len(hits) + wrong_count)
    return FinderScores(*(int(count) for count in rows))


def best_threshold(
    labelled: Sequence[LabelledImage], detections: Sequence[Sequence[Detection]]
) -> tuple[float, FinderScores]:
    """Return the minimum confidence with the best F0.5, a multiple of 0.01, and the scores with it.

    A box without a person does more harm than a person who is missed.
    """
    best = 0.0
    best_scores = None
    for threshold in np.arange(1, 100) / 100:
        scores = score(labelled, [[box for box in boxes if box.confidence >= threshold] for boxes in detections])
        if best_scores is None or scores.f_half > best_scores.f_half:
            best = float(threshold)
            best_scores = scores
    assert best_scores is not None
    return best, best_scores


def _match(people: Sequence[Detection], boxes: Sequence[Detection]) -> tuple[set[int], list[Detection]]:
    """Match boxes to people: each box takes the unmatched person that it overlaps most.

    Returns:
        Indices of the people that were found, and the boxes without a person.
    """
    hits: set[int] = set()
    if not people or not boxes:
        return hits, list(boxes)
    table = overlap(np.array([box.box for box in boxes]), np.array([box.box for box in people]))
    spare = []
    for detection, row in zip(boxes, table, strict=True):
        best = max((i for i in range(len(people)) if i not in hits), key=lambda i: row[i], default=None)
        if best is not None and row[best] >= MIN_OVERLAP:
            hits.add(best)
        else:
            spare.append(detection)
    return hits, spare
