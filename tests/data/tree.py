"""Small data sets on disk, for the tests of the readers and the fuzz run."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.images import draw, save
from uniemox.data.sample import DataSet
from uniemox.data.sidecar import Sidecar

JPEG = save(draw(24, 18), "JPEG")
EMOTIONS = ("sadness", "disgust", "amusement", "awe", "excitement", "anger", "fear", "contentment")  # info.json's order
SEVEN = ("anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral")


def put(root: Path, *names: str) -> Path:
    """Images of these names below a folder."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    return root


def write(path: Path, content: Any) -> Path:
    """A text, bytes, or anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def info(**fields: Iterable[str]) -> dict[str, Any]:
    """EmoSet's info.json with these words."""
    words = {"emotion": EMOTIONS, "scene": ("beach", "amusement_park"), "object": ("Dog", "Ferris wheel"), **fields}
    return {field: {"label2idx": {word: i for i, word in enumerate(group)}} for field, group in words.items()}


def emoset(root: Path, annotations: Mapping[str, Any], *, ids: bool = True, split: str = "train") -> Path:
    """EmoSet with one record an annotation, named `<emotion>/<id>`."""
    write(root / "info.json", info())
    records = []
    for name, annotation in annotations.items():
        emotion, number = name.split("/")
        image = f"image/{name}.jpg"
        notes = f"annotation/{name}.json"
        put(root, image)
        write(root / notes, annotation)
        records.append([emotion, number, image, notes] if ids else [emotion, image, notes])
    write(root / f"{split}.json", records)
    return root


def emotion6(root: Path, rows: Mapping[str, Iterable[float]], *, absent: Iterable[str] = ()) -> Path:
    """Emotion6 with seven shares an image; the images named in `absent` are not written."""
    header = ["[image_filename]", "[valence]", "[arousal]", *(f"[prob. {word}]" for word in SEVEN)]
    lines = ["\t".join([name, "2.5", "3.75", *map(str, shares)]) for name, shares in rows.items()]
    (root / "images").mkdir(parents=True, exist_ok=True)
    put(root / "images", *(name for name in rows if name not in set(absent)))
    write(root / "ground_truth.txt", "\n".join(["\t".join(header), *lines]) + "\n")
    return root


def abstract(root: Path, rows: Mapping[str, Iterable[int]], *, end: str = "\r") -> Path:
    """Abstract with eight counts an image, as it was published: CR line ends, single quotes."""
    header = ",'Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'"
    lines = [",".join([f"'{name}'", *map(str, counts)]) for name, counts in rows.items()]
    put(root / "images", *rows)
    write(root / "ABSTRACT_groundTruth.csv", end.join([header, *lines]).encode())
    return root


def words(data: DataSet) -> dict[str, str | None]:
    """Labels by key."""
    return {sample.key: data.label_of(sample) for sample in data.samples}


def says(*parts: object) -> str:
    """A pattern of a message that holds these parts in this order."""
    return ".*".join(re.escape(str(part)) for part in parts)


HEADER = {"detector": "drawn by hand", "threshold": 0.3}


def sidecar(path: Path, lines: dict[str, dict[str, Any]], header: dict[str, Any] = HEADER) -> Path:
    """A sidecar of these lines."""
    with Sidecar(path, header) as file:
        for key, values in lines.items():
            file.append(key, values)
    return path
