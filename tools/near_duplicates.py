"""How well near duplicates are found: the table of docs/data.md. `python -m tools.near_duplicates`."""

import random
import sys
from pathlib import Path

import numpy as np

from tests.conftest import SHARED
from tests.data.test_audit import pairs_of
from tests.drawn import Stored, plant
from uniemox.data.processes import look_at, scan
from uniemox.data.sample import ImageFile, Sample
from uniemox.io.images import decode

FOLDERS = ("fi", "flickr8k/images", "coco_persons/images", "emotion6/images", "abstract/images")
WAYS = ("encoded", "scaled", "mirrored", "cropped", "all")


def main() -> None:
    """Plant one copy of every image of five data sets in each way, and count what is found."""
    paths = [path for folder in FOLDERS for path in sorted((SHARED / "data" / folder).rglob("*.jpg"))]
    looks = scan([Sample(key=path.name, image=ImageFile(path)) for path in paths])
    first: dict[str, tuple[Path, np.ndarray]] = {}
    for path, look in zip(paths, looks, strict=True):
        first.setdefault(look.sha256, (path, look.thumb))
    distinct = list(first.values())
    thumbs = np.stack([thumb for _, thumb in distinct])
    print(f"{len(distinct)} different images, {len(distinct) * (len(distinct) - 1) // 2:,} pairs")
    print(f"false pairs among the originals: {len(pairs_of(thumbs))}\n")
    print("| planted | found | false pairs |\n| --- | --- | --- |")
    for way in WAYS:
        draw = random.Random(way)
        copies = [plant(decode(path.read_bytes())[0], way, draw) for path, _ in distinct]
        planted = np.stack([look_at(Sample(key="", image=Stored(data))).thumb for data in copies])
        pairs = pairs_of(np.concatenate([thumbs, planted]))
        expected = {(i, i + len(distinct)) for i in range(len(distinct))}
        print(f"| {way} | {len(pairs & expected) / len(expected):.2%} | {len(pairs - expected)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
