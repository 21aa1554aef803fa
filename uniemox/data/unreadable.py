"""Images of a run that can't be read: their names and reasons in its folder, and the classes that lose images."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniemox.data.sample import Broken, Sample
from uniemox.errors import DataError
from uniemox.io.files import write_file
from uniemox.io.typed import read_json_lines
from uniemox.labels import LabelSet
from uniemox.plurals import counted

UNREADABLE_FILE = "unreadable.jsonl"
# If a class loses a larger share of its images, its share of the data has changed noticeably.
MAX_LOST_FRACTION = 0.05
# The default of max_unreadable, so that runs list all of theirs.
MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class UnreadableImage:
    """Line of the file."""

    key: str
    reason: str


def write_unreadable(path: Path, broken: Mapping[str, str]) -> None:
    """Write one line for each image, {"key", "reason"}. Without images, remove the file of an earlier run.

    Args:
        path: UNREADABLE_FILE in the folder of a run.
        broken: Reasons by key.
    """
    if broken:
        lines = (json.dumps({"key": key, "reason": reason}, ensure_ascii=False) for key, reason in broken.items())
        write_file(path, "".join(f"{line}\n" for line in lines))
    else:
        path.unlink(missing_ok=True)


def read_unreadable(path: Path) -> dict[str, str]:
    """Return the reasons by key of a file of `write_unreadable`; an empty dict without a file.

    Raises:
        DataError: If the file is damaged.
    """
    if not path.is_file():
        return {}
    return {image.key: image.reason for _, image in read_json_lines(path, UnreadableImage, remedy="delete the file")}


def describe_unreadable(broken: Mapping[str, str], path: Path | None = None) -> list[str]:
    """Return lines to print: the number of unreadable images, and names with reasons.

    Args:
        broken: Reasons by key.
        path: File that lists all of them, if there is one.
    """
    if not broken:
        return []
    images = "image" if len(broken) == 1 else "images"
    where = "" if path is None else f"; see {path}"
    lines = [f"left out {len(broken)} {images} that can't be read{where}:"]
    lines += [f"  {key}: {reason}" for key, reason in list(broken.items())[:MAX_LISTED]]
    if len(broken) > MAX_LISTED:
        lines.append(f"  and {len(broken) - MAX_LISTED} more")
    return lines


def listing_of(broken: Mapping[str, str]) -> str:
    """Return the reasons for up to `MAX_LISTED` images in one line."""
    more = f"; and {len(broken) - MAX_LISTED} more" if len(broken) > MAX_LISTED else ""
    return "; ".join(list(broken.values())[:MAX_LISTED]) + more


def lost_by_class(samples: Sequence[Sample], broken: Collection[str], labels: LabelSet, part: str) -> list[str]:
    """Return a warning for each class that loses all of its images, or more than a twentieth.

    Args:
        broken: Keys of unreadable images; they may include keys of other samples.
        part: Name of these samples, such as "train".
    """
    warnings = []
    for label, (lost, count) in _losses(samples, broken, labels).items():
        if lost == count:
            warnings.append(f"{part} has no readable image of {label}: all {count} can't be read")
        elif lost > MAX_LOST_FRACTION * count:
            share = f"{lost} of {counted(count, 'image')} of {label} ({lost / count:.0%})"
            warnings.append(f"{part} loses {share}, which can't be read")
    return warnings


def refuse_empty_classes(samples: Sequence[Sample], broken: Mapping[str, str], labels: LabelSet, name: str) -> None:
    """Refuse data in which a class has training images and none of them can be read.

    Args:
        samples: Training samples.
        broken: Reasons by key.
        name: Name of the data, for the message.

    Raises:
        DataError: For such a class, with the first reason.
    """
    losses = _losses(samples, broken, labels)
    empty = [label for label, (lost, count) in losses.items() if lost == count]
    if empty:
        indices = {labels.labels.index(label) for label in empty}
        first = next(broken[sample.key] for sample in samples if indices & set(sample.classes) and sample.key in broken)
        counts = ", ".join(f"{label} ({counted(losses[label][1], 'image')})" for label in empty)
        raise DataError(
            f"{name} has no readable training image of {counts}: {first}. Restore the files, or leave the class out; "
            f"uniemox data check {name} lists them"
        )


def absent_classes(samples: Sequence[Sample], labels: LabelSet) -> list[str]:
    """Return the classes of a label set that no sample has."""
    present = {index for sample in samples for index in sample.classes}
    return [label for index, label in enumerate(labels.labels) if index not in present]


def _losses(samples: Sequence[Sample], broken: Collection[str], labels: LabelSet) -> dict[str, tuple[int, int]]:
    """Return the numbers of unreadable and of all images of each class that has unreadable ones."""
    counts = Counter(index for sample in samples for index in sample.classes if index < len(labels))
    lost = Counter(
        index for sample in samples if sample.key in broken for index in sample.classes if index < len(labels)
    )
    return {labels.labels[index]: (lost[index], counts[index]) for index in sorted(lost)}


def reasons_of(broken: Sequence[Broken]) -> dict[str, str]:
    """Return reasons by key."""
    return {image.key: image.reason for image in broken}
