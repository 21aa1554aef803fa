"""Measure how well near duplicates are found: the table of docs/data.md. `python -m tools.near_duplicates`."""

import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.conftest import SHARED
from tests.data.test_audit import pairs_of
from tests.drawn import Stored, plant
from uniemox.data.inspection import inspect_image, scan
from uniemox.data.sample import ImageFile, Sample
from uniemox.io.images import decode

FOLDERS = ("fi", "flickr8k/images", "coco_persons/images", "emotion6/images", "abstract/images")
CHANGES = ("encoded", "scaled", "mirrored", "cropped", "all")


def thumb_of(image: Stored) -> NDArray[np.uint8]:
    """Return the small copy of an image by which near duplicates are found."""
    thumb = inspect_image(Sample(key="", image=image)).thumb
    assert thumb is not None
    return thumb


def main() -> None:
    """Add one changed copy of every image of five data sets for each kind of change, and count the found pairs."""
    paths = [path for folder in FOLDERS for path in sorted((SHARED / "data" / folder).rglob("*.jpg"))]
    inspections = scan([Sample(key=path.name, image=ImageFile(path)) for path in paths])
    first: dict[str, tuple[Path, NDArray[np.uint8]]] = {}
    for path, inspection in zip(paths, inspections, strict=True):
        if inspection.thumb is None:
            raise SystemExit(f"{path} cannot be read")
        first.setdefault(inspection.sha256, (path, inspection.thumb))
    distinct = list(first.values())
    thumbs = np.stack([thumb for _, thumb in distinct])
    print(f"{len(distinct)} different images, {len(distinct) * (len(distinct) - 1) // 2:,} pairs")
    print(f"false pairs among the originals: {len(pairs_of(thumbs))}\n")
    print("| planted | found | false pairs |\n| --- | --- | --- |")
    for change in CHANGES:
        rng = random.Random(change)
        copies = [plant(decode(path.read_bytes())[0], change, rng) for path, _ in distinct]
        planted = np.stack([thumb_of(Stored(data)) for data in copies])
        pairs = pairs_of(np.concatenate([thumbs, planted]))
        expected = {(i, i + len(distinct)) for i in range(len(distinct))}
        print(f"| {change} | {len(pairs & expected) / len(expected):.2%} | {len(pairs - expected)} |", flush=True)


if __name__ == "__main__":
    main()
