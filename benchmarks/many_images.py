"""Write 20,000 different images for timing `uniemox data check`. `python -m benchmarks.many_images FOLDER` (1 GB)."""

import random
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

from tests.conftest import SHARED
from uniemox.io.images import decode
from uniemox.labels import MIKELS

COUNT = 20_000
CROPS_PER_PHOTO = 20
SHORT_SIDE_PX = 480


def write_crops(folder: Path, source: Path, first: int) -> None:
    """Write random parts of a photograph, scaled to a short side of 480 px, to class folders."""
    image = decode(source.read_bytes())[0]
    rng = random.Random(first)
    for number in range(first, first + CROPS_PER_PHOTO):
        width, height = (round(side * rng.uniform(0.45, 0.8)) for side in image.size)
        x, y = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
        scale = SHORT_SIDE_PX / min(width, height)
        crop = image.crop((x, y, x + width, y + height)).resize(
            (round(width * scale), round(height * scale)), Image.Resampling.BILINEAR
        )
        crop.save(folder / MIKELS.labels[number % len(MIKELS)] / f"{number:05d}.jpg", quality=85)


def main(folder: Path) -> None:
    """Write all images."""
    data = SHARED / "data"
    sources = [
        path for name in ("flickr8k", "coco_persons", "emotion6") for path in sorted((data / name).rglob("*.jpg"))
    ]
    for label in MIKELS.labels:
        (folder / label).mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        jobs = [
            pool.submit(write_crops, folder, sources[i], i * CROPS_PER_PHOTO) for i in range(COUNT // CROPS_PER_PHOTO)
        ]
        for job in jobs:
            job.result()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
