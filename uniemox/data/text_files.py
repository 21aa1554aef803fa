"""Text files: UTF-8, UTF-16 or UTF-32, else Latin-1."""

from pathlib import Path

from uniemox.errors import DataError
from uniemox.io.files import read_limited
from uniemox.io.text_encodings import wide_encoding

# Beginning of a ZIP archive, which a spreadsheet (XLSX, ODS) is.
_ZIP = b"PK\x03\x04"
LATIN_1 = "is not UTF-8 and was read as Latin-1; if it is of another encoding, such as GBK, save it as UTF-8"


def read_bytes(path: Path) -> bytes:
    """Read the bytes of a text file, as UTF-8 if it is UTF-16 or UTF-32.

    Raises:
        DataError: If it is missing, too large, or binary.
    """
    try:
        data = read_limited(path)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from error
    encoding = wide_encoding(data)
    if encoding is not None:
        try:
            data = data.decode(encoding).encode()
        except UnicodeError as error:
            raise DataError(f"{path}: not complete {encoding.upper()} ({error}); save it as UTF-8") from error
    if data.startswith(_ZIP):
        raise DataError(f"{path}: a spreadsheet or an archive, not a text file; save it as CSV in UTF-8")
    position = data.find(b"\0")
    if position >= 0:
        line = data.count(b"\n", 0, position) + 1
        raise DataError(f"{path}:{line}: not a text file, it has a null character; save it as UTF-8")
    return data


def is_utf8(path: Path) -> bool:
    """Return False if a text file is read as Latin-1."""
    try:
        read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    return True


def read_text(path: Path) -> str:
    """Read a text file as UTF-8, UTF-16 or UTF-32, else as Latin-1.

    Raises:
        DataError: If it is missing, too large, or binary.
    """
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
