"""What a survey keeps of every image, a JSON object a line: its answer, when it was taken, and its features, small."""

import base64
import re
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from uniemox.errors import ImageError
from uniemox.io.files import read_limited
from uniemox.io.images import MAX_BYTES, open_image
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.writing import ResultFile

KEPT = 128  # numbers of an image's features
_BROKEN = (OSError, ValueError, SyntaxError, TypeError, EOFError, IndexError, KeyError, AttributeError)


class SurveyFile(ResultFile):
    """Answers as `uniemox predict --out` writes them, with `taken` (YYYY-MM-DD or null) and `features` beside."""

    def write(self, result: Prediction | Failure, more: Mapping[str, Any] | None = None) -> None:
        """Append an answer; once it returns the answer outlives the process."""
        if isinstance(result, Prediction):
            taken = None if result.path is None else date_taken(Path(result.path))
            features = None if result.embedding is None else pack(result.embedding)
            more = {"taken": taken, "features": features}
        super().write(result, more)


def date_taken(path: Path) -> str | None:
    """The day on which a photograph was taken, YYYY-MM-DD, by its EXIF; None where that does not say."""
    try:
        exif = open_image(read_limited(path, MAX_BYTES), str(path)).getexif()
        value = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
        found = re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)", str(value))
        return date(*map(int, found.groups())).isoformat() if found else None
    except (ImageError, Image.DecompressionBombError, *_BROKEN):
        return None


def pack(features: NDArray[np.float32]) -> str:
    """Features (D,) as 128 numbers whose angles to others' are nearly the same (Johnson and Lindenstrauss), as text."""
    length = float(np.linalg.norm(features)) or 1.0
    return base64.b64encode((features / length @ _directions(len(features))).astype("<f2").tobytes()).decode()


def unpack(text: str) -> NDArray[np.float32]:
    """(128,) of what `pack` made."""
    return np.frombuffer(base64.b64decode(text), "<f2").astype(np.float32)


@cache
def _directions(width: int) -> NDArray[np.float32]:
    """(D, 128), the same in every process."""
    drawn = np.random.default_rng(0).standard_normal((width, KEPT), np.float32)
    return drawn / np.float32(np.sqrt(KEPT))
