"""Program of a decoder process: python -m uniemox.io.decoding.process SECONDS FILE, started by decoding/pool.py.

It reads files from standard input and writes pixels to standard output, until its input ends.
  question  QUESTION: bytes of the file, short_px and long_px of `images.MinSides` (-1: decode in full), whether to
            count frames; then the file
  answer    ANSWER: a status, bytes that follow. DONE: an IMAGE, format and mode as text, then strips of RGB pixels.
            SHARED: an IMAGE; the pixels are in the shared memory of FILE, see shared.py, until the next question.
            REFUSED: the reason, as text. BUG: the message of an unexpected error in one line, then its traceback
"""

import mmap
import os
import select
import signal
import struct
import sys
import threading
import traceback
import warnings
from typing import BinaryIO

from uniemox.errors import ImageError, UnexpectedImageError
from uniemox.io.borders import image_border
from uniemox.io.decoding.shared import map_shared
from uniemox.io.drive import open_standard_streams
from uniemox.io.image_limits import webp_pixels
from uniemox.io.images import MAX_PIXELS, MinSides, count_frames, decode_opened, load_plugins, open_image
from uniemox.io.limits import limit_cpu, limit_memory
from uniemox.io.raw_preview import LIBRARY_BYTES, is_raw

QUESTION = struct.Struct("<Qqq?")
ANSWER = struct.Struct("<BQ")
IMAGE = struct.Struct("<IIIII16s16s")
"""Width and height of the pixels, of the full image, number of frames (0: not counted), format, mode."""
READY, DONE, REFUSED, BUG, SHARED = range(5)
# Pillow packs strips of this size in a fifth of the time of 1 MiB, whose memory is new for each.
STRIP_BYTES = 2**18
BASE_BYTES = 96 * 2**20
"""Memory allowed for any file, in addition to that for its size and pixels."""
BYTES_A_FILE_BYTE = 4
BYTES_A_PIXEL = 20
"""Memory allowed per pixel; the maximum of all formats is 17 (WebP with transparency)."""


def main() -> None:
    """Decode files until standard input ends. Arguments: processor time per file, s; number of the shared memory."""
    # A copy of stream 0 or 1 must not get the number of a closed stream, which is replaced below.
    open_standard_streams()
    cpu_s = int(sys.argv[1])
    shared = map_shared(int(sys.argv[2]), is_writer=True)
    # A service manager's SIGTERM reaches all processes. Accepted files are still decoded; the end of input ends this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    questions = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    _end_with_parent()
    warnings.simplefilter("ignore")
    load_plugins()
    # Threads of AVIF's decoder need memory that no header explains.
    if avif := sys.modules.get("PIL.AvifImagePlugin"):
        avif.DEFAULT_MAX_THREADS = 1  # type: ignore[attr-defined]
    # libtiff and libjpeg print messages about broken files, which would mix with the answers.
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    _send(answers, READY, b"")
    while len(head := questions.read(QUESTION.size)) == QUESTION.size:
        size, short_px, long_px, counts_frames = QUESTION.unpack(head)
        data = questions.read(size)
        if len(data) < size:
            return
        limit_cpu(cpu_s)
        shrink = None if short_px < 0 else MinSides(short_px=short_px, long_px=long_px)
        try:
            with image_border("{name}"):
                _answer(answers, data, shrink, shared, counts_frames=counts_frames)
        except UnexpectedImageError as error:
            _send(answers, BUG, f"{error}\n{traceback.format_exc()}".encode(errors="backslashreplace"))
        except ImageError as error:
            _send(answers, REFUSED, str(error).encode(errors="backslashreplace"))


def _answer(
    answers: BinaryIO, data: bytes, shrink: MinSides | None, shared: mmap.mmap | None, *, counts_frames: bool
) -> None:
    """Decode a file and send its pixels: in shared memory, or in strips.

    Args:
        answers: Standard output.
        data: Bytes of the file.
        shrink: Minimum size of the image; None: decode in full.
        shared: Memory for the pixels; None: there is none.
        counts_frames: True to count the frames, too.

    Raises:
        ImageError: If the file can't be decoded; its message calls the file {name}, which the parent replaces.
    """
    # The size is not known before the header is read, so the limit is set twice. Pillow allocates the pixels of a WebP
    # when it opens the file.
    base = BASE_BYTES + BYTES_A_FILE_BYTE * len(data) + (LIBRARY_BYTES if is_raw(data) else 0)
    limit_memory(base + BYTES_A_PIXEL * min(webp_pixels(data), MAX_PIXELS))
    header = open_image(data, "{name}")
    limit_memory(base + BYTES_A_PIXEL * header.width * header.height)
    texts = str(header.format).encode(), header.mode.encode()
    image, full = decode_opened(header, "{name}", shrink=shrink)
    frames = count_frames(open_image(data, "{name}"), "{name}") if counts_frames else 0
    width, height = image.size
    size = 3 * width * height
    about = IMAGE.pack(width, height, *full, frames, *texts)
    rows = max(1, STRIP_BYTES // (3 * width))
    strips = (image.crop((0, y, width, min(y + rows, height))).tobytes() for y in range(0, height, rows))
    if shared is not None and size <= len(shared):
        shared.seek(0)
        for strip in strips:
            shared.write(strip)
        _send(answers, SHARED, about)
        return
    try:
        answers.write(ANSWER.pack(DONE, IMAGE.size + size))
        answers.write(about)
        for strip in strips:
            answers.write(strip)
        answers.flush()
    except MemoryError:
        # Half an answer may be written, and another message would be read as its pixels.
        os._exit(1)


def _send(answers: BinaryIO, status: int, text: bytes) -> None:
    answers.write(ANSWER.pack(status, len(text)) + text)
    answers.flush()


def _end_with_parent() -> None:
    """End when the other end of standard input closes, even while decoding; not on Windows."""
    if not hasattr(select, "poll"):
        return
    poll = select.poll()
    # A hang-up is always reported, so no events are requested.
    poll.register(0, 0)

    def watch() -> None:
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()


if __name__ == "__main__":
    main()
