"""Processes that decode untrusted files within limits of time and memory."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from queue import LifoQueue
from typing import Any, BinaryIO, Protocol

from PIL import Image

from uniemox.errors import ImageError, ShortageError, UnexpectedImageError
from uniemox.io.borders import logger, shorten
from uniemox.io.decoding import process as decoder_process
from uniemox.io.decoding.process import ANSWER, BUG, DONE, IMAGE, QUESTION, READY, REFUSED, SHARED
from uniemox.io.decoding.shared import NONE, make_shared, map_shared
from uniemox.io.images import MinSides, count_frames, open_image
from uniemox.io.images import decode as decode_here
from uniemox.io.raw_preview import is_raw
from uniemox.io.shortage import refuse_shortage
from uniemox.io.sized_image import SizedImage

CPU_S = 5
"""Maximum processor time for one file, s. 100 megapixels take 1 to 3 s in every format."""
START_S = 60.0
"""Maximum time for a process to start, s."""
# In a process group of its own, a decoder does not get the parent's Ctrl-C.
_OWN_GROUP: dict[str, Any] = {} if sys.platform == "win32" else {"process_group": 0}
# Address space that libraries reserve counts as used memory, so they reserve little.
_MALLOC = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded image and the information in its file."""

    image: Image.Image
    """Upright image, RGB."""
    full_size: tuple[int, int]
    """Upright width and height of the file's image, px."""
    format: str
    mode: str
    """Mode of the file's pixels, by Pillow's name."""
    frames: int
    """Number of frames; 0: not counted."""


class EndedError(Exception):
    """Raised when a process has ended in the middle of a file."""

    def __init__(self, reason: str, *, is_the_files_fault: bool) -> None:
        super().__init__(reason)
        self.is_the_files_fault = is_the_files_fault


def process_settings() -> dict[str, Any]:
    """Return arguments of `subprocess.Popen` for a decoding process: same imports, its own group, little memory."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return {"env": os.environ | _MALLOC | {"PYTHONPATH": path}, **_OWN_GROUP}


class Child:
    """One decoding process."""

    def __init__(self) -> None:
        # With -P, Python imports nothing from the working folder.
        shared = make_shared()
        command = [sys.executable, "-P", "-m", decoder_process.__name__, str(CPU_S), str(shared)]
        handles = () if shared == NONE else (shared,)
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=handles, **process_settings()
            )
        except BaseException:
            for handle in handles:
                os.close(handle)
            raise
        self._shared = map_shared(shared, is_writer=False)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._questions: BinaryIO = self.process.stdin  # type: ignore[assignment]
        self._answers: BinaryIO = self.process.stdout  # type: ignore[assignment]
        self.deadline = time.monotonic() + START_S
        self.is_ready = False
        self.is_idle = False
        self.is_late = False

    def wait_until_ready(self) -> None:
        """Wait until it has started.

        Raises:
            ShortageError: If it does not start.
        """
        if self.is_ready:
            return
        try:
            status, _ = ANSWER.unpack(self._read(ANSWER.size))
        except EOFError:
            raise ShortageError(
                f"the process that decodes images ({sys.executable} -m {decoder_process.__name__}) does not start: it "
                "has too little memory, or may start no threads (ulimit -v, ulimit -u, a container's limits)"
            ) from None
        assert status == READY
        self.is_ready = True
        self._is_done()

    def ask(self, data: bytes, name: str, shrink: MinSides | None, *, counts_frames: bool, wait_s: float) -> Decoded:
        """Decode a file. After an error, the process can be used again if `is_idle`.

        Args:
            data: Bytes of the file.
            name: The file's name, for messages.
            shrink: Minimum size of the image; None: decode in full.
            counts_frames: True to count the frames, too.
            wait_s: Maximum time.

        Raises:
            ImageError: If the file can't be decoded.
            EndedError: If the process has ended.
        """
        self.is_idle = False
        self.is_late = False
        self.deadline = time.monotonic() + wait_s
        short, long = (-1, -1) if shrink is None else (shrink.short_px, shrink.long_px)
        try:
            self._questions.write(QUESTION.pack(len(data), short, long, counts_frames))
            self._questions.write(data)
            self._questions.flush()
            status, size = ANSWER.unpack(self._read(ANSWER.size))
            if status in (DONE, SHARED):
                decoded = self._read_image(is_shared=status == SHARED)
                self._is_done()
                return decoded
            text = self._read(size).decode()
        except (EOFError, OSError, ValueError):  # ValueError: it was closed meanwhile
            raise self._ended_error(wait_s) from None
        self._is_done()
        if status == BUG:
            message, _, trace = text.partition("\n")
            logger.info("the decoder's process failed: %s", trace)
            raise UnexpectedImageError(message.replace("{name}", shorten(name)))
        assert status == REFUSED
        raise ImageError(text.replace("{name}", name))

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self._questions, self._answers):
            # OSError: unwritten data is lost. ValueError: the thread that closes the pool has closed it meanwhile.
            with suppress(OSError, ValueError):
                pipe.close()
        if self._shared is not None:
            # BufferError: another thread copies pixels; the memory is freed after that.
            with suppress(BufferError):
                self._shared.close()

    def _is_done(self) -> None:
        self.is_idle = True
        self.deadline = float("inf")

    def _read(self, size: int) -> bytes:
        data = self._answers.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def _read_image(self, *, is_shared: bool) -> Decoded:
        width, height, full_width, full_height, frames, fmt, mode = IMAGE.unpack(self._read(IMAGE.size))
        if is_shared:
            image = self._shared_image(width, height)
        else:
            image = Image.new("RGB", (width, height))
            rows = max(1, decoder_process.STRIP_BYTES // (3 * width))
            for y in range(0, height, rows):
                strip = width, min(rows, height - y)
                image.paste(Image.frombuffer("RGB", strip, self._read(3 * strip[0] * strip[1])), (0, y))
        texts = [text.rstrip(b"\0").decode() for text in (fmt, mode)]
        return Decoded(image, (full_width, full_height), format=texts[0], mode=texts[1], frames=frames)

    def _shared_image(self, width: int, height: int) -> Image.Image:
        """Return a copy of the pixels in shared memory, which the next image overwrites."""
        size = 3 * width * height
        if self._shared is None or size > len(self._shared):
            raise EOFError
        with memoryview(self._shared)[:size] as pixels:
            return Image.frombytes("RGB", (width, height), pixels)

    def _ended_error(self, wait_s: float) -> EndedError:
        """Wait for the end of the process, and return an error with its reason."""
        code = self.process.wait()
        remedy = "save it again, or remove it"
        if self.is_late:
            return EndedError(f"decoding took longer than {wait_s:g} s; {remedy}", is_the_files_fault=True)
        if code == -getattr(signal, "SIGXCPU", 0):
            reason = f"decoding took more than {CPU_S} s of processor time; {remedy}"
            return EndedError(reason, is_the_files_fault=True)
        return EndedError(f"its decoder ended (exit code {code}); {remedy}", is_the_files_fault=False)


WAIT_S = 30.0
"""Maximum time for one file, s, even on a busy machine."""
STOPPED = "not decoded: the work was stopped"
# Time between two checks of the clock.
_WATCH_S = 0.05


class Decoders(Protocol):
    """Decodes files."""

    def decode(self, data: bytes, name: str, *, shrink: MinSides | None = None) -> SizedImage:
        """Decode as `images.decode`."""


class DecoderPool:
    """Pool of decoding processes, started on demand. Threads may share it; close it at the end.

    Args:
        workers: Maximum number of processes.
        wait_s: Time for one file, s, after which its process is ended.
    """

    def __init__(self, workers: int, *, wait_s: float = WAIT_S) -> None:
        self.workers = workers
        self.wait_s = wait_s
        self._free: LifoQueue[Child | None] = LifoQueue()
        for _ in range(workers):
            self._free.put(None)
        self._lock = threading.Lock()
        self._children: set[Child] = set()
        self._closed = threading.Event()

    def start_all(self) -> None:
        """Start the processes now, in parallel, so that the first files don't wait for it."""
        taken: list[Child] = []
        try:
            while len(taken) < self.workers:
                taken.append(self._take(is_ready=False))
            for child in taken:
                child.wait_until_ready()
        finally:
            # Also after an error, so that none of their places is lost.
            for child in taken:
                self._give_back(child)

    def decode(self, data: bytes, name: str = "image", *, shrink: MinSides | None = None) -> SizedImage:
        """Decode as `images.decode`.

        Args:
            data: Bytes of the file.
            name: The file's name, for messages.
            shrink: Minimum size of the image; None: decode in full.

        Raises:
            ImageError: If the file can't be decoded, also because it takes too long or too much memory.
        """
        decoded = self.look(data, name, shrink=shrink)
        return SizedImage(decoded.image, decoded.full_size)

    def look(self, data: bytes, name: str, *, shrink: MinSides | None = None, counts_frames: bool = False) -> Decoded:
        """Decode as `decode`; also return the file's own information.

        Args:
            data: Bytes of the file.
            name: The file's name, for messages.
            shrink: Minimum size of the image; None: decode in full.
            counts_frames: True to count the frames, which reads the whole file.
        """
        # A process may have been killed for another reason, such as lack of memory, so a second one tries.
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
        """End all processes, including busy ones, whose callers get an ImageError."""
        self._closed.set()
        with self._lock:
            children = list(self._children)
        for child in children:
            self._end(child)

    def _take(self, *, is_ready: bool = True) -> Child:
        """Take a process, started if there is none.

        Raises:
            ImageError: If the pool is closed.
            ShortageError: If the machine allows no more processes or threads.
        """
        child = self._free.get()
        # Another program may have ended an idle process.
        if child is not None and child.process.poll() is not None:
            self._end(child)
            child = None
        try:
            child = child or self._start()
            if is_ready:
                child.wait_until_ready()
        # ValueError: another thread has closed the pool, and with it the process's pipes.
        except (ImageError, ShortageError, RuntimeError, OSError, ValueError) as error:
            self._give_back(child)
            if self._closed.is_set():
                raise ImageError(STOPPED) from error
            refuse_shortage(error)
            raise
        return child

    def _give_back(self, child: Child | None) -> None:
        """Return a process to the pool, or free its place if it has ended."""
        if child is not None and not child.is_idle:
            self._end(child)
            child = None
        self._free.put(child)

    def _start(self) -> Child:
        with self._lock:
            if self._closed.is_set():
                raise ImageError(STOPPED)
            child = Child()
            is_first = not self._children
            self._children.add(child)
            if is_first:
                threading.Thread(target=self._watch, name="decode-deadlines", daemon=True).start()
        return child

    def _end(self, child: Child) -> None:
        with self._lock:
            self._children.discard(child)
        child.end()

    def _watch(self) -> None:
        """Kill processes that are over their time, while there are any."""
        while not self._closed.wait(_WATCH_S):
            with self._lock:
                if not self._children:
                    return
                late = [child for child in self._children if child.deadline < time.monotonic()]
            for child in late:
                child.is_late = True
                child.process.kill()


def decode_one(data: bytes, name: str = "image", *, shrink: MinSides | None = None) -> SizedImage:
    """Decode as `images.decode` does, in this process unless only the codec knows the size (AVIF, HEIC, raw)."""
    if data[4:8] == b"ftyp" or is_raw(data):
        with closing(DecoderPool(1)) as pool:
            return pool.decode(data, name, shrink=shrink)
    return decode_here(data, name, shrink=shrink)


def look_here(data: bytes, name: str, *, shrink: MinSides | None = None, counts_frames: bool = False) -> Decoded:
    """Decode as `DecoderPool.look` does, in this process."""
    header = open_image(data, name)
    image, full = decode_here(data, name, shrink=shrink)
    frames = count_frames(header, name) if counts_frames else 0
    return Decoded(image, full, format=str(header.format), mode=header.mode, frames=frames)


Decode = Callable[..., SizedImage]
"""Function (data, name, shrink=) like `images.decode` and `DecoderPool.decode`."""
