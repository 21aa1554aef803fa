"""Features of an image in one line of text: one byte for each channel."""

import base64

import numpy as np
from numpy.typing import NDArray

# Part of a file's header; files with another format are not resumed.
FEATURES_FORMAT = "features in 8 bits"
LARGEST = 127
MAX_CHANNELS = 2**16


def pack(features: NDArray[np.float32]) -> str:
    """Return features (D,) as base64 text: whole numbers from -127 to 127, scaled so that the largest is 127.

    Only the direction of the features is stored: cosines change by less than 0.005 (tests/insight/test_search.py).
    """
    largest = float(np.abs(features).max(initial=0)) or 1.0
    return base64.b64encode(np.rint(features * (LARGEST / largest)).astype(np.int8).tobytes()).decode()


def unpack(text: str) -> NDArray[np.int8]:
    """Return the packed features of an image, (D,).

    Raises:
        ValueError: For text that is not base64, and for no or too many features.
    """
    values = np.frombuffer(base64.b64decode(text, validate=True), np.int8)
    if not 0 < len(values) <= MAX_CHANNELS:
        raise ValueError(f"expected 1 to {MAX_CHANNELS} features")
    return values
