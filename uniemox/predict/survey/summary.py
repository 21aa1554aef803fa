"""From the lines of a survey to its numbers: one pass, in memory that does not grow with the images."""

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import DataError
from uniemox.labels import AFFECT
from uniemox.predict.survey.lines import unpack
from uniemox.predict.survey.tallies import Grouping, Tally, shorten
from uniemox.predict.tables import read_lines
from uniemox.predict.writing import AnswerHeader

SHOWN = 6  # images with the most, and with the least, of each label
MAX_UNFAMILIAR = 12  # shown
MAX_ON_MAP = 600


@dataclass(frozen=True, slots=True)
class Place:
    """An image that is shown."""

    path: str
    top: str
    value: float
    """Of what it is shown for."""


@dataclass(frozen=True, slots=True)
class OnMap:
    """An image that may be on the map."""

    path: str
    top: str
    features: NDArray[np.float32]


@dataclass(slots=True)
class Summary:
    """What a survey found."""

    answered: AnswerHeader
    kind: str
    columns: tuple[str, ...]
    """The labels, and valence and arousal where the model tells them beside."""
    whole: Tally
    groups: dict[str, dict[str, Tally]]
    """By what is grouped (folder, date, a column), then by its value."""
    most: dict[str, list[Place]]
    """By label, highest first."""
    least: dict[str, list[Place]]
    unfamiliar: list[Place]
    """Least familiar first, the model's flagged ones only."""
    people: Counter[int]
    """Images by the number of people in them."""
    shown: Counter[str]
    """Faces by the word that is most probable for them; "" for those too small to tell."""
    on_map: list[OnMap]
    failures: int


def summarise(lines: Path, groupings: Mapping[str, Grouping]) -> Summary:
    """Read a survey's lines.  groupings: by name, what says to which group an answer belongs; see `groupings_of`.

    Raises DataError if no image could be read.
    """
    found: Summary | None = None
    failures = 0
    draw, extremes = Random(0), _Extremes()
    for value in read_lines(lines):
        if "scene" not in value:
            failures += 1
            continue
        found = found or _empty(value, groupings)
        _count(found, value, groupings)
        extremes.add(value)
        _draw_for_map(found, value, draw)
    if found is None:
        raise DataError(f"{lines}: none of its {failures} images could be read")
    found.failures = failures
    found.most = {label: highest.sorted() for label, highest in extremes.most.items()}
    found.least = {label: highest.sorted() for label, highest in extremes.least.items()}
    found.unfamiliar = extremes.unfamiliar.sorted()
    shorten(found.groups)
    return found


def _empty(value: Mapping[str, Any], groupings: Mapping[str, Grouping]) -> Summary:
    answered = AnswerHeader.of(dict(value))
    columns = (*answered.labels, *(name for name in AFFECT if name not in answered.labels and value.get(name)))
    groups: dict[str, dict[str, Tally]] = {name: {} for name in groupings}
    whole = Tally(len(columns))
    return Summary(answered, value["kind"], columns, whole, groups, {}, {}, [], Counter(), Counter(), [], 0)


def _count(found: Summary, value: Mapping[str, Any], groupings: Mapping[str, Grouping]) -> None:
    numbers = np.array([value["scene"].get(name, value.get(name)) for name in found.columns], np.float64)
    own = [found.groups[name].setdefault(of(value), Tally(len(found.columns))) for name, of in groupings.items()]
    for tally in (found.whole, *own):
        tally.add(numbers, is_unfamiliar=bool(value.get("is_unfamiliar")))
    if value.get("persons") is not None:
        found.people[len(value["persons"])] += 1
    for face in value.get("faces") or ():
        words = face["expressions"]
        found.shown[max(words, key=words.get) if words else ""] += 1


def _draw_for_map(found: Summary, value: Mapping[str, Any], draw: Random) -> None:
    """Every image is as likely on the map as any other (Vitter's algorithm R)."""
    if not value.get("features"):
        return
    place = len(found.on_map) if len(found.on_map) < MAX_ON_MAP else draw.randrange(found.whole.images)
    if place >= MAX_ON_MAP:
        return
    one = OnMap(value["path"], _top(value), unpack(value["features"]))
    found.on_map[place : place + 1] = [one]


def _top(value: Mapping[str, Any]) -> str:
    return str(max(value["scene"], key=value["scene"].get))


class _Extremes:
    """The images with the most and the least of each label, and the least familiar ones."""

    def __init__(self) -> None:
        self.most: dict[str, _Highest] = {}
        self.least: dict[str, _Highest] = {}
        self.unfamiliar = _Highest(MAX_UNFAMILIAR)

    def add(self, value: Mapping[str, Any]) -> None:
        """Look at an answer."""
        for label, share in value["scene"].items():
            place = Place(value["path"], _top(value), share)
            self.most.setdefault(label, _Highest(SHOWN)).add(share, place)
            self.least.setdefault(label, _Highest(SHOWN)).add(-share, place)
        if value.get("is_unfamiliar"):
            familiarity = value["familiarity"]
            self.unfamiliar.add(-familiarity, Place(value["path"], _top(value), familiarity))


class _Highest:
    """The places of the highest ranks; of equal ones the first that came."""

    def __init__(self, size: int) -> None:
        self.size, self.seen = size, 0
        self.heap: list[tuple[float, int, Place]] = []

    def add(self, rank: float, place: Place) -> None:
        """Another one."""
        self.seen += 1
        push = heapq.heappush if len(self.heap) < self.size else heapq.heappushpop
        push(self.heap, (rank, -self.seen, place))

    def sorted(self) -> list[Place]:
        """Highest first."""
        return [place for _, _, place in sorted(self.heap, reverse=True)]
