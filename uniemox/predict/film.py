"""Frames of videos. A separate process decodes them, so that a broken video does no harm."""

import json
import os.path
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from typing import Any

from PIL import Image

from uniemox.errors import ConfigError, MissingPackageError
from uniemox.io.borders import shorten
from uniemox.io.decoding.film import ANIMATIONS
from uniemox.io.decoding.pool import process_settings
from uniemox.io.images import is_image_name

FILMS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp", ".ogv")
WAIT_S = 60.0  # maximum wait for the next frame of the process
MIN_S = 0.01
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "min": 60.0}


@dataclass(frozen=True, slots=True)
class Frame:
    """Frame of a video at a time; the last one may hold an error instead, if the rest can't be read."""

    film: str
    time_s: float
    shot: int
    """Number of the shot, between two cuts, from 1."""
    image: Image.Image | None
    """RGB, upright, at most 720 px on the shorter side."""
    size: tuple[int, int]
    """Width and height of the video as players show it, px."""
    error: str = ""

    @property
    def path(self) -> str:
        """Name of the video and time, as a media fragment: film.mp4#t=2.5."""
        if self.image is not None:
            return f"{self.film}#t={self.time_s:.12g}"
        return self.film


def parse_time(text: str) -> float:
    """Parse a time such as "1s", "0.5", "500ms" or "2min".

    Raises:
        ConfigError: For others, and below 0.01 s.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|)", text.strip())
    value = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not MIN_S <= value < float("inf"):
        raise ConfigError(f"expected a time such as 1s, 500ms or 2min, at least {MIN_S} s, got {text!r}")
    return value


def read_film(path: str, every_s: float) -> Iterator[Frame]:
    """Yield a frame every `every_s` seconds, from the start; memory does not grow with the video's length.

    A video that can't be read to its end yields a last frame with an error instead of an image.

    Raises:
        MissingPackageError: If PyAV is not installed; GIF, WebP and PNG do not need it.
    """
    if Path(path).suffix.lower() not in ANIMATIONS and find_spec("av") is None:
        raise MissingPackageError("videos need PyAV; run: pip install 'uniemox[video]'")
    if not os.path.isfile(path):  # Path.is_file raises OSError for a name that is too long
        if os.path.isdir(path):
            problem = f"a folder; name its videos, as in {path}/*.mp4"
        else:
            problem = "there is no such file"
        yield Frame(path, 0.0, 0, None, (0, 0), f"{shorten(path)}: {problem}")
        return
    words = [sys.executable, "-P", "-m", "uniemox.io.decoding.film", path, str(every_s)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **process_settings()) as process:
        try:
            yield from _frames(path, process)
        finally:
            process.kill()


def _frames(path: str, process: subprocess.Popen[bytes]) -> Iterator[Frame]:
    end_s = 0.0
    shot = 0
    while (message := _next(process)) and "end_s" not in message:
        end_s = message["time_s"]
        shot = message["shot"]
        yield Frame(path, end_s, shot, message["image"], tuple(message["size"]))
    end_s = message.get("end_s", end_s)
    error = message.get("error", None if message else "its decoder died, or took too long for a frame")
    if error is not None:
        where = f"beyond {end_s:g} s" if shot else "as a film"
        is_still = not shot and is_image_name(Path(path)) and Path(path).suffix.lower() not in ANIMATIONS
        remedy = "; it has the name of an image, which is predicted without --every" if is_still else ""
        yield Frame(path, end_s, shot, None, (0, 0), f"{shorten(path)}: can't be read {where} ({error}){remedy}")


def _next(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return the process's next message; {} if it has ended. A process that is silent for a minute is ended."""
    assert process.stdout is not None
    while True:
        watch = Timer(WAIT_S, process.kill)
        watch.start()
        try:
            line = process.stdout.readline()
            message: dict[str, Any] = json.loads(line) if line.strip() else {}
            if "shape" in message:
                width, height = message["shape"]
                message["image"] = Image.frombytes("RGB", (width, height), process.stdout.read(3 * width * height))
        except ValueError:  # the message was cut off
            return {}
        finally:
            watch.cancel()
        if message or not line:
            return message
