"""How far a project is, step by step: what the status shows and from which the next step follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from uniemox_curate.saved_results import SavedSplit

# Names in JSON of fields whose name there is not their own with blanks for underscores.
JSON_NAMES = {"different_images": "different pictures", "images": "pictures"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Addresses of images that the sources offered, and what became of them."""

    offered: int
    fetched: int
    failed: int
    waiting: int
    taken_down: int
    different_images: int
    """Number of different images, those that were taken down included."""
    sources: Mapping[str, int]
    """Number of addresses by source."""
    waits_for_folder: bool
    """True if images of a folder wait to be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """Images that the screen looked at."""

    looked_at: int
    to_look_at: int
    kept: int
    taken_down: int
    dropped: Mapping[str, int]
    """Number of dropped images by reason, the most frequent first."""
    styles: Mapping[str, int]
    """Number of images by style, the most frequent first."""

    @property
    def undecided(self) -> int:
        """Number of images that are neither kept nor dropped: decisions of a screen were undone."""
        return self.looked_at - self.kept - sum(self.dropped.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """Answers of the annotators."""

    answered_twice: int
    """Number of images with answers of two annotators or more."""
    answered_or_skipped: int
    """Number of images that two annotators or more answered or skipped."""
    to_answer: int
    annotators: int
    annotators_who_count: int
    """Number of annotators who are not left out."""
    checks: str
    """A clause about attention checks that were missed, or that did not come; empty if there is nothing to say."""

    @property
    def waiting(self) -> int:
        """Number of images that need further answers."""
        return self.to_answer - self.answered_or_skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementFigures:
    """The last computed agreement in short."""

    images: int
    """Number of images with two answers or more."""
    percent: Mapping[str, float | None]
    """Share of equal answers: value, low and high."""
    alpha: Mapping[str, float | None]
    """Krippendorff's α: value, low and high."""
    later_answers: int
    """Number of answers that came later."""
    later_steps: int
    """Number of later batches of decisions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """Images by the rule that is in use, and the last computed agreement."""

    rule: str
    kept: int
    disputed: int
    """Number of images without agreement on which the owner has not decided."""
    change: str
    """A clause about what changed since the agreement was computed; empty if nothing did."""
    figures: AgreementFigures | None
    """None: the agreement was never computed."""
    judged: int
    """Number of images on which the owner has decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitDrawn:
    """The last drawn split."""

    saved: SavedSplit
    stored: Mapping[str, Any]
    """The same as the project stores it, for JSON."""
    change: str
    """A clause about other images that the rule keeps now; empty if there are none."""
    taken_down: int
    """Number of its images that were taken down since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRelease:
    """One release in a folder."""

    folder: str
    images: int
    at: float
    """Time, seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """All releases, the newest one last."""

    releases: Sequence[WrittenRelease] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the newest release; older versions had fewer."""
    change: str = ""
    """A clause about what changed since the newest release; empty if nothing did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far each step of a project is."""

    collect: Collected
    screen: Screened
    annotate: Annotated
    agree: Agreed
    split: SplitDrawn | None
    """None: no split was drawn."""
    release: Released

    def to_json(self) -> dict[str, Any]:
        """Return the steps as JSON."""
        agree = _named(self.agree)
        if self.agree.figures is None:
            del agree["figures"]
        else:
            agree["figures"] = _named(self.agree.figures)
        split: dict[str, Any] = {}
        if self.split is not None:
            split = {**self.split.stored, "change": self.split.change, "taken down": self.split.taken_down}
        release: dict[str, Any] = {"releases": [_named(release) for release in self.release.releases]}
        if release["releases"]:
            release |= {"options": dict(self.release.options), "change": self.release.change}
        return {
            "collect": _named(self.collect),
            "screen": _named(self.screen),
            "annotate": _named(self.annotate),
            "agree": agree,
            "split": split,
            "release": release,
        }


def _named(step: Any) -> dict[str, Any]:
    """Return the fields of a step by their names in JSON."""
    names = [item.name for item in fields(step)]
    return {JSON_NAMES.get(name, name.replace("_", " ")): getattr(step, name) for name in names}
