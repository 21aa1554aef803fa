"""Images of a run that occur twice: exact copies of each other, and training images of its initial weights."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from uniemox.data.hashes import Fingerprint, hashes_of_equal_images
from uniemox.data.sample import Sample, units_of
from uniemox.data.splits import join_copies
from uniemox.io.files import write_file
from uniemox.io.typed import read_json
from uniemox.persons.box import Box
from uniemox.plurals import counted

OVERLAPS = "overlaps.json"
"""File in a run's folder."""


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Images of a fine-tuning run that occur twice.

    A run looks them up once, before its first step. A resumed run reads them from its folder.
    """

    copies: Mapping[str, str] = field(default_factory=dict)
    """Group by key, of images that have an exact copy under another key; a group stays in one part of the run."""
    seen_held_out: tuple[str, ...] = ()
    """Keys of held-out images on which the initial weights or the teacher were trained."""
    held_out_copies: tuple[str, ...] = ()
    """Keys of held-out images that are copies of images on which the run itself is trained."""
    scored_split: str | None = None
    """Split that the run does not read and `uniemox evaluate` scores; None: there is none."""
    scored_images: int | None = None
    """Number of its images; None: unknown."""
    seen_scored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Keys of its images on which a model was trained, by name of the model; without models that know none."""
    scored_copies: tuple[str, ...] = ()
    """Keys of its images that are also among the images that the run reads."""

    held_out_unlabelled: tuple[str, ...] = ()
    """Keys of additional images of a distillation that are copies of held-out images or of those of scored_split. The
    run leaves them out."""
    contradictory: Mapping[str, str] = field(default_factory=dict)
    """Key of an exact copy with another label, by key, of images that have one."""

    def join(self, samples: Sequence[Sample]) -> list[Sample]:
        """Return the samples, with the group of their copies."""
        return [
            replace(sample, group=self.copies[sample.key]) if sample.key in self.copies else sample
            for sample in samples
        ]


def copies_among(samples: Sequence[Sample], hashes: Sequence[str]) -> dict[str, str]:
    """Return the group of each sample that has an exact copy in another unit, by key.

    A unit is a sample, or the samples of one group. Other samples keep their groups, and so their splits.

    Args:
        samples: The samples.
        hashes: The sha256 of every file; empty for an unreadable one.
    """
    joined = join_copies(samples, hashes)
    units: dict[str | None, set[str]] = {}
    for sample, of_copies in zip(samples, joined, strict=True):
        units.setdefault(of_copies.group, set()).add(f"group {sample.group}" if sample.group else sample.key)
    return {sample.key: sample.group for sample in joined if sample.group and len(units[sample.group]) > 1}


@dataclass(frozen=True, slots=True)
class JoinedCopies:
    """Samples to score or to fit, among which copies of one image are one group."""

    samples: list[Sample]
    """N samples; the group of a copy is that of all its copies."""
    surplus: tuple[str, ...]
    """Keys of images that show what an image before them shows."""

    @classmethod
    def of(cls, samples: Sequence[Sample], images: Sequence[Fingerprint]) -> Self:
        """Join the copies, also those in another file, size or shape.

        Args:
            samples: N samples.
            images: Fingerprint of each sample's image.
        """
        units = [replace(sample, group=unit) for sample, unit in zip(samples, units_of(samples), strict=True)]
        hashes = hashes_of_equal_images(images)
        group_of_copies = copies_among(units, hashes)
        first_of = dict[str, str]()
        surplus = dict[str, None]()
        for sample, digest in zip(samples, hashes, strict=True):
            # All people of an image share its hash.
            if digest and first_of.setdefault(digest, sample.image_key) != sample.image_key:
                surplus[sample.image_key] = None
        joined = [replace(sample, group=group_of_copies.get(sample.key, sample.group)) for sample in samples]
        return cls(joined, tuple(surplus))

    @property
    def note(self) -> str:
        """Sentence about the copies; empty if there are none."""
        if not self.surplus:
            return ""
        return (
            f"{counted(len(self.surplus), 'image is a copy', 'images are copies')} of another one, such as "
            f"{self.surplus[0]}: copies count as one image in intervals; uniemox data check lists them"
        )


def contradictory_among(samples: Sequence[Sample], hashes: Sequence[str]) -> dict[str, str]:
    """Return the key of an exact copy with another label, by key, of images that have one.

    The people of an image may feel differently, so a copy shows the same person, by the box.

    Args:
        samples: The samples.
        hashes: The sha256 of every file; empty for an unreadable one.
    """
    copies: dict[tuple[str, Box | None], list[Sample]] = {}
    for sample, digest in zip(samples, hashes, strict=True):
        if digest and sample.label is not None:
            copies.setdefault((digest, sample.target_box), []).append(sample)
    contradictory: dict[str, str] = {}
    for group in copies.values():
        # The last sample of each label stands for it.
        key_of_label = {sample.label: sample.key for sample in group}
        for sample in group:
            other = next((key for label, key in key_of_label.items() if label != sample.label), None)
            if other is not None:
                contradictory[sample.key] = other
    return contradictory


def write_overlaps(folder: Path, overlaps: Overlaps) -> None:
    """Write the file in a run's folder."""
    write_file(folder / OVERLAPS, json.dumps(asdict(overlaps), indent=1) + "\n")


def read_overlaps(folder: Path) -> Overlaps:
    """Read the file of a run's folder. Runs of older versions have none; their copies are not joined.

    Raises:
        DataError: If it can't be read.
    """
    path = folder / OVERLAPS
    if not path.exists():
        return Overlaps()
    return read_json(path, Overlaps, remedy="copy the run's folder again")
