"""Text in UTF-16 and UTF-32, as Windows programs write it."""

import codecs

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Number of bytes by which UTF-16 without a mark is recognised, as PowerShell and tar of Windows write it.
_CHECKED_BYTES = 64
MIN_PAIRS = 4


def wide_encoding(start: bytes) -> str | None:
    """Return the encoding of text that begins with a mark of UTF-16 or UTF-32, or is UTF-16 of mostly Latin letters.

    Args:
        start: First bytes of the text.

    Returns:
        Name of the encoding; None for other text.

    >>> wide_encoding("a.jpg".encode("utf-16")), wide_encoding("ab.jpg".encode("utf-16-le")), wide_encoding(b"a.jpg")
    ('utf-16', 'utf-16-le', None)
    """
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    checked = start[:_CHECKED_BYTES]
    for encoding, high, low in (("utf-16-le", checked[1::2], checked[::2]), ("utf-16-be", checked[::2], checked[1::2])):
        if len(high) >= MIN_PAIRS and not any(high) and all(low[: len(high)]):
            return encoding
    return None
