"""Files that add to the images of a data set, or leave some out: people, texts, splits and exclusions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uniemox.data.people import people_of
from uniemox.data.prompts import describe
from uniemox.data.sample import DataSet
from uniemox.data.seen import read_seen
from uniemox.data.sidecar import read_sidecar
from uniemox.data.split_files import read_splits
from uniemox.data.text_files import read_text
from uniemox.errors import AnnotationError, DataError
from uniemox.io.typed import check_json, parse_json
from uniemox.plurals import counted
from uniemox.spelling import match_names


def add_files(data: DataSet, files: Mapping[str, Path | None]) -> DataSet:
    """Add people, texts, splits and exclusions from files, in the order of FILES."""
    for name, add in FILES.items():
        if (file := files.get(name)) is not None:
            data = add(data, file)
    return data


def _add_persons(data: DataSet, file: Path) -> DataSet:
    """Add people from a sidecar; samples that it lacks keep theirs."""
    header, lines = read_sidecar(file)
    if header.get("short_side_px") != data.short_side_px:
        raise DataError(
            f"{file}: its boxes are in px of other images (short side {header.get('short_side_px')}, here "
            f"{data.short_side_px}); find the people in these, or give the file to data shard"
        )
    samples = []
    count = 0
    # Keys may be spelled otherwise than on the machine that wrote the file.
    key_of = match_names((sample.image_key for sample in data.samples), lines)
    for sample in data.samples:
        line = lines.get(key_of.get(sample.image_key, ""))
        people = None if line is None else people_of(line, f"{file}, {sample.key}")
        if people is not None:
            sample = replace(sample, persons=people)  # noqa: PLW2901
            count += 1
        samples.append(sample)
    note = f"people of {counted(count, 'image')} from {file} ({header.get('detector', 'unknown detector')})"
    training_hashes = data.detector_seen | read_seen(file, in_folder=False)
    return replace(data, samples=samples, notes=(*data.notes, note), detector_seen=training_hashes)


@dataclass(frozen=True, slots=True)
class TextLine:
    """Line of a sidecar of texts."""

    text: str
    annotation: dict[str, Any] | None = None
    """Attributes from which the text was made; None: written by a person."""


def _add_texts(data: DataSet, file: Path) -> DataSet:
    """Add texts from a sidecar."""
    header, lines = read_sidecar(file)
    with_emotion = header.get("with_emotion") is not False
    samples = []
    count = 0
    key_of = match_names((sample.image_key for sample in data.samples), lines)
    for sample in data.samples:
        line = lines.get(key_of.get(sample.image_key, ""))
        if line is not None:
            where = f"{file}, {sample.key}"
            described = check_json(line, TextLine, where, remedy="write the texts again")
            text = described.text
            label = None
            if with_emotion:
                label = data.label_of(sample)
                text = _for_label(text, described.annotation, label, where)
            fields = sample.annotation or described.annotation
            # The data set's own annotation keeps its emotion, unless the texts are to have none.
            if fields is not None and not (with_emotion and sample.annotation):
                fields = {**fields, "emotion": label}
            sample = replace(sample, text=text, annotation=fields)  # noqa: PLW2901
            count += 1
        samples.append(sample)
    return replace(data, samples=samples, notes=(*data.notes, f"texts of {counted(count, 'image')} from {file}"))


def _for_label(text: str, annotation: Mapping[str, Any] | None, label: str | None, where: str) -> str:
    """Replace the emotion in a text by the sample's own label: an image has one text, but may have several labels.

    Texts that were not made from the annotation, but written by people, stay unchanged.
    """
    if annotation is None or annotation.get("emotion") == label:
        return text
    try:
        if text != describe(annotation, with_emotion=True):
            return text
        return describe({**annotation, "emotion": label}, with_emotion=True)
    except AnnotationError as error:
        raise AnnotationError(f"{where}: {error}") from error


@dataclass(frozen=True, slots=True)
class ExcludedImage:
    """An image to leave out; the file may also have the reason."""

    key: str


@dataclass(frozen=True, slots=True)
class ExclusionFile:
    """The part that is read of the output of `uniemox data check --json`."""

    exclude: list[ExcludedImage]


def _exclude(data: DataSet, file: Path) -> DataSet:
    """Leave out the samples that a file of `uniemox data check --json` lists to exclude.

    Raises:
        DataError: If the file has no such list, or lists all samples.
    """
    remedy = "uniemox data check --json writes such files"
    listed = {image.key for image in parse_json(read_text(file), ExclusionFile, str(file), remedy=remedy).exclude}
    matches = match_names(listed, {sample.key for sample in data.samples})
    excluded = set(matches.values())
    samples = [sample for sample in data.samples if sample.key not in excluded]
    if not samples:
        raise DataError(f"{file} excludes all samples of {data.name}")
    note = f"{len(matches)} of the {len(listed)} images listed in {file} were left out"
    if absent := len(listed) - len(matches):
        note += f"; {absent} not among these images: not in the data, or left out by the splits before"
    return replace(data, samples=samples, notes=(*data.notes, note))


FILES: Mapping[str, Callable[[DataSet, Path], DataSet]] = {
    "persons": _add_persons,
    "texts": _add_texts,
    "splits": lambda data, file: read_splits(file, data),
    "exclude": _exclude,
}
"""Options of every kind: files that add to its images, in the order in which they are read."""
