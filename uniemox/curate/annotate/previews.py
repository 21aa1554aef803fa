"""What the pages show of an image: a JPEG of bounded size without any of the file's metadata, made once."""

import io
import threading
from pathlib import Path

from PIL import Image, ImageDraw
from sqlalchemy import bindparam, select

from uniemox.curate import tables as t
from uniemox.curate.project import Project, write_whole
from uniemox.errors import ImageError
from uniemox.io.decoding.pool import DecoderPool
from uniemox.io.files import read_limited
from uniemox.io.fonts import fitted
from uniemox.io.images import MAX_BYTES, MinSides

MAX_SIDE_PX, QUALITY = 1024, 85
CHECK_PX = (800, 600)
AT_ONCE = 2  # previews made at a time: an image of 100 megapixels takes up to 1.6 GB while it is decoded
_IMAGE = select(t.images.c.sha256, t.images.c.format).where(t.images.c.id == bindparam("picture"))


class Previews:
    """The previews of a project; threads may share it, and wait for each other where one has to be made.

    Close it at the end: it holds processes.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self._turn = threading.BoundedSemaphore(AT_ONCE)
        self._decoders = DecoderPool(AT_ONCE)

    def close(self) -> None:
        """End the processes that decode."""
        self._decoders.close()

    def of(self, image: int) -> bytes | None:
        """An image's JPEG, longest side at most 1024 px; None if it is not there or can't be decoded.

        Titles and search words inside the file would tell annotators what was searched; they are not in it.
        """
        with self.project.store.read() as connection:
            row = connection.execute(_IMAGE, {"picture": image}).first()
        if row is None:
            return None
        path = self.project.folder / "previews" / row.sha256[:2] / f"{row.sha256}.jpg"
        if path.exists():
            return path.read_bytes()
        with self._turn:
            made = _shrunk(self.project.image_path(row.sha256, row.format), self._decoders)
        if made is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, made)
        return made


def _shrunk(path: Path, decoders: DecoderPool) -> bytes | None:
    """The preview of a file; None if it can't be read."""
    try:
        image, _ = decoders.decode(read_limited(path, MAX_BYTES), "image", shrink=MinSides(long_px=MAX_SIDE_PX))
    except (OSError, ImageError):
        return None
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    return _jpeg(image)


def check_image(label: str) -> bytes:
    """The JPEG of an attention check: it says itself which answer is wanted."""
    image = Image.new("RGB", CHECK_PX, "#f4f1ea")
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 20, CHECK_PX[0] - 21, CHECK_PX[1] - 21), outline="#444444", width=3)
    for text, y, size in (("Are you still looking?", 180, 40), ("Please answer", 270, 40), (label, 350, 72)):
        line, font = fitted(text, size, CHECK_PX[0] - 80)
        draw.text((CHECK_PX[0] / 2, y), line, fill="#222222", font=font, anchor="mm")
    return _jpeg(image)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
