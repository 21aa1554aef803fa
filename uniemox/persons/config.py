"""Settings of a person detector."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from uniemox.errors import ConfigError
from uniemox.io.files import open_regular


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorConfig:
    """Thresholds of a person detector."""

    confidence: float | None = None
    """Least confidence, 0 to 1: objectness times class, or as the layout defines it; None: the layout's own."""
    nms_overlap: float | None = None
    """Intersection over union, 0 to 1, above which the weaker of two boxes goes; None: the layout's own."""
    max_detections: int = 100
    """People an image at the most."""

    def __post_init__(self) -> None:
        for name in ("confidence", "nms_overlap"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0 <= value <= 1):
                raise ConfigError(f"{name} is {value}; it must be from 0 to 1, or left out for the detector's own")
        if self.max_detections < 1:
            raise ConfigError(f"max_detections is {self.max_detections}; it must be at least 1")


def fingerprint_of(files: Sequence[Path], settings: str) -> str:
    """16 hexadecimal digits of the files' content and the settings."""
    digest = sha256(settings.encode() + b"\0")
    for path in files:
        with open_regular(path) as file:
            while block := file.read(2**20):
                digest.update(block)
        digest.update(b"\0")
    return digest.hexdigest()[:16]
