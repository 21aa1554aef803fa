"""Program of a video's process: python -m uniemox.io.decoding.film PATH SECONDS, started by predict/film.py.

For each sampled time it writes a line of JSON to standard output, then the pixels, RGB. The line has `time_s`, `shot`,
`size` (width and height of the video as players show it) and `shape` (width and height of the pixels). The last line
has `end_s` and `error`, null if the video could be read to its end. An empty line means that it is still working.
"""

import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

from uniemox.io.colour import CICP, frame_to_srgb
from uniemox.io.decoding.film_file import BACK_S, JUMP_S, FilmFile
from uniemox.io.files import open_regular
from uniemox.io.image_headers import code_points_in
from uniemox.io.image_limits import check_memory, webp_pixels
from uniemox.io.images import check_size, scale_transparency, to_rgb
from uniemox.io.limits import limit_cpu, limit_memory

ANIMATIONS = (".gif", ".webp", ".png", ".apng")  # by Pillow
ANIMATION_FORMATS = ("GIF", "WEBP", "PNG")
MAX_ASPECT = 4.0
# maximum size of the pixels sent
SHORT_PX = 720
LONG_PX = 2048
MAX_ANSWERS = 100_000  # 28 hours at one per second
# processor time per frame: a fixed part, and one per second of video
CPU_S = 60
CPU_PER_S = 8
# processor time for all frames: a fixed part, and a second per 10 kB
TOTAL_CPU_S = 600
BYTES_PER_CPU_S = 10_000
MAX_TIME_S = 1e9
MEMORY_BYTES = 3 * 2**30  # in addition to the memory at the start
THREADS = 4  # of a decoder: each one holds frames, so more take more memory
SMALL = (64, 36)  # width and height in px at which frames are compared
# minimum difference at a cut: levels of 255; times the last frames' median
CUT = 20.0
TIMES_MEDIAN = 4.0
SEEN = 25
SHORTEST_S = 0.3  # of a shot
ALIVE_S = 1.0  # seconds between two signs of life
MAX_HELD_S = 600.0
WEBP_HEAD_BYTES = 30
HEAD_BYTES = 2**20  # in which an animated PNG names its colour space
# Only containers are opened, because a playlist (concat, hls, dash, sdp) leads FFmpeg to other files and machines.
CONTAINERS = "mov,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg"
OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}
NEAR_S = 1e-6  # times that are the same
# pictures that a decoder may hold; that it gives late, after a hole
REORDERED = 16
MAX_LATE = 2


class Shown(NamedTuple):
    """Frame of a video."""

    time_s: float
    lasts_s: float
    small: NDArray[np.int16]
    """Grey levels, (36, 64)."""
    size: tuple[int, int]
    pixels: Callable[[], Image.Image]
    """Function that returns the RGB image, upright, scaled down."""


def main() -> None:
    """Write the frames at the requested times."""
    path = Path(sys.argv[1])
    every_s = float(sys.argv[2])
    answers = os.fdopen(os.dup(1), "wb")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)  # libraries print about broken files
    os.dup2(silent, 2)
    limit_memory(MEMORY_BYTES)
    limit_cpu(cpu_s := CPU_S + math.ceil(CPU_PER_S * every_s))
    end_s = 0.0
    error = None
    last_s = time.monotonic()
    count = 0

    def alive() -> None:
        nonlocal last_s
        if time.process_time() > budget_s:
            raise ValueError(f"decoding takes more than {budget_s:,.0f} s of processor time")
        if time.monotonic() > last_s + ALIVE_S:
            answers.write(b"\n")
            answers.flush()
            last_s = time.monotonic()

    def search_on() -> None:
        """Allow more processor time, because the file is read without finding frames in it."""
        limit_cpu(cpu_s)
        alive()

    try:
        budget_s = TOTAL_CPU_S + path.stat().st_size / BYTES_PER_CPU_S
        if path.suffix.lower() in ANIMATIONS:
            frames = _animation(path)
        else:
            frames = _film(path, search_on)
        for end_s, shot, frame in moments(frames, every_s):
            if not abs(end_s) < MAX_TIME_S:
                raise ValueError(f"a frame at {end_s:g} s, after more than 30 years")
            alive()
            if frame is not None:
                if (count := count + 1) > MAX_ANSWERS:
                    raise ValueError(f"more than {MAX_ANSWERS:,} moments; ask for fewer, as with --every 10s")
                image = frame.pixels()
                limit_cpu(cpu_s)
                header = {"time_s": round(end_s, 3), "shot": shot, "size": frame.size, "shape": image.size}
                answers.write(json.dumps(header).encode() + b"\n" + image.tobytes())
                answers.flush()
                last_s = time.monotonic()
    except BrokenPipeError:  # the parent has ended
        return
    except (Exception, MemoryError) as problem:  # noqa: BLE001 - the border: what a broken film does to its decoder
        error = f"{type(problem).__name__}: {problem}"
    answers.write(json.dumps({"end_s": round(end_s, 3), "error": error}).encode() + b"\n")
    answers.flush()


def moments(frames: Iterable[Shown], every_s: float) -> Iterator[tuple[float, int, Shown | None]]:
    """Yield time, shot number and frame for every sampled time; and for every decoded frame its time, and None.

    A frame lasts until the next one, but at most ten minutes.
    """
    cuts = Cuts()
    shot = 1
    count = 0
    before = None
    problems = list[Exception]()
    for frame in chain(_until_error(frames, problems), [None]):
        if before is not None:
            if frame is None:
                next_s = before.time_s + before.lasts_s
            else:
                next_s = frame.time_s
            while count * every_s < min(next_s, before.time_s + MAX_HELD_S) - NEAR_S:
                yield count * every_s, shot, before
                count += 1
            count = max(count, math.ceil((next_s - NEAR_S) / every_s))
        if frame is not None:
            shot += cuts.is_cut(frame)
            before = frame
            yield frame.time_s, shot, None
    if problems:
        raise problems[0]


def _until_error(frames: Iterable[Shown], problems: list[Exception]) -> Iterator[Shown]:
    """Yield frames, and add the error that ends them to `problems`."""
    try:
        yield from frames
    except Exception as problem:  # noqa: BLE001 - it is raised after the last frame's moments
        problems.append(problem)


class Cuts:
    """Detects cuts between shots: frames that differ far more than earlier ones."""

    def __init__(self) -> None:
        self.before: Shown | None = None
        self.differences: deque[float] = deque(maxlen=SEEN)
        self.last_s = -SHORTEST_S

    def is_cut(self, shown: Shown) -> bool:
        """Return True if a shot begins with this frame; frames must come in order."""
        before = self.before
        self.before = shown
        if before is None:
            return False
        difference = float(np.abs(shown.small - before.small).mean())
        if self.differences:
            usual = median(self.differences)
        else:
            usual = 0.0
        is_far = difference > CUT and difference > TIMES_MEDIAN * usual and shown.time_s - self.last_s >= SHORTEST_S
        if is_far:
            self.last_s = shown.time_s
        else:
            self.differences.append(difference)
        return is_far


class _Clock:
    """Tells the time of each frame by its time stamp: the first is at 0, and joined films follow each other."""

    def __init__(self, source: FilmFile, *, is_avi: bool) -> None:
        self._source = source
        self._is_avi = is_avi
        self.count = 0
        """Number of frames so far."""
        self.parts = 0
        """Number of joined films so far."""
        self.stamp_s = math.inf
        """Time stamp of the last frame."""
        self._gap_s = 0.0
        self._shift_s = 0.0
        self._dts = -math.inf
        self._has_fallen = False
        # frame before the last gap; late ones after it
        self._hole_s = math.inf
        self._hole_count = 0
        self._late = 0

    def time_of(self, frame: Any, next_s: float) -> float | None:
        """Return the time of a frame in s; None for one to leave out.  next_s: end of the frame before."""
        # FFmpeg guesses the pts of AVI, in another order
        if self._is_avi:
            stamp = frame.dts
        else:
            stamp = frame.pts
        if stamp is None:
            at_s = math.nan
        else:
            at_s = float(stamp * frame.time_base)
        is_from_hole = self._hole_s < at_s < self.stamp_s - BACK_S and self.count < self._hole_count + REORDERED
        if is_from_hole and self._late < MAX_LATE:  # the decoder had held it; a third one would be a jump in time
            self._late += 1
            return None
        before_s = self.stamp_s
        before_gap_s = self._gap_s
        before_dts = self._dts
        if frame.dts is None:
            self._dts = before_dts
        else:
            self._dts = frame.dts
        if stamp is None:  # the last pictures of AVI; they may be far apart, with empty chunks between them
            if self._is_avi and self.count > 1:
                at_s = before_s + before_gap_s
            else:
                at_s = next_s - self._shift_s
        self.stamp_s = at_s
        self._gap_s = at_s - before_s
        if self._gap_s > BACK_S:
            self._hole_s = before_s
            self._hole_count = self.count
            self._late = 0
        # Where films were joined, dts goes back, too, some frames earlier; with B-frames alone, only pts does.
        self._has_fallen |= self._dts < before_dts
        is_far = self._gap_s > JUMP_S and abs(before_gap_s) < BACK_S
        has_jumped = is_far and before_s < self._source.jump_s < at_s + BACK_S
        if (at_s < before_s and self._has_fallen) or self._gap_s < -BACK_S or has_jumped:  # or the first frame
            self._shift_s = next_s - at_s
            self._has_fallen = False
            self.parts += 1
        self.count += 1
        return at_s + self._shift_s


def _film(path: Path, search_on: Callable[[], None]) -> Iterator[Shown]:
    """Decode frames with PyAV.

    Args:
        search_on: Called again and again while the file is read without finding frames.

    Raises:
        ValueError: After the last one if pictures are missing.
    """
    import av  # noqa: PLC0415 - an extra

    # An open file, not its name, because FFmpeg would take "http:x.mp4" for an address.
    with open_regular(path) as file, av.open(file, "r", metadata_errors="ignore", options=OPTIONS) as container:
        stream: Any = container.streams.best("video")
        if stream is None:
            raise ValueError("there are no pictures in it")
        if stream.codec_context is None:
            raise ValueError("FFmpeg does not know the codec of its pictures")
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = THREADS
        source = FilmFile(path, container, stream, search_on)
        end_s = source.last_end_s()
        codec = stream.codec_context
        is_fixed = stream.sample_aspect_ratio != codec.sample_aspect_ratio  # by the container; others may change
        clock = _Clock(source, is_avi=container.format.name == "avi")
        next_s = 0.0
        last: Shown | None = None
        for frame in source.frames():
            check_size(frame.width, frame.height, "a frame")
            time_s = clock.time_of(frame, next_s)
            if time_s is None:
                continue
            small = frame.reformat(*SMALL, format="gray", threads=1).to_ndarray().astype(np.int16)
            aspect = float((stream if is_fixed else codec).sample_aspect_ratio or 1)  # DVD and HDV are stretched
            if not (1 / MAX_ASPECT <= aspect <= MAX_ASPECT):
                aspect = 1.0
            stretched = max(1, round(frame.width * aspect)), frame.height
            if _turn(frame) % 180:
                size = stretched[::-1]
            else:
                size = stretched
            lasts_s = float((frame.duration or 0) * (frame.time_base or 0)) or float(1 / (stream.average_rate or 25))
            last = Shown(time_s, lasts_s, small, size, partial(_of_film, frame, stretched))
            next_s = time_s + lasts_s
            yield last
        if problem := source.problem(clock.count, next_s):
            raise ValueError(problem)
        if last is None:
            raise ValueError("not one picture could be read")
        lasts_s = end_s - clock.stamp_s
        if lasts_s > last.lasts_s + BACK_S and clock.parts == 1 and source.is_whole(clock.count):
            yield last._replace(lasts_s=lasts_s)  # again, because its packet did not say how long it lasts


def _of_film(frame: Any, size: tuple[int, int]) -> Image.Image:
    image = frame.reformat(*_sent_size(*size), format="rgb24", threads=1).to_image()
    image = frame_to_srgb(image, int(frame.color_primaries), int(frame.color_trc))
    if _is_mirrored(frame):
        image = ImageOps.flip(image)
    if _turn(frame):
        return image.rotate(_turn(frame), expand=True)
    return image


def _turn(frame: Any) -> int:
    """Return by how many degrees a frame is to be turned; 0 if its matrix says no quarter turns."""
    return 0 if frame.rotation % 90 else frame.rotation


def _is_mirrored(frame: Any) -> bool:
    """Return True if a frame is to be mirrored at its horizontal axis, before it is turned."""
    from av.sidedata.sidedata import SideDataContainer  # noqa: PLC0415 - an extra

    try:  # frame.side_data and the frame would hold each other, with memory and threads, until garbage is collected
        matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg] # its stub lacks it
    except ValueError:  # PyAV does not know all kinds of side data, such as that of EXIF
        return False
    if matrix is None:
        return False
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).astype(float)
    return bool(a * d < b * c)


def _animation(path: Path) -> Iterator[Shown]:
    """Decode frames with Pillow: GIF, WebP, PNG."""
    size = path.stat().st_size
    with open_regular(path) as content:
        pixels = webp_pixels(content.read(WEBP_HEAD_BYTES))  # Pillow takes their memory when it opens the file
        check_memory(size, "WEBP", pixels, 1, "the animation")
        content.seek(0)
        code_points = code_points_in(content.read(HEAD_BYTES))
        content.seek(0)
        with Image.open(content, formats=ANIMATION_FORMATS) as file:
            if file.format == "PNG":
                scale_transparency(file)
            if code_points is not None:
                file.info[CICP] = code_points
            yield from _frames(file, size)


def _frames(file: Image.Image, size: int) -> Iterator[Shown]:
    time_s = 0.0
    for frame in ImageSequence.Iterator(file):
        check_size(frame.width, frame.height, "a frame")  # a frame of a GIF may enlarge the canvas
        check_memory(size, str(file.format), frame.width, frame.height, "the animation")
        image = to_rgb(frame, "the animation")
        if image is frame:  # Pillow puts the next frame into the same object
            image = frame.copy()
        small = np.asarray(image.convert("L").resize(SMALL), np.int16)
        duration_ms = float(frame.info.get("duration") or 0)
        lasts_s = (duration_ms if duration_ms > 10 else 100) / 1000  # as browsers show it
        yield Shown(time_s, lasts_s, small, image.size, partial(image.resize, _sent_size(*image.size)))
        time_s += lasts_s


def _sent_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, SHORT_PX / min(width, height), LONG_PX / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


if __name__ == "__main__":
    main()
