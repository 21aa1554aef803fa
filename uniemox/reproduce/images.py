"""Some images of a data set as files, with what is said of them: what figures 4, 8 and 9 show."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from uniemox.data.prompts import text_of
from uniemox.data.sample import DataSet, Sample, decode_sample
from uniemox.data.sidecar import PERSONS, json_line
from uniemox.errors import ConfigError, DataError, ImageError
from uniemox.io.files import write_text
from uniemox.training.settings import read_json

LIST = "pictures.json"
MAX_SIDE_PX = 640


def write_images(data: DataSet, out: Path, *, count: int, seed: int, with_emotion: bool = False) -> list[Path]:
    """Draw images, the classes in turn, and write them as 00.png, 01.png, ... with a list of labels and texts.

    People that the data know are in persons.jsonl.
    count: at least 1; fewer are written where there are fewer.  Broken images are passed over.
    with_emotion: the texts end in the emotion where the annotation holds one, as in `text_of`.
    Raises ConfigError for a count below 1, DataError if none can be read.
    """
    if count < 1:
        raise ConfigError(f"--count must be at least 1, got {count}")
    out.mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, Any]] = []
    people = [json_line({"detector": f"as {data.name} has them"})]
    for sample in _in_turn(data, seed):
        if len(listed) == count:
            break
        try:
            image, _ = decode_sample(sample)
        except ImageError:
            continue
        width = image.width
        image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
        name = f"{len(listed):02d}.png"
        image.save(out / name)
        if (boxes := _boxes(sample, image.width / width)) is not None:
            people.append(json_line({"key": name, "boxes": boxes}))
        text = text_of(sample, with_emotion)
        listed.append({"file": name, "key": sample.key, "label": data.label_of(sample), "text": text})
    if not listed:
        raise DataError(f"none of the images of {data.name} can be read")
    write_text(out / PERSONS, b"".join(people).decode())
    write_text(out / LIST, json.dumps({"data": data.name, "seed": seed, "pictures": listed}, indent=2) + "\n")
    return [out / entry["file"] for entry in listed]


def _boxes(sample: Sample, scale: float) -> list[list[float]] | None:
    """The people as a line of persons.jsonl has them: the one that is meant where the data say so, else all."""
    if sample.target_box is not None:
        return [[*(value * scale for value in sample.target_box), 1.0]]
    if sample.persons is None:
        return None
    return [[*(value * scale for value in person.box), person.confidence] for person in sample.persons]


def read_images(folder: Path) -> list[dict[str, Any]]:
    """What `write_images` wrote: file, key, label, text. Raises ConfigError if it is not there."""
    return list(read_json(folder / LIST)["pictures"])


def _in_turn(data: DataSet, seed: int) -> Iterator[Sample]:
    """All samples in a drawn order, one of each class after the other."""
    shuffled = sorted(data.samples, key=lambda sample: sample.key)
    random.Random(seed).shuffle(shuffled)
    waiting: dict[int | None, list[Sample]] = {}
    for sample in shuffled:
        waiting.setdefault(sample.label, []).append(sample)
    places = sorted(waiting, key=lambda label: -1 if label is None else label)
    while any(waiting.values()):
        for label in places:
            if waiting[label]:
                yield waiting[label].pop(0)
