"""A person of EMOTIC, as the published annotations and their conversions to tables have it, and its sample."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uniemox.data.readers.rows import on_nine_points
from uniemox.data.sample import ImageFile, Sample
from uniemox.errors import LabelError
from uniemox.labels import EMOTIC
from uniemox.persons.box import Box

SPLITS = ("train", "val", "test")
RATINGS = ("valence", "arousal", "dominance")
# The scale of the annotators.
LOW = 1
HIGH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedPerson:
    """Values of one person in a file of annotations, not yet checked."""

    split: str
    image: str
    """Folder and name of the image."""
    where: str
    """File, and number of the row."""
    corners: Sequence[float]
    """x1, y1, x2, y2 of the box, which count pixels from 1 and include the last, as MATLAB does."""
    box_field: str
    categories: Sequence[str]
    """Categories that any annotator chose."""
    categories_field: str
    ratings: Mapping[str, Sequence[float]]
    """Ratings of the annotators by axis, 1 to 10; nan or nothing where somebody did not rate."""
    ratings_field: str


class UnusablePersonError(Exception):
    """Raised for a person whose annotations can't be used: nobody can correct a row of the published file.

    Args:
        reason: Ending of a sentence that begins with "people".
        where: Row and field.
    """

    def __init__(self, reason: str, where: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.where = where


@dataclass(slots=True)
class Omissions:
    """Locations of the persons or ratings that are left out, by reason."""

    locations: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        """Record a person.

        Args:
            reason: Ending of a sentence that begins with "people".
            where: Row and field.
        """
        self.locations.setdefault(reason, []).append(where)

    def notes(self) -> tuple[str, ...]:
        """Return a line for each reason, with the number and the first location."""
        return tuple(
            f"people {reason}: {len(locations)}, such as {locations[0]}" for reason, locations in self.locations.items()
        )


def sample_of_person(person: AnnotatedPerson, path: Path, omissions: Omissions) -> Sample:
    """Return the sample of a person; missing categories and ratings are recorded.

    Raises:
        UnusablePersonError: For a person who is left out.
    """
    box = _box(person.corners, f"{person.where}, {person.box_field}")
    categories = _categories(person)
    valence, arousal, dominance = _ratings(person)
    has_ratings = None not in (valence, arousal, dominance)
    if not categories and not has_ratings:
        raise UnusablePersonError("left out because they have no category and no complete rating", person.where)
    if not categories:
        omissions.add("without a category", person.where)
    if not has_ratings:
        omissions.add("without a complete rating", person.where)
    return Sample(
        key=person.image,
        image=ImageFile(path),
        categories=categories or None,
        valence=valence if has_ratings else None,
        arousal=arousal if has_ratings else None,
        dominance=dominance if has_ratings else None,
        split=person.split,
        target_box=box,
        domain=person.image.partition("/")[0],
    )


def _box(corners: Sequence[float], where: str) -> Box:
    """Return a box from x1, y1, x2, y2, which count pixels from 1 and include the last.

    Raises:
        UnusablePersonError: If there are not four finite numbers, or if the box is empty.
    """
    if len(corners) != 4 or not all(map(math.isfinite, corners)):
        raise UnusablePersonError("left out because their box is not four numbers", where)
    x1, y1, x2, y2 = corners
    # As in the authors' code.
    box = Box(max(x1, 1) - 1, max(y1, 1) - 1, x2, y2)
    if box.area < 1:
        raise UnusablePersonError("left out because their box is empty", where)
    return box


def _categories(person: AnnotatedPerson) -> tuple[int, ...]:
    """Return the categories of a person, each once and in order; () without any.

    Raises:
        UnusablePersonError: For a word that is no category.
    """
    try:
        return tuple(sorted({EMOTIC.index(word) for word in person.categories}))
    except LabelError:
        reason = f"left out because a category is none of the {len(EMOTIC)}"
        location = f"{person.where}, {person.categories_field} {', '.join(person.categories)!a}"
        raise UnusablePersonError(reason, location) from None


def _ratings(person: AnnotatedPerson) -> tuple[float | None, ...]:
    """Return valence, arousal and dominance of a person, 1 to 9: the mean of the annotators; None where nobody rated.

    Raises:
        UnusablePersonError: For a rating that is out of range.
    """
    means: list[float | None] = []
    for axis in RATINGS:
        known = [value for value in person.ratings[axis] if not math.isnan(value)]
        wrong = next((value for value in known if not LOW <= value <= HIGH), None)
        if wrong is not None:
            reason = f"left out because a rating is not from {LOW} to {HIGH}"
            raise UnusablePersonError(reason, f"{person.where}, {person.ratings_field}.{axis} {wrong:g}")
        means.append(on_nine_points(sum(known) / len(known), LOW, HIGH) if known else None)
    return tuple(means)
