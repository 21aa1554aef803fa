"""Small data sets that tests draw themselves."""

import io
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from uniemox.data.sample import ImageFile, Sample


def draw_image(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """An image with structure at every scale: no two seeds look alike."""
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


class Stored:
    """An image in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self) -> bytes:
        return self.data


def plant(image: Image.Image, how: str, draw: random.Random) -> bytes:
    """A near duplicate: encoded again, scaled, mirrored or cropped, or all of it."""
    width, height = image.size
    if how in ("scaled", "all"):
        scale = draw.uniform(0.5, 2)
        image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    if how in ("mirrored", "all"):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if how in ("cropped", "all"):
        width, height = image.size
        left, top, right, bottom = (draw.choice((0, 0.01, 0.02)) for _ in range(4))
        image = image.crop(
            (round(left * width), round(top * height), round(width * (1 - right)), round(height * (1 - bottom)))
        )
    return jpeg_of(image, draw.randint(50, 95))


def class_folders(root: Path, classes: tuple[str, ...] = ("awe", "fear"), each: int = 4) -> Path:
    """`<class>/<n>.jpg`, every image another one."""
    for i, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for j in range(each):
            (root / name / f"{j}.jpg").write_bytes(jpeg_of(draw_image(100 * i + j)))
    return root


def sample_of(path: Path, **known: object) -> Sample:
    """A sample of a file, its name as its key."""
    return Sample(key=path.name, image=ImageFile(path), **known)  # type: ignore[arg-type]
