"""Program of a video's process: python -m uniemox.io.decoding.film PATH SECONDS, started by predict/film.py.

For each sampled time it writes a line of JSON to standard output, then the pixels, RGB. The line has `time_s`, `shot`,
`size` (width and height of the video as players show it) and `shape` (width and height of the pixels). The last line
has `end_s` and `error`, null if the video could be read to its end. An empty line means that it is still working.
"""

import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from statistics import median

import numpy as np

from uniemox.io.decoding.film_frames import DecodedFrame, read_animation, read_video
from uniemox.io.drive import take_standard_output
from uniemox.io.limits import limit_cpu, limit_memory

ANIMATIONS = (".gif", ".webp", ".png", ".apng")  # decoded by Pillow
MAX_ANSWERS = 100_000  # 28 hours at one per second
# Processor time for one answer: a fixed part, and a part for each second of video between two answers.
CPU_S = 60
CPU_PER_S = 8
# Processor time for the whole file: a fixed part, and one second for every 10 kB.
TOTAL_CPU_S = 600
BYTES_PER_CPU_S = 10_000
MAX_TIME_S = 1e9
MEMORY_BYTES = 3 * 2**30  # in addition to the memory at the start
HEARTBEAT_S = 1.0
# Times closer than this are the same.
NEAR_S = 1e-6
# A frame is sampled for at most this long, because damaged films claim frames of years.
MAX_FRAME_S = 600.0
# A cut is a difference of at least CUT grey levels of 255, and of CUT_RATIO times the median of the last frames'.
CUT = 20.0
CUT_RATIO = 4.0
MEDIAN_FRAMES = 25
MIN_SHOT_S = 0.3


def main() -> None:
    """Write the frames at the requested times."""
    path = Path(sys.argv[1])
    every_s = float(sys.argv[2])
    answers = take_standard_output()
    cpu_s = CPU_S + math.ceil(CPU_PER_S * every_s)
    limit_memory(MEMORY_BYTES)
    limit_cpu(cpu_s)
    end_s = 0.0
    error = None
    last_write_s = time.monotonic()
    count = 0

    def show_alive() -> None:
        nonlocal last_write_s
        if time.process_time() > budget_s:
            raise ValueError(f"decoding takes more than {budget_s:,.0f} s of processor time")
        if time.monotonic() > last_write_s + HEARTBEAT_S:
            answers.write(b"\n")
            answers.flush()
            last_write_s = time.monotonic()

    def report_progress() -> None:
        """Allow more processor time, because the file is read without finding frames in it."""
        limit_cpu(cpu_s)
        show_alive()

    try:
        budget_s = TOTAL_CPU_S + path.stat().st_size / BYTES_PER_CPU_S
        is_animation = path.suffix.lower() in ANIMATIONS
        frames = read_animation(path) if is_animation else read_video(path, report_progress)
        for end_s, shot, frame in moments(frames, every_s):
            if not abs(end_s) < MAX_TIME_S:
                raise ValueError(f"a frame at {end_s:g} s, after more than 30 years")
            show_alive()
            if frame is None:
                continue
            count += 1
            if count > MAX_ANSWERS:
                raise ValueError(f"more than {MAX_ANSWERS:,} moments; ask for fewer, as with --every 10s")
            image = frame.to_image()
            limit_cpu(cpu_s)
            header = {"time_s": round(end_s, 3), "shot": shot, "size": frame.size, "shape": image.size}
            answers.write(json.dumps(header).encode() + b"\n" + image.tobytes())
            answers.flush()
            last_write_s = time.monotonic()
    except BrokenPipeError:  # the parent has ended
        return
    except (Exception, MemoryError) as problem:  # noqa: BLE001 - the border: what a broken film does to its decoder
        error = f"{type(problem).__name__}: {problem}"
    answers.write(json.dumps({"end_s": round(end_s, 3), "error": error}).encode() + b"\n")
    answers.flush()


def moments(frames: Iterable[DecodedFrame], every_s: float) -> Iterator[tuple[float, int, DecodedFrame | None]]:
    """Yield time, shot number and frame for every sampled time; and for every decoded frame its time, and None.

    A frame lasts until the next one, but at most ten minutes. An error of `frames` is raised after all moments of the
    frames before it.

    Args:
        frames: Frames in order of time.
        every_s: Seconds between two sampled times, from 0.
    """
    cuts = Cuts()
    shot = 1
    count = 0
    before = None
    errors = list[Exception]()
    for frame in chain(_until_error(frames, errors), [None]):
        if before is not None:
            next_s = before.time_s + before.duration_s if frame is None else frame.time_s
            while count * every_s < min(next_s, before.time_s + MAX_FRAME_S) - NEAR_S:
                yield count * every_s, shot, before
                count += 1
            count = max(count, math.ceil((next_s - NEAR_S) / every_s))
        if frame is not None:
            shot += cuts.is_cut(frame)
            before = frame
            yield frame.time_s, shot, None
    if errors:
        raise errors[0]


def _until_error(frames: Iterable[DecodedFrame], errors: list[Exception]) -> Iterator[DecodedFrame]:
    """Yield frames, and append the error that ends them to `errors`."""
    try:
        yield from frames
    except Exception as error:  # noqa: BLE001 - it is raised after the last frame's moments
        errors.append(error)


class Cuts:
    """Detects cuts between shots: frames that differ far more than earlier ones."""

    def __init__(self) -> None:
        self.before: DecodedFrame | None = None
        self.differences: deque[float] = deque(maxlen=MEDIAN_FRAMES)
        self.last_cut_s = -MIN_SHOT_S

    def is_cut(self, frame: DecodedFrame) -> bool:
        """Return True if a shot begins with this frame; frames must come in order."""
        before = self.before
        self.before = frame
        if before is None:
            return False
        difference = float(np.abs(frame.thumbnail - before.thumbnail).mean())
        usual = median(self.differences) if self.differences else 0.0
        is_far = difference > CUT and difference > CUT_RATIO * usual
        if is_far and frame.time_s - self.last_cut_s >= MIN_SHOT_S:
            self.last_cut_s = frame.time_s
            return True
        self.differences.append(difference)
        return False


if __name__ == "__main__":
    main()
