"""What a project has stored of its last agreement, split and release, by which later changes are noticed.

Older versions recorded less. Fields that they lack have a default here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from uniemox.io import check_json
from uniemox_curate.annotate.kept_sets import KeptSet
from uniemox_curate.counters import Counts
from uniemox_curate.plan import MIN_ANSWERS, Rule
from uniemox_curate.store import Store

# Names of the settings.
AGREEMENT = "agreement"
SPLIT = "split"
RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRecord:
    """Images that a rule kept at some moment."""

    images: int = 0
    fingerprint: int = 0
    rule: Rule = "both"
    newest_answer: int = 0
    """Number of the newest answer at that moment."""
    newest_batch: int | None = None
    """Number of the newest batch of decisions; None: an older version has not recorded the images."""

    @classmethod
    def of(cls, images: KeptSet, rule: Rule, counts: Counts) -> "KeptRecord":
        """Return the record of images that a rule keeps now.

        Args:
            images: Images that the rule keeps.
            rule: Rule for keeping images.
            counts: Counts of the project.
        """
        return cls(
            images=images.images,
            fingerprint=images.fingerprint,
            rule=rule,
            newest_answer=counts.newest_answer,
            newest_batch=counts.newest_batch,
        )

    @property
    def as_set(self) -> KeptSet:
        """The recorded images."""
        return KeptSet(self.images, self.fingerprint)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedAgreement:
    """The part of the last computed agreement that the status shows."""

    pictures: int
    """Number of images with answers of two people or more."""
    percent: Mapping[str, float | None]
    """Share of equal answers: its value, and both ends of its interval."""
    alpha: Mapping[str, float | None]
    """Krippendorff's α, likewise."""
    of_answers: int
    """Number of the newest answer that it counts."""
    of_batch: int = 0
    """Number of the newest batch of decisions at its time."""
    rule: Rule = "both"
    kept: KeptRecord = field(default_factory=KeptRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSplit:
    """The last drawn split."""

    sizes: Mapping[str, int]
    how: str
    note: str = ""
    """Why the shares differ from the requested ones; empty if they do not."""
    ratio: str = "80/10/10"
    schemes: int = 100
    seed: int = 0
    sha256: str | None = None
    """Digest of splits.json."""
    kept: KeptRecord = field(default_factory=KeptRecord)

    @property
    def images(self) -> int:
        """Number of its images."""
        return sum(self.sizes.values())

    @property
    def options(self) -> list[str]:
        """Options of `uniemox curate split` that draw it again; those with their default are left out."""
        defaults = {item.name: item.default for item in fields(self)}
        values = {"ratio": self.ratio, "schemes": self.schemes, "seed": self.seed}
        return [f"--{name} {value}" for name, value in values.items() if value != defaults[name]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRelease:
    """The newest release."""

    number: int
    """Number of its row in the table of releases."""
    kept: KeptRecord = field(default_factory=KeptRecord)
    split: str | None = None
    """Digest of the split of its images; None: there was no split."""
    min_answers: int = MIN_ANSWERS


def saved_agreement(store: Store) -> SavedAgreement | None:
    """Return the last computed agreement; None if there is none."""
    content = store.setting(AGREEMENT)
    if not content:
        return None
    return check_json(content, SavedAgreement, _place(store, AGREEMENT), remedy="run uniemox curate agree again")


def saved_split(store: Store) -> SavedSplit | None:
    """Return the last drawn split; None if there is none."""
    content = store.setting(SPLIT)
    return parse_split(content, store) if content else None


def parse_split(content: Any, store: Store) -> SavedSplit:
    """Return a split as a project has stored it."""
    return check_json(content, SavedSplit, _place(store, SPLIT), remedy="run uniemox curate split again")


def saved_release(store: Store) -> SavedRelease | None:
    """Return the newest release; None if there is none, or only ones of older versions."""
    content = store.setting(RELEASE)
    if not content:
        return None
    return check_json(content, SavedRelease, _place(store, RELEASE), remedy="restore a copy of the database")


def _place(store: Store, name: str) -> str:
    """Return the words for a setting in a message."""
    return f"{store.engine.url}, setting {name}"
