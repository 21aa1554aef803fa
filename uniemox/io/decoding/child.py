"""One process that decodes, as its owner sees it: started, asked for one file after the other, ended."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image

from uniemox.errors import ImageError
from uniemox.io.decoding import process as decoder_process
from uniemox.io.decoding.process import ANSWER, BUG, DONE, IMAGE, QUESTION, READY, REFUSED
from uniemox.io.images import MinSides

CPU_S = 5
"""Of processor time for one file. 100 megapixels take 1 to 3 s in every format."""
START_S = 60.0
"""For a process to start."""
_OWN_GROUP: dict[str, Any] = {} if sys.platform == "win32" else {"process_group": 0}  # Ctrl-C is for the parent
_MALLOC = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}  # address space that is reserved counts as taken


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image and what its file said of it."""

    image: Image.Image
    """Upright, RGB."""
    full: tuple[int, int]
    """Upright width and height of the file's image, px."""
    format: str
    mode: str
    """Mode of the file's pixels, by Pillow's name."""
    frames: int
    """0: not counted."""


class EndedError(Exception):
    """A process has ended in the middle of a file."""

    def __init__(self, why: str, *, is_the_files_fault: bool) -> None:
        super().__init__(why)
        self.is_the_files_fault = is_the_files_fault


def process_settings() -> dict[str, Any]:
    """Of `subprocess.Popen`, for a process that decodes: imports as here, a group of its own, little memory."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return {"env": os.environ | _MALLOC | {"PYTHONPATH": path}, **_OWN_GROUP}


class Child:
    """One process."""

    def __init__(self) -> None:
        words = [sys.executable, "-P", "-m", decoder_process.__name__, str(CPU_S)]
        self.process = subprocess.Popen(  # -P: nothing is imported from the working folder
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **process_settings(),
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to: BinaryIO = self.process.stdin  # type: ignore[assignment]
        self._from: BinaryIO = self.process.stdout  # type: ignore[assignment]
        self.deadline = time.monotonic() + START_S
        self.is_ready = self.is_idle = self.is_late = False

    def wait_until_ready(self) -> None:
        """Raises RuntimeError if it can't start."""
        if self.is_ready:
            return
        try:
            status, _ = ANSWER.unpack(self._read(ANSWER.size))
        except EOFError:
            raise RuntimeError(f"{sys.executable} -m {decoder_process.__name__} does not start") from None
        assert status == READY
        self.is_ready = True
        self._is_done()

    def ask(self, data: bytes, name: str, shrink: MinSides | None, *, counts_frames: bool, wait_s: float) -> Decoded:
        """Raises ImageError, RuntimeError for a bug in the process, EndedError; it is of use if `is_idle` then."""
        self.is_idle, self.is_late, self.deadline = False, False, time.monotonic() + wait_s
        short, long = (-1, -1) if shrink is None else (shrink.short_px, shrink.long_px)
        try:
            self._to.write(QUESTION.pack(len(data), short, long, counts_frames))
            self._to.write(data)
            self._to.flush()
            status, size = ANSWER.unpack(self._read(ANSWER.size))
            if status == DONE:
                decoded = self._read_image()
                self._is_done()
                return decoded
            text = self._read(size).decode()
        except (EOFError, OSError, ValueError):  # ValueError: closed meanwhile
            raise self._why_it_ended(wait_s) from None
        self._is_done()
        if status == BUG:
            raise RuntimeError(f"{name}: the decoder's process failed:\n{text}")
        assert status == REFUSED
        raise ImageError(text.replace("{name}", name))

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self._to, self._from):
            try:
                pipe.close()
            except OSError:  # what was not written can't be any more
                continue

    def _is_done(self) -> None:
        self.is_idle, self.deadline = True, float("inf")

    def _read(self, size: int) -> bytes:
        data = self._from.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def _read_image(self) -> Decoded:
        width, height, full_width, full_height, frames, fmt, mode = IMAGE.unpack(self._read(IMAGE.size))
        image = Image.new("RGB", (width, height))
        rows = max(1, decoder_process.STRIP_BYTES // (3 * width))
        for y in range(0, height, rows):
            strip = width, min(rows, height - y)
            image.paste(Image.frombuffer("RGB", strip, self._read(3 * strip[0] * strip[1])), (0, y))
        told = [text.rstrip(b"\0").decode() for text in (fmt, mode)]
        return Decoded(image, (full_width, full_height), format=told[0], mode=told[1], frames=frames)

    def _why_it_ended(self, wait_s: float) -> EndedError:
        code, then = self.process.wait(), "save it again, or remove it"
        if self.is_late:
            return EndedError(f"decoding took longer than {wait_s:g} s; {then}", is_the_files_fault=True)
        if code == -getattr(signal, "SIGXCPU", 0):
            why = f"decoding took more than {CPU_S} s of processor time; {then}"
            return EndedError(why, is_the_files_fault=True)
        return EndedError(f"its decoder ended (exit code {code}); {then}", is_the_files_fault=False)
