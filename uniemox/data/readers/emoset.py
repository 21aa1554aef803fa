"""EmoSet (Yang et al., ICCV 2023): records, labels and attributes in JSON files."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from uniemox.data.prompts import describe, plain
from uniemox.data.readers.folders import class_of, count_notes
from uniemox.data.readers.paths import checked_folder, path_inside
from uniemox.data.sample import DataSet, ImageFile, Sample, make_keys_unique
from uniemox.data.text_files import read_text
from uniemox.errors import AnnotationError, DataError
from uniemox.io.typed import check_json, parse_json
from uniemox.labels import MIKELS, LabelSet
from uniemox.plurals import counted

SPLITS = ("train", "val", "test")
# Fields of which info.json lists all words; it does not list all objects.
WORDS = ("scene", "facial_expression", "human_action")
REMEDY = "copy the data set again"


def read_emoset(root: Path, *, missing: Literal["fail", "skip"] = "fail") -> DataSet:
    """Read `info.json`, and those of `train.json`, `val.json`, `test.json` that exist.

    A record is [emotion, image id, image, annotation], or [emotion, image, annotation] in the older release. Labels are
    in the order of `info.json`. The text contains the attributes and the emotion (table VII of the paper leaves out the
    emotion: `describe(sample.annotation, with_emotion=False)`).

    Args:
        missing: "skip" leaves out records whose image or annotation does not exist, for a part of the data set.

    Raises:
        DataError: With file and field, if a file is missing or damaged, or a record or label is invalid.
        AnnotationError: With file and field, for an annotation with a wrong type or an unknown word.
    """
    vocabulary = read_vocabulary(checked_folder(root) / "info.json")
    labels = LabelSet(MIKELS.name, tuple(vocabulary["emotion"]), MIKELS.kind, MIKELS.aliases)
    words = {field: {plain(word) for word in vocabulary.get(field, ())} for field in WORDS}
    lists = [root / f"{split}.json" for split in SPLITS if (root / f"{split}.json").is_file()]
    if not lists:
        raise DataError(f"{root}: there is no train.json, val.json or test.json")
    samples = []
    absent = 0
    annotations = set[Path]()
    for path in lists:
        records = parse_json(read_text(path), list[Any], str(path), remedy=REMEDY)
        for i, record in enumerate(records):
            where = f"{path}: record {i}"
            word, image, annotation_name = _parse_record(record, where)
            image_path = path_inside(root, image, f"{where}, image")
            annotation_path = path_inside(root, annotation_name, f"{where}, annotation")
            if not os.path.isfile(image_path) or not os.path.isfile(annotation_path):
                if missing == "skip":
                    absent += 1
                    continue
                absent_path = annotation_path if os.path.isfile(image_path) else image_path
                raise DataError(f"{where}: {absent_path} does not exist; ?missing=skip leaves such records out")
            label = class_of(labels, word, f"{where}, emotion")
            if annotation_path in annotations:
                raise DataError(f"{where}: {annotation_name} is the annotation of an earlier record, too")
            annotations.add(annotation_path)
            annotation = _read_annotation(annotation_path, words, labels.labels[label])
            samples.append(
                Sample(
                    key=image,
                    image=ImageFile(image_path),
                    label=label,
                    split=path.stem,
                    annotation=annotation,
                    text=describe(annotation, with_emotion=True),
                )
            )
    if not samples:
        raise DataError(f"{root}: {counted(absent, 'record')}, and no image of any of them is there")
    notes = count_notes((absent, "record was", "records were", "left out: image or annotation is missing"))
    return DataSet(str(root), labels, make_keys_unique(samples), notes)


@dataclass(frozen=True, slots=True)
class AttributeInfo:
    """Words of an attribute in info.json, with their indices."""

    label2idx: dict[str, int]


def read_vocabulary(path: Path) -> dict[str, list[str]]:
    """Read the words of each attribute from info.json, in the order of their indices.

    Brightness and colorfulness are numbers and have no words.

    Raises:
        DataError: If the file has another form, or other emotions than Mikels' eight.
    """
    info = parse_json(read_text(path), dict[str, Any], str(path), remedy=REMEDY)
    vocabulary = {}
    for field in ("emotion", *WORDS):
        where = f"{path}, {field}"
        numbers = check_json(info.get(field, {"label2idx": {}}), AttributeInfo, where, remedy=REMEDY).label2idx
        if sorted(numbers.values()) != list(range(len(numbers))):
            raise DataError(f"{where}: field label2idx: expected words with the numbers 0 to n - 1; {REMEDY}")
        vocabulary[field] = sorted(numbers, key=numbers.__getitem__)
    if sorted(vocabulary["emotion"]) != sorted(MIKELS.labels):
        raise DataError(f"{path}, emotion: expected {', '.join(MIKELS.labels)}, got {', '.join(vocabulary['emotion'])}")
    return vocabulary


def _parse_record(record: Any, where: str) -> tuple[str, str, str]:
    """Return emotion, image and annotation of a record of either release.

    Raises:
        DataError: If the record has another form.
    """
    if (
        not isinstance(record, list)
        or len(record) not in (3, 4)
        or not all(isinstance(value, str) for i, value in enumerate(record) if not (len(record) == 4 and i == 1))
    ):
        raise DataError(f"{where}: expected [emotion, (image id,) image, annotation], got {str(record)[:100]}")
    return record[0], record[-2], record[-1]


def _read_annotation(path: Path, words: Mapping[str, set[str]], emotion: str) -> dict[str, Any]:
    """Read an annotation and check its words.

    Raises:
        AnnotationError: With file and field, for a wrong type, another emotion than the record's, or an unknown word.
    """
    annotation = parse_json(read_text(path), dict[str, Any], str(path), remedy=REMEDY, error_class=AnnotationError)
    if str(annotation.setdefault("emotion", emotion)).lower() != emotion:
        raise AnnotationError(f"{path}, emotion: {annotation['emotion']!r}, but the record says {emotion!r}")
    try:
        describe(annotation, with_emotion=True)
    except AnnotationError as error:
        raise AnnotationError(f"{path}: {error}") from error
    for field, vocabulary in words.items():
        values = annotation.get(field) or ()
        if isinstance(values, str):
            values = [values]
        for value in values:
            if vocabulary and value and plain(value) not in vocabulary:
                raise AnnotationError(f"{path}, {field}: {value!r} is not in the vocabulary of info.json")
    return annotation
