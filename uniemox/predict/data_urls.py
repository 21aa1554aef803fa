"""Images in text: data URLs (RFC 2397), as web pages hold them, and base64 that lacks the beginning of one."""

import base64
import binascii
import os.path
import re
from urllib.parse import unquote_to_bytes

from uniemox.errors import ImageError
from uniemox.io.borders import shorten

_DATA_URL = re.compile(r"\s*data:([^,]{0,1000}),", re.IGNORECASE)
_BASE64_START = re.compile(r"\s*[A-Za-z0-9+/_\-\s]{64}")
# The first base64 characters of JPEG, PNG, GIF, WebP, BMP, TIFF, and of HEIC and AVIF.
_IMAGE_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk", "SUkqA", "TU0AK", "AAAA")


def is_data_url(text: str) -> bool:
    """Return True for a data URL, and not for an existing file of that name.

    >>> is_data_url("data:image/png;base64,iVBORw0KGgo="), is_data_url("data/a.png")
    (True, False)
    """
    return _DATA_URL.match(text) is not None and not os.path.exists(text)


def read_data_url(text: str) -> bytes:
    """Return the bytes in a data URL, whatever type it gives.

    Line breaks, the URL-safe alphabet, percent signs and missing padding are accepted, as browsers do.

    Raises:
        ImageError: If its base64 is damaged.

    >>> read_data_url("data:text/plain;base64,aGk"), read_data_url("data:,a%20b")
    (b'hi', b'a b')
    """
    match = _DATA_URL.match(text)
    assert match is not None, "a data URL"
    content = unquote_to_bytes(text[match.end() :])
    if not match[1].strip().lower().endswith("base64"):
        return content
    # b64decode takes only the standard alphabet, with complete padding and without line breaks.
    content = b"".join(content.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
    except binascii.Error as error:
        raise ImageError(
            f"{shorten(text[:100])}: the base64 of this data URL is damaged ({error}); copy it whole"
        ) from None


def is_bare_base64(text: str) -> bool:
    """Return True for base64 of an image without the beginning of a data URL, and not for an existing file."""
    is_base64 = text.lstrip().startswith(_IMAGE_STARTS) and _BASE64_START.match(text) is not None
    return is_base64 and not os.path.exists(text)
