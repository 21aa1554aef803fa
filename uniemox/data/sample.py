"""Samples and data sets, and their display in notebooks."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import ImageOps

from uniemox.errors import DataError, ImageError, LabelError
from uniemox.io.borders import image_border
from uniemox.io.files import read_limited
from uniemox.io.html import jpeg_url, render
from uniemox.io.images import MAX_BYTES, MinSides, decode
from uniemox.io.shortage import refuse_shortage
from uniemox.io.sized_image import SizedImage
from uniemox.labels import AFFECT, AXES, LabelSet
from uniemox.persons.box import Box, Detection
from uniemox.plurals import counted

# Number and side of the images that a notebook shows for a data set.
MAX_IMAGES = 8
SIDE_PX = 112


class StoredImage(Protocol):
    """Source of an image's bytes."""

    def read(self) -> bytes:
        """Read the bytes of the file.

        Raises:
            OSError: If it can't be read.
        """


@dataclass(frozen=True, slots=True)
class ImageFile:
    """Image in its own file."""

    path: Path

    def read(self) -> bytes:
        """Read the bytes of the file."""
        return read_limited(self.path, MAX_BYTES)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image with its labels. Unknown fields are None."""

    key: str
    """Name inside the data set, with /. Splits, lists and random draws depend on it, wherever the data are stored."""
    image: StoredImage
    label: int | None = None
    """Class in the data set's labels."""
    categories: tuple[int, ...] | None = None
    """Classes in the data set's labels, where a sample may have several (EMOTIC); it then has no label."""
    distribution: Mapping[str, float] | None = None
    """Share of votes by word, with sum 1; may include words outside the labels (Emotion6's neutral)."""
    valence: float | None = None
    """1 (negative) to 9 (positive)."""
    arousal: float | None = None
    """1 (calm) to 9 (excited)."""
    dominance: float | None = None
    """1 (not in control) to 9 (in control)."""
    split: str | None = None
    """train, val or test, if the data set or a split file defines it."""
    annotation: Mapping[str, Any] | None = None
    """EmoSet's attributes (see data/prompts.py)."""
    text: str | None = None
    """Text for the teacher."""
    persons: tuple[Detection, ...] | None = None
    """People in the image; () if a detector found none, None if no detector was run."""
    target_box: Box | None = None
    """Box of the person whose emotion is labelled, if the data set has one."""
    domain: str | None = None
    """Search word, style or source."""
    group: str | None = None
    """Samples of one group never go to different splits (several people of one image)."""
    source_sha256: str | None = None
    """Hash of the original file, if its bytes were changed by packing (shards)."""

    @property
    def image_key(self) -> str:
        """Key of the image, which all its people share: `a.jpg` for `a.jpg#2`."""
        return re.sub(r"#\d+$", "", self.key)

    @property
    def classes(self) -> tuple[int, ...]:
        """All classes of the sample: its label, or its categories."""
        if self.label is not None:
            return (self.label,)
        return self.categories or ()


def units_of(samples: Sequence[Sample]) -> list[str]:
    """Return the name of each sample's group, or of its image; samples of one unit are not independent."""
    return [sample.group or sample.image_key for sample in samples]


class Broken(NamedTuple):
    """A sample that could not be read."""

    key: str
    reason: str


def decode_sample(sample: Sample, shrink: Callable[[int, int], float] | None = None) -> SizedImage:
    """Return the image of a sample, upright and RGB.

    Args:
        shrink: Reduces JPEGs while they are decoded, see `images.decode`; None: full size.

    Raises:
        ImageError: With the image's name, if it can't be read.
    """
    name = str(sample.image)
    data = read_sample(sample)
    with image_border(name):
        return decode(data, name, shrink=shrink)


def read_sample(sample: Sample) -> bytes:
    """Return the bytes of a sample's image file.

    Raises:
        ImageError: With the image's name, if it can't be read.
    """
    name = str(sample.image)
    with image_border(name):
        try:
            return sample.image.read()
        except OSError as error:
            refuse_shortage(error)
            raise ImageError(f"{name}: can't be read ({error.strerror or error})") from error


def shares_of(sample: Sample, label_set: LabelSet) -> list[float] | None:
    """Return the shares of the votes for the labels, with sum 1; None without a vote for any of them."""
    votes = [0.0] * len(label_set)
    for word, share in (sample.distribution or {}).items():
        try:
            index = label_set.index(word)
        except LabelError:
            continue
        votes[index] += share
    total = sum(votes)
    if total > 0:
        return [vote / total for vote in votes]
    return None


def make_keys_unique(samples: Sequence[Sample]) -> list[Sample]:
    """Give several samples of one image their own keys (`a.jpg`, `a.jpg#2`) and one group, the image."""
    totals = Counter(sample.key for sample in samples)
    counts: Counter[str] = Counter()
    unique = []
    for sample in samples:
        key = sample.key
        if totals[key] == 1:
            unique.append(sample)
            continue
        counts[key] += 1
        suffix = "" if counts[key] == 1 else f"#{counts[key]}"
        unique.append(replace(sample, key=key + suffix, group=sample.group or key))
    return unique


@dataclass(frozen=True, slots=True)
class Part:
    """One of several data sets that were opened as one."""

    name: str
    """Name with which its keys begin, before a /."""
    source: str
    """KIND:PATH."""
    samples: int
    labels: str
    """Mapping of its labels, in words."""

    def __str__(self) -> str:
        return f"{self.name}: {counted(self.samples, 'sample')} of {self.source}; labels {self.labels}"


NO_PERSONS = (
    "no image has person boxes, so every person view is the whole image; run uniemox data persons KIND:PATH --detector "
    "embedded first (for shards: before uniemox data shard)"
)


@dataclass(frozen=True, slots=True)
class DataSet:
    """Samples and the meaning of their labels."""

    name: str
    """Source that was opened: "fi:photos"."""
    labels: LabelSet
    samples: Sequence[Sample]
    notes: tuple[str, ...] = ()
    """Notes about samples that were left out or added, one line each."""
    short_side_px: int | None = None
    """Short side to which images were scaled when packed; boxes are in px of the packed images. None: not scaled."""
    detector_seen: frozenset[str] = frozenset()
    """Hashes of the training images of the person detector that was used, see data/seen.py."""
    parts: tuple[Part, ...] = ()
    """Parts of several data sets opened as one; empty for a single one."""

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        labels = f"{counted(len(self.labels), 'label')} of {self.labels.name} ({self.labels.kind})"
        splits = Counter(sample.split for sample in self.samples if sample.split)
        parts = [counted(len(self), "sample"), labels, *(f"{split} {count:,}" for split, count in splits.items())]
        return f"<DataSet {self.name}: {', '.join(parts)}>"

    @property
    def lacks_persons(self) -> bool:
        """True if no sample has a target person or was searched for people: every person view is the whole image."""
        return all(sample.persons is None and sample.target_box is None for sample in self.samples)

    def _repr_html_(self) -> str:
        """Show samples by label and split in a notebook, and the first image of up to eight labels."""
        splits = sorted({sample.split or "all" for sample in self.samples})
        counts = Counter(
            (word, sample.split or "all") for sample in self.samples for word in self.words_of(sample) or ("no label",)
        )
        words = [word for word in (*self.labels.labels, "no label") if any(counts[word, split] for split in splits)]
        rows = [(word, *(f"{counts[word, split]:,}" for split in splits)) for word in words]
        firsts = {sample.label: sample for sample in reversed(self.samples) if sample.label is not None}
        examples = [firsts[label] for label in sorted(firsts)[:MAX_IMAGES]]
        images = [_thumbnail(self.label_of(sample) or "", sample) for sample in examples]
        return render("uniemox/data/data_set.html", data=self, splits=splits, rows=rows, images=images)

    def label_of(self, sample: Sample) -> str | None:
        """Return the word of a sample's label; None for a sample without one, or with categories."""
        if sample.label is None:
            return None
        return self.labels.labels[sample.label]

    def words_of(self, sample: Sample) -> tuple[str, ...]:
        """Return the words of all classes of a sample: of its label, or of its categories."""
        return tuple(self.labels.labels[index] for index in sample.classes)

    def to_train(self, *splits: str) -> "DataSet":
        """Return the samples of these splits; by default those of train, or all if the data have no splits."""
        if "all" in splits or not (splits or any(sample.split for sample in self.samples)):
            return self
        return self.only(*(splits or ("train",)))

    def to_describe(self) -> "DataSet":
        """Return the samples to learn from: train of each data set that has splits, all of each that has none.

        Unlike training samples, they are not used as labelled examples, so divided and undivided sets may be mixed.
        """
        divided_parts = {self.part_of(sample) for sample in self.samples if sample.split}
        samples = [
            sample for sample in self.samples if sample.split == "train" or self.part_of(sample) not in divided_parts
        ]
        if samples:
            return replace(self, samples=samples)
        # Raises the error that names the existing splits.
        return self.only("train")

    @property
    def axes(self) -> tuple[str, ...]:
        """Ratings of the data: valence and arousal, and dominance if every sample with these two has it."""
        rated = [sample for sample in self.samples if sample.valence is not None and sample.arousal is not None]
        if rated and all(sample.dominance is not None for sample in rated):
            return AXES
        return AFFECT

    @property
    def has_labels(self) -> bool:
        """True if a sample has a label or votes; images of a single folder have none, whatever its name is."""
        return any(sample.classes or sample.distribution for sample in self.samples)

    def check_categories(self) -> None:
        """Raise DataError if samples have votes, which don't say which labels an image has (task multilabel)."""
        voted = [
            sample
            for sample in self.samples
            if sample.categories is None and sum(share > 0 for share in (sample.distribution or {}).values()) > 1
        ]
        if voted:
            raise DataError(
                f"{self.name}: {counted(len(voted), 'image has', 'images have')} votes for several labels, such as "
                f"{voted[0].key}; task multilabel needs a table with 0 or 1 under each label (pack shards of older "
                "versions again), or EMOTIC; votes are for task distribution"
            )

    def scored_split(self, split: str | None) -> str:
        """Return the split to score: the given one, or test if there is one, else val, else all."""
        existing = {sample.split for sample in self.samples}
        return split or next((name for name in ("test", "val") if name in existing), "all")

    def to_calibrate(self, split: str | None) -> tuple[str, "DataSet"]:
        """Return the split and samples for calibration: the given one, else calibration, else val.

        Without a given split, data without splits give all samples, under the name all.
        """
        existing = {sample.split for sample in self.samples}
        name = split
        if not name:
            if "calibration" in existing:
                name = "calibration"
            elif existing <= {None}:
                name = "all"
            else:
                name = "val"
        return name, self if name == "all" else self.only(name)

    def name_with_split(self, split: str) -> str:
        """Return the name, without this machine's folders, and the split unless all: "folder:photos, split val"."""
        name = ", ".join(part.name for part in self.parts) or Path(self.name.partition("?")[0]).name
        if split == "all":
            return name
        return f"{name}, split {split}"

    def part_of(self, sample: Sample) -> str | None:
        """Return the name of the part that a sample comes from, if several data sets were opened as one."""
        if self.parts:
            return sample.key.partition("/")[0]
        return None

    def check_splits(self) -> None:
        """Check that all of several data sets have splits, or none; one without would be left out.

        Raises:
            DataError: If some have splits and others do not.
        """
        if not self.parts:
            return
        is_divided = {part.name: False for part in self.parts}
        for sample in self.samples:
            is_divided[str(self.part_of(sample))] |= sample.split is not None
        if len(set(is_divided.values())) > 1:
            without = ", ".join(name for name, has_splits in is_divided.items() if not has_splits)
            raise DataError(
                f"{self.name}: {without} has no splits, the others have; divide all of them with uniemox data split "
                f"'{self.name}' splits.json, and give --splits splits.json"
            )

    def only(self, *splits: str) -> "DataSet":
        """Return the samples of these splits.

        Raises:
            DataError: With the splits that exist, if no sample is in these.
        """
        self.check_splits()
        samples = [sample for sample in self.samples if sample.split in splits]
        if not samples:
            existing = sorted({sample.split or "none" for sample in self.samples})
            remedy = "; --split (split= in Python), where there is one, names another"
            if not any(sample.split for sample in self.samples):
                remedy = "; run uniemox data split, and give its file as --splits (for shards: to uniemox data shard)"
            names = " or ".join(splits)
            raise DataError(f"{self.name} has no samples of split {names}; it has {', '.join(existing)}{remedy}")
        return replace(self, samples=samples)


def _thumbnail(label: str, sample: Sample) -> dict[str, str]:
    """Return a sample's image for the template of notebooks, or why it can't be read."""
    try:
        image, _ = decode(sample.image.read(), str(sample.image), shrink=MinSides(short_px=SIDE_PX))
    except (OSError, ImageError) as error:
        return {"error": str(error)}
    square = ImageOps.fit(image, (SIDE_PX, SIDE_PX))
    return {"error": "", "key": sample.key, "label": label, "url": jpeg_url(square, max_side_px=SIDE_PX)}
