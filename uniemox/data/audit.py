"""Audit of a data set: unreadable files, duplicates, contradictions, placeholders, leaks, imbalance, drift."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.data.inspection import ImageProperties, scan
from uniemox.data.near import near_groups
from uniemox.data.perceptual import grey_of
from uniemox.data.sample import DataSet, Sample, decode_sample
from uniemox.data.seen import SeenSearch
from uniemox.errors import BoxError, ImageError
from uniemox.io.html import jpeg_url, write_html
from uniemox.io.parallel import ONE_A_CORE, PoolConfig
from uniemox.io.progress import Progress, silent
from uniemox.persons.box import Box, touched_box

# An image with this number of copies under this number of labels stands for missing photos ("image not available").
PLACEHOLDER_TIMES = 5
PLACEHOLDER_LABELS = 3
# Order of copies by split: the first stays, so that test and val keep their images and only train loses some.
HELD_OUT_ORDER = {"test": 0, "val": 1}
KINDS = (
    *("corrupt", "wrong_endings", "odd_modes", "wrong_boxes", "wrong_persons", "exact_duplicates", "near_duplicates"),
    *("placeholders", "label_conflicts", "leaks"),
)
"""Kinds of problems, in the order of the report. `audit_page.html` describes each."""
# Random splits that show how far the colours of two splits differ by chance.
SHUFFLES = 200


# Detectors place boxes up to this share of the image's side outside of it.
MAX_OUTSIDE = 0.1


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a group."""

    sample: Sample
    label: str | None
    properties: ImageProperties
    is_other: bool
    """True if it belongs to the other data set."""

    @property
    def split(self) -> str | None:
        """Split of its sample."""
        return self.sample.split


@dataclass(frozen=True, slots=True)
class Group:
    """Images that share a problem."""

    members: tuple[Member, ...]
    reason: str = ""

    @property
    def ours(self) -> list[Member]:
        """Members in the audited data set."""
        return [member for member in self.members if not member.is_other]

    def as_dict(self) -> dict[str, Any]:
        """Return paths, labels and splits in the same order, `in` for two data sets, and the reason, if any."""
        columns: dict[str, Any] = {
            "paths": [str(member.sample.image) for member in self.members],
            "labels": [member.label for member in self.members],
            "splits": [member.split for member in self.members],
        }
        if any(member.is_other for member in self.members):
            columns["in"] = ["other" if member.is_other else "data" for member in self.members]
        return columns | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True, slots=True)
class Drift:
    """Distance between the mean colour histograms of two splits."""

    splits: tuple[str, str]
    distance: float
    """Total variation, 0 to 1, mean over the three channels."""
    by_chance: float
    """95 % quantile for random splits of these sizes."""


@dataclass(frozen=True, slots=True)
class Audit:
    """All problems found. Every list is complete: a placeholder is also a duplicate and a label conflict."""

    name: str
    count: int
    groups: dict[str, list[Group]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """Groups of images with a problem, by kind."""
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Number of samples by label, then by split."""
    drift: list[Drift] = field(default_factory=list)
    exclude: list[dict[str, str]] = field(default_factory=list)
    """Keys that should be excluded, with reasons; other commands read the list with --exclude."""

    def as_dict(self) -> dict[str, Any]:
        """Return everything in JSON-serialisable form."""
        groups = {kind: [group.as_dict() for group in groups] for kind, groups in self.groups.items()}
        return {
            "data": self.name,
            "n": self.count,
            **groups,
            "classes": self.classes,
            "drift": list(map(asdict, self.drift)),
            "exclude": self.exclude,
        }


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Images on which a model was trained."""

    model: str
    """Name of the model."""
    hashes: frozenset[str]
    """Their hashes, see data/seen.py."""


def audit(
    data: DataSet,
    against: DataSet | TrainingImages | None = None,
    *,
    pool: PoolConfig = ONE_A_CORE,
    on_progress: Progress = silent,
) -> Audit:
    """Check every image of a data set, and its overlap with another, or with the training images of a model.

    Args:
        data: The data set to check.
        against: Another data set, or training images, that must not share an image with it; None: there are none.
        pool: Worker processes.
    """
    training = against if isinstance(against, TrainingImages) else None
    if isinstance(against, TrainingImages):
        against = None
    owned_samples = [(owner, sample) for owner in (data, against) if owner is not None for sample in owner.samples]
    scanned = scan([sample for _, sample in owned_samples], pool, on_progress)
    members = [
        Member(sample, owner.label_of(sample), properties, owner is not data)
        for (owner, sample), properties in zip(owned_samples, scanned, strict=True)
    ]
    ours = members[: len(data)]
    readable = [member for member in members if member.properties.sha256 and not member.properties.problem]
    exact_groups, same_groups = _duplicates(readable)

    report = Audit(data.name, len(data))
    for member in ours:
        properties = member.properties
        for reason, groups in (
            (properties.problem, report.groups["corrupt"]),
            (f"is {properties.wrong_ending}" if properties.wrong_ending else "", report.groups["wrong_endings"]),
            (properties.odd_mode, report.groups["odd_modes"]),
            (_wrong_box(member), report.groups["wrong_boxes"]),
            (_wrong_person(member), report.groups["wrong_persons"]),
        ):
            if reason:
                groups.append(Group((member,), reason))

    report.groups["exact_duplicates"].extend(group for group in exact_groups if _count_files(group) > 1)
    for group in same_groups:
        if len({member.properties.sha256 for member in group.ours}) > 1:
            report.groups["near_duplicates"].append(group)
        if _is_placeholder(group):
            report.groups["placeholders"].append(group)
        if _contradicts(group):
            report.groups["label_conflicts"].append(group)
        # A tuple never equals the text, so a split may have any name.
        if len({"the other data set" if member.is_other else (member.split,) for member in group.members}) > 1:
            report.groups["leaks"].append(group)

    if training is not None:
        report.groups["leaks"].extend(_trained_on(ours, training))
    report.classes.update(_class_counts(data))
    report.drift.extend(_drift(ours))
    report.exclude.extend(_exclusions(report, same_groups))
    return report


def _trained_on(members: Sequence[Member], training: TrainingImages) -> Iterator[Group]:
    """Yield every image that a model was trained on, in the same or another file."""
    readable = [member for member in members if member.properties.thumb is not None]
    thumbs = [grey_of(member.properties.thumb) for member in readable if member.properties.thumb is not None]
    search = SeenSearch(
        [member.sample for member in readable], [member.properties.sha256 for member in readable], thumbs=thumbs
    )
    seen = search.look_up(training.hashes)
    same = {sample.key for sample in seen.same_files}
    copies = {sample.key for sample in seen.copies}
    for member in readable:
        if member.sample.key in same:
            yield Group((member,), f"training image of {training.model}")
        elif member.sample.key in copies:
            yield Group((member,), f"training image of {training.model}, in another file")


def _wrong_box(member: Member) -> str:
    """Return why the box of an image's target person is wrong; empty if it is not."""
    if member.sample.target_box is None or member.properties.problem:
        return ""
    try:
        touched_box(member.sample.target_box, *member.properties.size)
    except BoxError as error:
        return str(error)
    return ""


def _wrong_person(member: Member) -> str:
    """Return why the detected people of an image may be those of another file; empty if all are inside of it."""
    if member.properties.problem:
        return ""
    width, height = member.properties.size
    for person in member.sample.persons or ():
        x1, y1, x2, y2 = person.box
        outside = max(-x1 / width, -y1 / height, x2 / width - 1, y2 / height - 1)
        if outside > MAX_OUTSIDE:
            box = ", ".join(f"{value:.0f}" for value in person.box)
            return (
                f"the detected person ({box}) is outside of the image of {width} x {height} px; find the people again "
                "with uniemox data persons"
            )
    return ""


def _count_files(group: Group) -> int:
    """Return the number of different files of the audited data set in a group."""
    return len({str(member.sample.image) for member in group.ours})


def _is_placeholder(group: Group) -> bool:
    labels = {member.label for member in group.ours} - {None}
    return _count_files(group) >= PLACEHOLDER_TIMES and len(labels) >= PLACEHOLDER_LABELS


def _contradicts(group: Group) -> bool:
    """Return True if one image, or one person in it, has several labels in the audited data set."""
    labels: dict[Box | None, set[str]] = defaultdict(set)
    for member in group.ours:
        if member.label is not None:
            labels[member.sample.target_box].add(member.label)
    return any(len(words) > 1 for words in labels.values())


def _duplicates(members: Sequence[Member]) -> tuple[list[Group], list[Group]]:
    """Return groups of the same bytes, and groups of the same image, including exact copies.

    Args:
        members: Readable images. Empty or damaged files equal each other, but show no image.
    """
    by_hash: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        by_hash[member.properties.sha256].append(member)
    thumbs = {digest: rows[0].properties.thumb for digest, rows in by_hash.items()}
    comparable = {digest: thumb for digest, thumb in thumbs.items() if thumb is not None}
    numbers = near_groups(np.stack(list(comparable.values()))).tolist() if comparable else []
    group_of: dict[str, int | str] = dict(zip(comparable, numbers, strict=True))

    joined: dict[int | str, list[Member]] = defaultdict(list)
    for digest, rows in by_hash.items():
        joined[group_of.get(digest, digest)] += rows
    return _groups(by_hash.values()), _groups(joined.values())


def _groups(rows_of_each: Iterable[Sequence[Member]]) -> list[Group]:
    """Return the sorted groups with several members."""
    return [
        Group(tuple(sorted(rows, key=lambda member: (member.is_other, member.sample.key))))
        for rows in rows_of_each
        if len(rows) > 1
    ]


def _class_counts(data: DataSet) -> dict[str, dict[str, int]]:
    counts = Counter((index, sample.split or "all") for sample in data.samples for index in sample.classes)
    splits = sorted({sample.split or "all" for sample in data.samples})
    labels = enumerate(data.labels.labels)
    return {label: {split: counts[index, split] for split in splits} for index, label in labels}


def _drift(members: Sequence[Member]) -> Iterable[Drift]:
    """Yield the drift between every two splits; the random splits use one seed."""
    rows = [
        (member.properties.histogram, member.split)
        for member in members
        if member.properties.histogram is not None and member.split
    ]
    if not rows:
        return

    histograms = np.stack([histogram for histogram, _ in rows])
    splits = np.array([split for _, split in rows])
    rng = np.random.default_rng(0)
    for first, second in itertools.combinations(sorted(set(splits)), 2):
        is_compared = (splits == first) | (splits == second)
        both = histograms[is_compared]
        is_first = splits[is_compared] == first
        chance = [_distance(both, rng.permutation(is_first)) for _ in range(SHUFFLES)]
        yield Drift((str(first), str(second)), _distance(both, is_first), float(np.quantile(chance, 0.95)))


def _distance(histograms: NDArray[np.float32], is_first: NDArray[np.bool_]) -> float:
    """Return the total variation between the mean histograms of two sets of rows of (N, 48), 0 to 1."""
    difference = histograms[is_first].mean(axis=0) - histograms[~is_first].mean(axis=0)
    # Half the sum is the total variation of one channel; a histogram has three.
    return float(np.abs(difference).sum() / 2 / 3)


def _order_of_copies(member: Member) -> tuple[int, bool, str]:
    """Return the key by which copies are sorted; the first one stays."""
    return HELD_OUT_ORDER.get(member.split or "", 2), member.label is None, member.sample.key


def _exclusions(report: Audit, same_groups: Sequence[Group]) -> list[dict[str, str]]:
    """List unreadable files, wrong boxes, every image of a placeholder or with several labels, and all copies but one.

    Of copies the scored one stays, then one with a label; none stays if the other data set has the image.
    """
    # Members with the first reason for each key.
    excluded: dict[str, tuple[Member, str]] = {}
    trained_on = [group for group in report.groups["leaks"] if group.reason]
    for group in (*report.groups["corrupt"], *report.groups["wrong_boxes"], *trained_on):
        excluded.setdefault(group.members[0].sample.key, (group.members[0], group.reason))
    for group in same_groups:
        ours = sorted(group.ours, key=_order_of_copies)
        if _is_placeholder(group):
            reason = "placeholder"
        elif _contradicts(group):
            reason = f"under several labels: {', '.join(sorted({str(member.label) for member in ours}))}"
        elif len(ours) < len(group.members):
            reason = "also in the other data set"
        else:
            original = ours[0].sample
            reason = f"copy of {original.key}"
            # Several people of one image in one split are not copies of each other.
            ours = [
                member
                for member in ours
                if (str(member.sample.image), member.split) != (str(original.image), original.split)
            ]
        for member in ours:
            excluded.setdefault(member.sample.key, (member, reason))
    return [
        {"key": key, "path": str(member.sample.image), "reason": reason} for key, (member, reason) in excluded.items()
    ]


# The page shows this number of groups of each kind, and of images of each group; the JSON has all.
MAX_GROUPS = 40
MAX_IMAGES = 12
SIDE_PX = 112


def write_page(audit: Audit, path: Path) -> None:
    """Write an audit as an HTML page.

    Raises:
        DataError: If the file can't be written.
    """
    totals = {label: sum(counts.values()) for label, counts in audit.classes.items()}
    largest = max(totals.values(), default=0) or 1
    write_html(
        path,
        "uniemox/data/audit_page.html",
        title=audit.name,
        audit=audit,
        splits=list(next(iter(audit.classes.values()), {})),
        classes=[(label, counts, totals[label] / largest) for label, counts in audit.classes.items()],
        sections=[_section(kind, groups) for kind, groups in audit.groups.items()],
    )


def _section(kind: str, groups: list[Group]) -> dict[str, Any]:
    """Return the groups of one kind for the template."""
    return {
        "kind": kind,
        "groups": groups,
        "images": sum(len(group.members) for group in groups),
        "shown": [
            {
                "reason": group.reason,
                "images": [_thumbnail(member) for member in _one_of_each_label_first(group)[:MAX_IMAGES]],
                "more": max(len(group.members) - MAX_IMAGES, 0),
            }
            for group in groups[:MAX_GROUPS]
        ],
    }


def _one_of_each_label_first(group: Group) -> list[Member]:
    firsts = {id(member) for member in {member.label: member for member in reversed(group.members)}.values()}
    return sorted(group.members, key=lambda member: id(member) not in firsts)


def _thumbnail(member: Member) -> dict[str, str]:
    """Return an image with its caption for the template; its URL is empty if the image can't be read."""
    words = (member.label, member.split, "other data set" if member.is_other else "")
    caption = {"words": " · ".join(filter(None, words)), "key": member.sample.key}
    try:
        image, _ = decode_sample(member.sample, lambda width, height: min(width, height) / SIDE_PX)
    except ImageError:
        return {**caption, "url": ""}
    return {**caption, "url": jpeg_url(image, max_side_px=2 * SIDE_PX, quality=80)}
