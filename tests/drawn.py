"""Small data sets that tests draw themselves."""

import io
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from uniemox.data.sample import PictureFile, Sample


def draw_picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with structure at every scale: no two seeds look alike."""
    rng = random.Random(seed)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        w, h = rng.randrange(5, size[0] // 3), rng.randrange(5, size[1] // 3)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + w, y + h), fill=tuple(rng.randrange(256) for _ in range(3)))
    return image


def jpeg_of(image: Image.Image, quality: int = 90) -> bytes:
    """The bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def class_folders(root: Path, classes: tuple[str, ...] = ("awe", "fear"), each: int = 4) -> Path:
    """`<class>/<n>.jpg`, every picture another one."""
    for i, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for j in range(each):
            (root / name / f"{j}.jpg").write_bytes(jpeg_of(draw_picture(100 * i + j)))
    return root


def sample_of(path: Path, **known: object) -> Sample:
    """A sample of a file, its name as its key."""
    return Sample(key=path.name, picture=PictureFile(path), **known)  # type: ignore[arg-type]
