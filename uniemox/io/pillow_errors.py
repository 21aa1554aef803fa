"""Errors that Pillow raises for broken files."""

import struct

from PIL import Image

DECODING_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, struct.error, OverflowError, IndexError, TypeError, KeyError),
    *(ZeroDivisionError, MemoryError, AttributeError, NotImplementedError, AssertionError, RuntimeError),
    Image.DecompressionBombError,
)
"""Errors of Pillow's readers and decoders for broken files."""
