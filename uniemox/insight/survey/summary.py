"""Numbers of a survey, from its lines in one pass; memory does not grow with the number of images."""

from bisect import insort
from collections import Counter
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import DataError
from uniemox.insight.features import unpack
from uniemox.insight.survey.gallery import GallerySample
from uniemox.insight.survey.groupings import (
    DATE,
    FOLDER,
    MAX_MONTHS,
    UNDATED,
    Answer,
    Grouping,
    below_common,
    why_alone,
)
from uniemox.insight.survey.moods import Moods
from uniemox.io.html import percent
from uniemox.io.typed import check_json
from uniemox.labels import AFFECT, AXES
from uniemox.plurals import counted
from uniemox.predict.schema import NO_LABEL, top_word
from uniemox.predict.tables import REMEDY, AnswerLine, checking_fields, read_lines, shares_of_answer, top_of
from uniemox.predict.writing import AnswerHeader

# Number of images on the page with the highest, and with the lowest, value of each label.
IMAGES_PER_LABEL = 6
# Number of labels that a summary names when it is printed.
NAMED_LABELS = 3
# Number of unfamiliar images on the page.
MAX_UNFAMILIAR = 12
# Share of images without colour above which the page warns that the means may be shifted.
MAX_COLOURLESS = 0.1
# Share of a group's images that are unfamiliar above which the page warns of comparing groups.
MAX_GUESSES = 0.2
# Instead of a number of unfamiliar images, for a model that can't tell.
NOT_CHECKED = "not checked"
# Cosine of features above which two images are nearly the same. Of 250 OASIS photographs no two reach it; mirrored,
# cropped and turned copies do.
ALIKE = 0.94
# Half the width of a 95 % interval in standard errors: of a normal distribution, and of Student's t with 1 to 8 degrees
# of freedom. Surveys need no scipy, which has the function.
NORMAL = 1.959964
STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060)


@dataclass(frozen=True, slots=True, eq=False)
class SurveyImage:
    """Image shown on the page."""

    path: str
    top: str
    value: float
    """Value that it is shown for."""
    features: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    """(D,), see `pack`; empty if unknown."""

    def is_like(self, other: "SurveyImage") -> bool:
        """Return True if two images are nearly the same, such as neighbouring frames or copies."""
        if len(self.features) != len(other.features):
            return False
        lengths = np.linalg.norm(self.features) * np.linalg.norm(other.features)
        return bool(self.features @ other.features > ALIKE * lengths)


class Tally:
    """Means over a group of images.

    Args:
        columns: Number of columns.

    Attributes:
        images: Number of images.
        unfamiliar: Number of those whose predictions are guesses.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.images = self.unfamiliar = 0
        self.sums = np.zeros(columns)
        self.squares = np.zeros(columns)

    def add(self, values: NDArray[np.float64], *, is_unfamiliar: bool) -> None:
        """Count an image.  values: (columns,)."""
        self.images += 1
        self.unfamiliar += is_unfamiliar
        self.sums += values
        self.squares += values**2

    def merge(self, other: "Tally") -> None:
        """Count another group's images too."""
        self.images += other.images
        self.unfamiliar += other.unfamiliar
        self.sums += other.sums
        self.squares += other.squares

    def remove(self, column: int) -> None:
        """Forget a column."""
        self.columns -= 1
        self.sums = np.delete(self.sums, column)
        self.squares = np.delete(self.squares, column)

    @property
    def means(self) -> NDArray[np.float64]:
        """Means, (columns,)."""
        return self.sums / max(self.images, 1)

    @property
    def margins(self) -> NDArray[np.float64]:
        """Half of each mean's 95 % interval by Student's t, (columns,); nan for fewer than two images."""
        if self.images < 2:
            return np.full(self.columns, np.nan)
        variance = np.maximum(self.squares - self.images * self.means**2, 0) / (self.images - 1)
        return np.asarray(half_width(self.images - 1) * np.sqrt(variance / self.images))


def half_width(degrees_of_freedom: int) -> float:
    """Return half the width of the 95 % interval of a mean, in standard errors.

    >>> round(half_width(1), 2), round(half_width(1000), 2)
    (12.71, 1.96)
    """
    if degrees_of_freedom <= len(STUDENT):
        return STUDENT[degrees_of_freedom - 1]
    # The first terms of the expansion for many degrees of freedom (Abramowitz and Stegun, 26.7.5).
    first = (NORMAL**3 + NORMAL) / 4
    second = (5 * NORMAL**5 + 16 * NORMAL**3 + 3 * NORMAL) / 96
    return NORMAL + first / degrees_of_freedom + second / degrees_of_freedom**2


def _keep_lowest(images: list[SurveyImage], image: SurveyImage, size: int, key: Callable[[SurveyImage], float]) -> None:
    """Insert an image into those with the lowest keys, which are in order.

    Of equal keys the first image stays, of nearly identical images the one with the lower key.

    Args:
        images: Images with the lowest keys so far, changed in place.
        image: Further image.
        size: Maximum number of images.
        key: Function from an image to the value by which it is sorted.
    """
    if len(images) == size and key(image) >= key(images[-1]):
        return
    alike = next((other for other in images if other.is_like(image)), None)
    if alike is not None:
        if key(image) >= key(alike):
            return
        images.remove(alike)
    insort(images, image, key=key)
    del images[size:]


class Summary:
    """Numbers of a survey. `add` counts predictions; `forget_unused_none` and `shorten` come after the last one.

    Args:
        first: A prediction in JSON form, from which the labels are read.
        groupings: Groupings by name, see `groupings_of`.
        unflagged_note: Sentence about the model of `uniemox.predict.confidence.unflagged_note`.

    Attributes:
        columns: Labels, `none` if they were requested, and valence and arousal if the model also predicts them.
        whole: Number of images, and means of the columns over all of them.
        groups: The same by grouping (folder, date or a column), then by group.
        people: Number of images by number of people.
        failures: Number of unreadable images.
    """

    def __init__(self, first: Answer, groupings: Mapping[str, Grouping], unflagged_note: str | None = None) -> None:
        self.answered = AnswerHeader.of(check_json(first, AnswerLine, "the first line", remedy=REMEDY))
        self.kind: str = first["kind"]
        labels = tuple(shares_of_answer(first))
        self.columns = (*labels, *(name for name in AFFECT if name not in labels and first.get(name)))
        self.whole = Tally(len(self.columns))
        self.groups: dict[str, dict[str, Tally]] = {name: {} for name in groupings}
        self.people: Counter[int] = Counter()
        self.shown: Counter[str] = Counter()
        """Number of faces by most probable word; "" for faces that are too small to tell."""
        self.gallery = GallerySample(self.answered.labels)
        self.moods = Moods()
        self.colourless = 0
        """Number of images without colour."""
        self.failures = 0
        self.unflagged_note = unflagged_note
        """Sentence about a model that flags no unfamiliar images, or only blank ones; None for other models."""
        self._groupings = groupings
        # Number of features, the same for every image; 0 before the first one.
        self._width = 0
        self.most: dict[str, list[SurveyImage]] = {label: [] for label in labels}
        """Images with the highest value of each label, highest first."""
        self.least: dict[str, list[SurveyImage]] = {label: [] for label in labels}
        """Images with the lowest value of each label, lowest first."""
        self.unfamiliar: list[SurveyImage] = []
        """Images that the model flags as unfamiliar, least familiar first."""

    def __repr__(self) -> str:
        means = list(zip(self.columns, self.whole.means.tolist(), strict=True))
        highest_first = sorted(means, key=lambda pair: -pair[1])
        shares = [f"{label} {mean:.0%}" for label, mean in highest_first if label not in AXES][:NAMED_LABELS]
        axes = [f"{axis} {mean:.1f}" for axis, mean in means if axis in AXES]
        unfamiliar = f"{self.whole.unfamiliar:,} unfamiliar"
        if self.unflagged_note is not None:
            unfamiliar = f"unfamiliar {self.unfamiliar_text(self.whole)}"
        images = f"{counted(self.whole.images, 'image')}, {self.failures:,} unreadable"
        return f"<Summary of {images}: {', '.join([*shares, *axes, unfamiliar])}>"

    def add(self, value: Answer) -> None:
        """Count an answer in JSON form."""
        path = value["path"]
        top = str(top_of(value)[0])
        shares = shares_of_answer(value)
        is_unfamiliar = bool(value.get("is_unfamiliar"))
        numbers = np.array([shares.get(name, value.get(name)) for name in self.columns], np.float64)
        groups = [self.groups[name].setdefault(of(value), Tally(len(numbers))) for name, of in self._groupings.items()]
        for tally in (self.whole, *groups):
            tally.add(numbers, is_unfamiliar=is_unfamiliar)
        self.colourless += bool(value.get("is_colourless"))
        if value.get("persons") is not None:
            self.people[len(value["persons"])] += 1
        for face in value.get("faces") or ():
            self.shown[top_word(face["expressions"]) if face["expressions"] else ""] += 1
        features = np.empty(0, np.float32)
        if value.get("features"):
            features = unpack(value["features"]).astype(np.float32)
            self._width = self._width or len(features)
            if len(features) != self._width:
                raise ValueError(f"expected {self._width} features")
        for label, share in shares.items():
            image = SurveyImage(path, top, share, features)
            _keep_lowest(self.most[label], image, IMAGES_PER_LABEL, lambda image: -image.value)
            _keep_lowest(self.least[label], image, IMAGES_PER_LABEL, lambda image: image.value)
        if is_unfamiliar:
            image = SurveyImage(path, top, float(value["familiarity"]), features)
            _keep_lowest(self.unfamiliar, image, MAX_UNFAMILIAR, lambda image: image.value)
        mood = [float(numbers[self.columns.index(name)]) for name in AFFECT if name in self.columns]
        if len(mood) == len(AFFECT) and np.isfinite(mood).all():
            self.moods.add(mood[0], mood[1], path, top)
        self.gallery.add(value)

    def unfamiliar_text(self, tally: Tally) -> str:
        """Return the share of unfamiliar images in a group; of a model that can't tell, the number of blank ones."""
        if self.unflagged_note is None:
            return percent(tally.unfamiliar / tally.images)
        if tally.unfamiliar == 0:
            return NOT_CHECKED
        return f"{NOT_CHECKED} ({tally.unfamiliar:,} blank)"

    @property
    def has_none(self) -> bool:
        """True if requested labels are shown, so that a part of the answers may be `none` of them."""
        return NO_LABEL in self.columns

    @property
    def colourless_share(self) -> float:
        """Share of the images without colour, 0 to 1."""
        return self.colourless / self.whole.images

    @property
    def notes_on_groups(self) -> list[str]:
        """Clauses about groupings that have one group, so that nothing can be compared."""
        # Nobody expects one image to be compared.
        if self.whole.images == 1:
            return []
        return [
            f"not compared by {name}: {why_alone(name, next(iter(tallies)))}"
            for name, tallies in self.groups.items()
            if len(tallies) == 1
        ]

    @property
    def has_group_of_guesses(self) -> bool:
        """True if the predictions of one of several groups are guesses for many of its images."""
        if self.unflagged_note is not None:
            return False
        compared = [tally for tallies in self.groups.values() if len(tallies) > 1 for tally in tallies.values()]
        return any(tally.unfamiliar > MAX_GUESSES * tally.images for tally in compared)

    @property
    def is_often_colourless(self) -> bool:
        """True if the number of images without colour may shift the means noticeably."""
        return self.colourless_share > MAX_COLOURLESS

    def forget_unused_none(self) -> None:
        """Remove the column `none` if every label of the model has a counterpart among the requested ones."""
        if not self.has_none or self.whole.means[self.columns.index(NO_LABEL)] > 0:
            return
        column = self.columns.index(NO_LABEL)
        for tally in (self.whole, *(tally for tallies in self.groups.values() for tally in tallies.values())):
            tally.remove(column)
        self.columns = tuple(label for label in self.columns if label != NO_LABEL)
        del self.most[NO_LABEL]
        del self.least[NO_LABEL]

    def shorten(self) -> None:
        """Shorten folder names to the part below their common folder, see `below_common`; group many months by year."""
        for name, tallies in self.groups.items():
            names = {key: key for key in sorted(tallies)}
            if name == FOLDER:
                names = below_common(names)
            elif name == DATE and len(tallies) > MAX_MONTHS:
                names = {month: month if month == UNDATED else month[:4] for month in names}
            self.groups[name] = {}
            for key, shorter in names.items():
                self.groups[name].setdefault(shorter, Tally(len(self.columns))).merge(tallies[key])


def summarise(
    lines: Path, groupings: Mapping[str, Grouping], requested: Container[str], unflagged_note: str | None = None
) -> Summary:
    """Return the numbers of a survey.

    Args:
        lines: The survey's file of predictions.
        groupings: Groupings by name, see `groupings_of`.
        requested: Paths of the images; lines about other images are passed over.
        unflagged_note: See `Summary`.

    Raises:
        DataError: If no image could be read, or for a line that is no prediction.
    """
    summary: Summary | None = None
    failures = 0
    for value in read_lines(lines):
        if value.get("path") not in requested:
            continue
        if "scene" not in value:
            failures += 1
            # The table's row of an unreadable image has matched an image, too.
            for grouping in groupings.values():
                grouping(value)
            continue
        with checking_fields(lines):
            summary = summary or Summary(value, groupings, unflagged_note)
            summary.add(value)
    if summary is None:
        raise DataError(f"no image could be read ({failures:,} tried); {lines} has the reasons")
    summary.failures = failures
    summary.forget_unused_none()
    summary.shorten()
    return summary
