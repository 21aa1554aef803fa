"""Previews of images for the pages, and attention checks."""

import asyncio
import errno
import logging
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from anyio import CapacityLimiter, to_thread
from fastapi import HTTPException
from fastapi.responses import Response, StreamingResponse
from PIL import Image, ImageDraw
from sqlalchemy import select
from starlette.types import Receive, Scope, Send

from uniemox.errors import DataError, ImageError
from uniemox.io import MAX_BYTES, DecoderPool, MinSides, encode_image, fitted, open_regular, read_limited, write_file
from uniemox_curate import tables as t
from uniemox_curate.decisions import taken_down
from uniemox_curate.project import Project

# Longest side and JPEG quality of previews.
MAX_SIDE_PX = 1024
QUALITY = 85
# Width and height of attention checks.
CHECK_PX = (800, 600)
# Decoding an image of 100 megapixels takes up to 1.6 GB.
PREVIEWS_AT_ONCE = 2
# Time until an unreadable image is tried again.
RETRY_S = 60
IMAGE_HEADERS = {"Cache-Control": "private, max-age=86400, immutable"}
PIECE_BYTES = 64 * 1024
"""Bytes that are read at a time from a preview's file."""
MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL, errno.EFBIG)
"""Errors of files that are missing, or can never be shown: pipes, and files that are too large."""
logger = logging.getLogger("uniemox_curate")
# Logs each problem once.
_warn = lru_cache(logger.warning)


def preview_response(preview: BinaryIO | bytes | None) -> Response:
    """Return a response with a preview.

    Args:
        preview: Result of `Previews.of`.

    Raises:
        HTTPException: With status 404 if there is none.
    """
    if preview is None:
        raise HTTPException(404, "this image does not exist or can't be shown")
    if isinstance(preview, bytes):
        return Response(preview, media_type="image/jpeg", headers=IMAGE_HEADERS)
    return _FileResponse(preview)


class _FileResponse(StreamingResponse):
    """Response with an open JPEG. It is read piece by piece, because thousands may wait for their clients."""

    def __init__(self, file: BinaryIO) -> None:
        size = {"Content-Length": str(os.fstat(file.fileno()).st_size)}
        super().__init__(_pieces(file), media_type="image/jpeg", headers=IMAGE_HEADERS | size)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The file is also closed when the client has gone.
        with self._file:
            await super().__call__(scope, receive, send)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await to_thread.run_sync(file.read, PIECE_BYTES):
        yield piece


class Previews:
    """Previews of a project's images: JPEGs of bounded size without the file's metadata, made once.

    Close it at the end, because it holds processes.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        # Own threads, because decoding would block those that all requests share.
        self._turns = CapacityLimiter(PREVIEWS_AT_ONCE)
        self._turn_of: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._retry_at: dict[Path, float] = {}
        self._decoders = DecoderPool(PREVIEWS_AT_ONCE)

    def close(self) -> None:
        """End the decoding processes."""
        self._decoders.close()

    async def of(self, image: int, person: int) -> BinaryIO | bytes | None:
        """Return an image's JPEG, longest side at most 1024 px, or its open file; None if missing or unreadable.

        It has no metadata: titles or search words would bias annotators. One person's previews are made one by one.

        Args:
            image: Number of the image.
            person: Number of the person who asks.

        Raises:
            HTTPException: With status 503 if it can't be read now.
        """
        row = await to_thread.run_sync(self._row, image)
        if row is None:
            return None
        try:
            path = self.project.preview_path(row.sha256)
            if not os.path.exists(path):
                async with self._turn_of[person]:
                    preview = await to_thread.run_sync(self._make, row, path, limiter=self._turns)
                if preview is not None:
                    return preview
        except DataError as error:
            # A link leads out of the project.
            raise _unavailable(str(error)) from error
        return await to_thread.run_sync(_open_preview, path)

    def _row(self, image: int) -> Any:
        images = t.images.c
        query = select(images.id, images.sha256, images.format).where(images.id == image)
        return next(iter(self.project.rows(query.where(images.id.not_in(taken_down())))), None)

    def _make(self, row: Any, path: Path) -> bytes | None:
        """Write a preview, and return it if it can't be saved; None if it is saved, or can't be made or shown."""
        if os.path.exists(path) or time.monotonic() < self._retry_at.get(path, 0):
            return None
        image = self.project.image_path(row.sha256, row.format)
        preview = _make_preview(image, self._decoders)
        if preview is None:
            self._retry_at[path] = time.monotonic() + RETRY_S
            return None
        # On a full disk, the preview is sent without being saved.
        with suppress(DataError):
            write_file(path, preview)
        # A takedown that began meanwhile is in the database, and may have deleted files before this one was written.
        may_be_shown = False
        try:
            may_be_shown = self._row(row.id) is not None
        finally:
            if not may_be_shown:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    _check_missing(error)
        if os.path.exists(path) or not may_be_shown:
            return None
        return preview


def _open_preview(path: Path) -> BinaryIO | None:
    """Open a preview's file; None if it is missing, a link, or too large."""
    try:
        file = open_regular(path)
    except OSError as error:
        _check_missing(error)
        return None
    if not path.is_symlink() and os.fstat(file.fileno()).st_size <= MAX_BYTES:
        return file
    file.close()
    return None


def _make_preview(path: Path, decoders: DecoderPool) -> bytes | None:
    """Return an image as a JPEG of bounded size without metadata; None if it is missing or unreadable.

    Raises:
        HTTPException: With status 503 if it can't be read now.
    """
    try:
        image, _ = decoders.decode(read_limited(path, MAX_BYTES), "image", shrink=MinSides(long_px=MAX_SIDE_PX))
    except ImageError:
        return None
    # RuntimeError: the decoder does not start.
    except (OSError, RuntimeError) as error:
        if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            raise _unavailable(f"{path.parent} is missing") from error
        _check_missing(error)
        return None
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    return encode_image(image, "JPEG", quality=QUALITY)


def _check_missing(error: OSError | RuntimeError) -> None:
    """Do nothing for the errors in MISSING.

    Raises:
        HTTPException: With status 503 for other errors, such as too many open files.
    """
    if getattr(error, "errno", None) not in MISSING:
        raise _unavailable(str(getattr(error, "strerror", None) or error)) from error


def _unavailable(problem: str) -> HTTPException:
    """Log why images can't be shown, and return the answer to the client."""
    _warn(f"images can't be shown: {problem}")
    return HTTPException(503, "this image can't be read now; try again later")


@lru_cache
def draw_check(label: str) -> bytes:
    """Return the JPEG of an attention check, which asks for a label."""
    image = Image.new("RGB", CHECK_PX, "#f4f1ea")
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 20, CHECK_PX[0] - 21, CHECK_PX[1] - 21), outline="#444444", width=3)
    for text, y, size in (("Are you still looking?", 180, 40), ("Please answer", 270, 40), (label, 350, 72)):
        line, font = fitted(text, size, CHECK_PX[0] - 80)
        draw.text((CHECK_PX[0] / 2, y), line, fill="#222222", font=font, anchor="mm")
    return encode_image(image, "JPEG", quality=QUALITY)
