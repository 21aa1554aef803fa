"""Films that tests make."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.drawn import draw_image
from uniemox.io.decoding.film import moments
from uniemox.io.decoding.film_frames import read_video

SHOTS = [Image.effect_mandelbrot((96, 64), (-2, -1.5, 1, 1.5), 90).convert("RGB"), *map(draw_image, range(2))]


def shots() -> list[Image.Image]:
    return [shot.resize((96, 64)) for shot in SHOTS]


def film_of(
    path: Path,
    stamps: list[int],
    per_s: int = 1,
    codec: str = "mpeg4",
    options: dict[str, str] | None = None,
    lasts: list[int] | None = None,
    sound_s: int = 0,
) -> Path:
    """A film of one frame for each stamp, in seconds / per_s, which lasts as long as `lasts` says; with a tone."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=per_s)
        stream.width = 96
        stream.height = 64
        stream.pix_fmt = "yuv420p"
        if sound_s:
            sound = container.add_stream("aac", rate=44_100, layout="mono")
        else:
            sound = None
        packets = []
        for image, stamp in zip(shots() * 99, stamps, strict=False):
            frame = av.VideoFrame.from_image(image)
            frame.pts = stamp
            frame.time_base = Fraction(1, per_s)
            packets += stream.encode(frame)
        packets += stream.encode()
        for packet, duration in zip(packets, lasts or [], strict=False):
            packet.duration = duration
        for start in range(0, 44_100 * sound_s, 1024):
            tone = np.sin(np.arange(start, start + 1024, dtype=np.float32) / 16)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate = 44_100
            frame.pts = start
            frame.time_base = Fraction(1, 44_100)
            packets += sound.encode(frame)
        packets += sound.encode() if sound else []
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return path


def slides(
    path: Path, count: int, each_s: int, sound_s: int = 0, codec: str = "mpeg4", last_s: int | None = None
) -> Path:
    """A film of pictures that last some seconds each, and the last one last_s; with a tone."""
    lasts = [25 * each_s] * (count - 1) + [25 * (last_s or each_s)]
    return film_of(path, [25 * each_s * n for n in range(count)], 25, codec, lasts=lasts, sound_s=sound_s)


def read_here(path: Path, report_progress: Callable[[], None] = lambda: None) -> tuple[list[float], str]:
    """Sample a film each second in this process. Return the times, and the error that ends it."""
    times = []
    error = ""
    try:
        for time_s, _, frame in moments(read_video(path, report_progress), 1):
            if frame is not None:
                frame.to_image()
                times.append(time_s)
    except (ValueError, OSError) as problem:
        error = f"{type(problem).__name__}: {problem}"
    return times, error
