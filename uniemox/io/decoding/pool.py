"""Images of strangers decoded in processes of their own, which are ended if a file takes too long or too much memory.

The same code decodes as in this process (images.py), so the pixels are the same; a process that had to be ended is
replaced. Whole folders, uploads and downloads are decoded here; a single file that somebody names is decoded in this
process, within the limits of image_limits.py, unless its header can't be trusted (AVIF).
"""

import threading
import time
from collections.abc import Callable
from queue import LifoQueue
from types import TracebackType
from typing import Protocol, Self

from PIL import Image

from uniemox.errors import ImageError
from uniemox.io.decoding.child import Child, Decoded, EndedError
from uniemox.io.images import MinSides, count_frames, open_image
from uniemox.io.images import decode as decode_here

WAIT_S = 30.0
"""For one file, however busy the machine is."""
STOPPED = "not decoded: the work was stopped"
_WATCH_S = 0.05  # between two looks at the clock


class Decoders(Protocol):
    """Something that decodes files."""

    def decode(self, data: bytes, name: str, *, shrink: MinSides | None = None) -> tuple[Image.Image, tuple[int, int]]:
        """As `images.decode`."""


class DecoderPool:
    """Up to so many processes that decode, started when they are needed. Threads may share it; close it at the end.

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
        """As `images.decode`. Raises ImageError also for a file that takes too long or too much memory."""
        decoded = self.look(data, name, shrink=shrink)
        return decoded.image, decoded.full

    def look(self, data: bytes, name: str, *, shrink: MinSides | None = None, counts_frames: bool = False) -> Decoded:
        """The same, with what the file says of itself."""
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
    """As `images.decode`, in this process unless only the codec knows how large the image is (AVIF; HEIC too)."""
    if data[4:8] == b"ftyp":
        with DecoderPool(1) as pool:
            return pool.decode(data, name, shrink=shrink)
    return decode_here(data, name, shrink=shrink)


def look_here(data: bytes, name: str, *, shrink: MinSides | None = None, counts_frames: bool = False) -> Decoded:
    """As `DecoderPool.look`, in this process."""
    header = open_image(data, name)
    image, full = decode_here(data, name, shrink=shrink)
    frames = count_frames(header, name) if counts_frames else 0
    return Decoded(image, full, format=str(header.format), mode=header.mode, frames=frames)


Decode = Callable[..., tuple[Image.Image, tuple[int, int]]]
"""(data, name, shrink=) as `images.decode` and `DecoderPool.decode` take them."""
