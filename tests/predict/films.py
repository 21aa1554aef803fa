"""Films that tests make."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.drawn import draw_image

SHOTS = [Image.effect_mandelbrot((96, 64), (-2, -1.5, 1, 1.5), 90).convert("RGB"), *map(draw_image, range(2))]


def shots() -> list[Image.Image]:
    return [one.resize((96, 64)) for one in SHOTS]


def film_of(
    path: Path, stamps: list[int], per_s: int = 1, codec: str = "mpeg4", options: dict[str, str] | None = None
) -> Path:
    """A film of one frame for each stamp, in seconds / per_s."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=per_s)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for image, stamp in zip(shots() * 9, stamps, strict=False):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = stamp, Fraction(1, per_s)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def slides(path: Path, count: int, each_s: int, sound_s: int = 0) -> Path:
    """A film of pictures that last some seconds each, with silence."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4" if path.suffix != ".webm" else "libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        sound = container.add_stream("aac", rate=44_100, layout="mono") if sound_s else None
        packets = []
        for number in range(count):
            frame = av.VideoFrame.from_image(shots()[number % 3])
            frame.pts, frame.time_base = 25 * each_s * number, Fraction(1, 25)
            packets += stream.encode(frame)
        for packet in [*packets, *stream.encode()]:
            packet.duration = 25 * each_s
            container.mux(packet)
        for start in range(0, 44_100 * sound_s, 1024):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts, silence.time_base = 44_100, start, Fraction(1, 44_100)
            container.mux(sound.encode(silence))
        container.mux(sound.encode() if sound else [])
    return path
