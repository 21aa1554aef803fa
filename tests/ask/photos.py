"""Drawn images in folders, with the splits and labels of a data set."""

from collections.abc import Sequence
from pathlib import Path

from tests.drawn import draw_image, jpeg_of
from uniemox.labels import MIKELS


def draw_splits(root: Path, splits: Sequence[str], each: int) -> None:
    """Write `<split>/<label>/<number>.jpg`, `each` images of each label of Mikels in each split, all different."""
    number = 0
    for split in splits:
        for label in MIKELS.labels:
            folder = root / split / label
            folder.mkdir(parents=True)
            for _ in range(each):
                number += 1
                (folder / f"{number}.jpg").write_bytes(jpeg_of(draw_image(number, (32, 24))))
