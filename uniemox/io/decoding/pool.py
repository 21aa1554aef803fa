"""Processes that decode files of strangers within limits of time and memory."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import LifoQueue
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from PIL import Image

from uniemox.errors import ImageError
from uniemox.io.decoding import process as decoder_process
from uniemox.io.decoding.process import ANSWER, BUG, DONE, IMAGE, QUESTION, READY, REFUSED
from uniemox.io.images import MinSides, count_frames, open_image
from uniemox.io.images import decode as decode_here

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
    """Arguments of `subprocess.Popen` for a decoding process: the same imports, a group of its own, little memory."""
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


WAIT_S = 30.0
"""For one file, however busy the machine is."""
STOPPED = "not decoded: the work was stopped"
_WATCH_S = 0.05  # between two looks at the clock


class Decoders(Protocol):
    """Something that decodes files."""

    def decode(self, data: bytes, name: str, *, shrink: MinSides | None = None) -> tuple[Image.Image, tuple[int, int]]:
        """Decode as `images.decode`."""


class DecoderPool:
    """A limited number of decoding processes, started when they are needed. Threads may share it; close it at the end.

    workers: processes.  wait_s: for one file, after which its process is ended.
    """

    def __init__(self, workers: int, *, wait_s: float = WAIT_S) -> None:
        self.workers, self.wait_s = workers, wait_s
        self._free: LifoQueue[Child | None] = LifoQueue()
        for _ in range(workers):
            self._free.put(None)
        self._lock = threading.Lock()
        self._children: set[Child] = set()
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start_all(self) -> None:
        """Start the processes now, side by side, so that the first files don't wait for it."""
        for child in [self._take(is_ready=False) for _ in range(self.workers)]:
            child.wait_until_ready()
            self._give_back(child)

    def decode(
        self, data: bytes, name: str = "image", *, shrink: MinSides | None = None
    ) -> tuple[Image.Image, tuple[int, int]]:
        """Decode as `images.decode`. Raises ImageError also for a file that takes too long or too much memory."""
        decoded = self.look(data, name, shrink=shrink)
        return decoded.image, decoded.full

    def look(self, data: bytes, name: str, *, shrink: MinSides | None = None, counts_frames: bool = False) -> Decoded:
        """The same, with the file's own information."""
        for is_last in (False, True):
            child = self._take()
            try:
                return child.ask(data, name, shrink, counts_frames=counts_frames, wait_s=self.wait_s)
            except EndedError as error:
                if is_last or error.is_the_files_fault or self._closed.is_set():
                    raise ImageError(f"{name}: {error}") from None
            finally:
                self._give_back(child)
        raise AssertionError("the second try returns or raises")

    def close(self) -> None:
        """End all processes, those that decode as well: whoever waits for them gets an ImageError."""
        self._closed.set()
        with self._lock:
            children = list(self._children)
        for child in children:
            self._end(child)

    def _take(self, *, is_ready: bool = True) -> "Child":
        """A process, started if there is none. Raises ImageError once the pool is closed."""
        child = self._free.get()
        if child is not None and child.process.poll() is not None:  # something else has ended it meanwhile
            self._end(child)
            child = None
        try:
            child = child or self._start()
            if is_ready:
                child.wait_until_ready()
        except (ImageError, RuntimeError, OSError) as error:
            self._give_back(child)
            if self._closed.is_set():
                raise ImageError(STOPPED) from error
            raise
        return child

    def _give_back(self, child: "Child | None") -> None:
        """It is free, or it is ended and its place is."""
        if child is not None and not child.is_idle:
            self._end(child)
            child = None
        self._free.put(child)

    def _start(self) -> "Child":
        with self._lock:
            if self._closed.is_set():
                raise ImageError(STOPPED)
            child = Child()
            if not self._children:
                threading.Thread(target=self._watch, name="decode-deadlines", daemon=True).start()
            self._children.add(child)
        return child

    def _end(self, child: "Child") -> None:
        with self._lock:
            self._children.discard(child)
        child.end()

    def _watch(self) -> None:
        """Kill what is over its time, while there is any process."""
        while not self._closed.wait(_WATCH_S):
            with self._lock:
                if not self._children:
                    return
                late = [child for child in self._children if child.deadline < time.monotonic()]
            for child in late:
                child.is_late = True
                child.process.kill()


def decode_one(
    data: bytes, name: str = "image", *, shrink: MinSides | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode as `images.decode` does, in this process unless only the codec knows the size (AVIF; HEIC too)."""
    if data[4:8] == b"ftyp":
        with DecoderPool(1) as pool:
            return pool.decode(data, name, shrink=shrink)
    return decode_here(data, name, shrink=shrink)


def look_here(data: bytes, name: str, *, shrink: MinSides | None = None, counts_frames: bool = False) -> Decoded:
    """Do what `DecoderPool.look` does, in this process."""
    header = open_image(data, name)
    image, full = decode_here(data, name, shrink=shrink)
    frames = count_frames(header, name) if counts_frames else 0
    return Decoded(image, full, format=str(header.format), mode=header.mode, frames=frames)


Decode = Callable[..., tuple[Image.Image, tuple[int, int]]]
"""(data, name, shrink=) as `images.decode` and `DecoderPool.decode` take them."""
