"""Measure how many near duplicates the search in cells misses. `python -m tools.near_recall` (20 minutes).

Of every photograph of ../shared/data there are itself, three random parts, and three near duplicates.
"""

import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.conftest import SHARED
from tests.drawn import Stored, jpeg_of, plant
from tools.near_duplicates import CHANGES
from uniemox.data import near, near_pairs
from uniemox.data.inspection import inspect_image
from uniemox.data.sample import Sample
from uniemox.errors import ImageError
from uniemox.io.images import decode

COUNT = 100_000
FOLDERS = ("fi", "fi_more", "flickr8k", "flickr8k_more", "coco_persons", "emotion6", "abstract", "oasis")
VARIANTS = 3
PAIRS = 2048


def thumbs_of(path: Path) -> tuple[str, list[NDArray[np.uint8]]]:
    """Return the hash of a photograph, and the small images of it, of its parts and of its near duplicates."""
    rng = random.Random(path.name)
    data = path.read_bytes()
    try:
        image = decode(data)[0]
    except ImageError:
        return "", []
    files = [data]
    for _ in range(VARIANTS):
        width, height = (round(side * rng.uniform(0.45, 0.8)) for side in image.size)
        x, y = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
        files.append(jpeg_of(image.crop((x, y, x + width, y + height)), 90))
        files.append(plant(image, rng.choice(CHANGES), rng))
    inspections = [inspect_image(Sample(key="", image=Stored(file))) for file in files]
    return inspections[0].sha256, [inspection.thumb for inspection in inspections if inspection.thumb is not None]


def pairs_of(thumbs: NDArray[np.uint8], exact_images: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return all pairs that are near duplicates, each once, (M,) and (M,).

    Args:
        thumbs: (N, 32, 32, 3).
        exact_images: Maximum number of images of which every pair is compared.
    """
    near_pairs.EXACT_IMAGES = exact_images
    count = len(thumbs)
    # No pair is joined, so that each is found.
    keys = [first * count + second for first, second in near._candidates(thumbs, lambda numbers: numbers)]
    first, second = np.divmod(np.unique(np.concatenate(keys)), count)
    parts = [slice(start, start + PAIRS) for start in range(0, len(first), PAIRS)]
    is_same = np.concatenate([near._are_same(thumbs[first[part]], thumbs[second[part]]) for part in parts])
    return first[is_same], second[is_same]


def main() -> None:
    """Compare the pairs that are found in cells with those that are found by comparing every pair."""
    paths = [path for folder in FOLDERS for path in sorted((SHARED / "data" / folder).rglob("*.jpg"))]
    with ProcessPoolExecutor() as pool:
        thumbs = [thumb for _, images in sorted(dict(pool.map(thumbs_of, paths)).items()) for thumb in images]
    drawn = np.random.default_rng(0).permutation(len(thumbs))[:COUNT]
    chosen = np.stack([thumbs[i] for i in drawn])
    every_pair = set(zip(*pairs_of(chosen, exact_images=len(chosen)), strict=True))
    in_cells = set(zip(*pairs_of(chosen, exact_images=0), strict=True))
    print(f"{len(chosen):,} images, {len(every_pair):,} pairs; in cells {len(every_pair & in_cells):,}", end="")
    print(f" ({len(every_pair & in_cells) / len(every_pair):.3%})")


if __name__ == "__main__":
    main()
