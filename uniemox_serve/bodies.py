"""Images from a request's body, with limits on size and time."""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from uniemox_serve.answers import REFUSALS, RefusedError
from uniemox_serve.config import ServeConfig

ANY = "application/octet-stream"
IMAGE_TYPES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/gif",
    "image/bmp",
    "image/tiff",
    "image/avif",
    "image/heic",
    "image/heif",
    ANY,
    "image/x-portable-pixmap",
    "image/x-portable-graymap",
)
"""Content types of a body that is one image, as the documentation lists them.

Any other image/... is accepted too (image/jpg, image/pjpeg, image/x-png, image/*): the bytes decide the format.
"""
FORM = "multipart/form-data"
FIELD = "pictures"
MAX_NAME_LENGTH = 255
MAX_FALSE_BOUNDARIES = 1000
"""Maximum number of lines in files that begin like the boundary; correct forms have none, and each costs 1 µs."""
MAX_PARAMETERS = 100
"""Maximum number of parameters in a content type or in a header of a part; each costs 1 µs."""
# Character set and name (RFC 8187). Headers are at most 16 KiB long.
_EXTENDED_NAME = re.compile(r";\s*filename\*\s*=\s*([\w.+-]{1,40})'[^';\s]{0,40}'([^;\s]+)", re.IGNORECASE)
CLOSE = {"Connection": "close"}
GRACE_S = 5.0
"""Seconds after which a body must have arrived at the minimum rate."""
MIN_BYTES_PER_S = 10 * 2**10


@dataclass(frozen=True, slots=True)
class Upload:
    """Image as received."""

    data: bytes
    name: str | None
    """Name as sent: never used as a path, only repeated."""

    @property
    def sha256(self) -> str:
        """Hexadecimal hash of the bytes."""
        return hashlib.sha256(self.data).hexdigest()


async def read_uploads(request: Request, config: ServeConfig, reserve: Callable[[int], None]) -> list[Upload]:
    """Read the images in a body, at least one.

    Args:
        request: The request.
        config: Limits on size, number of files and time.
        reserve: Called with each number of bytes before they are stored; may raise.

    Raises:
        RefusedError: If the body is malformed (400), too slow (408), too large or has too many files (413), has another
            type (415), or holds no image (422).
    """
    raw_type, options = _parse_header(request.headers.get("content-type", "").encode("latin-1"))
    content_type = raw_type.decode("latin-1")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise RefusedError(415, "unsupported_type", "a body with Content-Encoding is not accepted; send it unencoded")
    if content_type not in (FORM, ANY) and not content_type.startswith("image/"):
        raise RefusedError(
            415,
            "unsupported_type",
            f"expected {FORM} with files in the field {FIELD!r}, or one image with its own type, such as image/jpeg, "
            f"or {ANY}",
        )
    body = await read_body(request, config, reserve)
    if content_type != FORM:
        if not body:
            raise RefusedError(422, "no_picture", "the body is empty; it should be the bytes of an image")
        return [Upload(body, None)]
    return uploads_of(body, options.get(b"boundary", b""), config.files)


async def read_body(request: Request, config: ServeConfig, reserve: Callable[[int], None]) -> bytes:
    """Read a request's body.

    Args:
        request: The request.
        config: Limits on size and time.
        reserve: Called with each number of bytes before they are stored; may raise.

    Raises:
        RefusedError: If the body has two lengths (400), is too slow (408), or too large (413).
    """
    limit = config.max_bytes
    body = bytearray()
    too_large = RefusedError(
        413, "too_large", f"the body is larger than {config.max_mb:g} MiB; send fewer or smaller images"
    )
    # A proxy may read only the first of the two, so that both sides disagree about where the next request begins.
    if {"content-length", "transfer-encoding"} <= {*request.headers}:
        raise RefusedError(400, "malformed_body", "send Content-Length or Transfer-Encoding, not both", CLOSE)
    # It is a number, because h11 accepts only digits.
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    start = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(min(config.read_timeout_s, GRACE_S)) as clock:
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise too_large
                reserve(len(chunk))
                body += chunk
                clock.reschedule(start + min(config.read_timeout_s, GRACE_S + len(body) / MIN_BYTES_PER_S))
    except TimeoutError:
        sentence = (
            f"the body came too slowly; send it within {config.read_timeout_s:g} s and at least "
            f"{MIN_BYTES_PER_S >> 10} KiB/s, or a smaller image"
        )
        raise RefusedError(408, "too_slow", sentence, CLOSE) from None
    return bytes(body)


def uploads_of(body: bytes, boundary: bytes, limit: int) -> list[Upload]:
    """Return the files of a multipart body's field "pictures"; other fields are refused, so typos are reported.

    Args:
        body: The body.
        boundary: The boundary in the content type.
        limit: Maximum number of files.

    Raises:
        RefusedError: If the body is malformed (400), has more files than the limit (413), or has another field or no
            file (422).
    """
    form = _Form(limit)
    malformed = RefusedError(400, *REFUSALS[400])
    if not boundary or body.count(b"\r\n--" + boundary) > limit + MAX_FALSE_BOUNDARIES:
        raise malformed
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type] # a TypedDict
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise malformed from None
    # The parser does not report a form without its last boundary.
    if not form.is_complete:
        raise malformed
    return form.uploads()


def _parse_header(header: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Return a header's value and parameters.

    Raises:
        RefusedError: If it has more than MAX_PARAMETERS.
    """
    if header.count(b";") > MAX_PARAMETERS:
        raise RefusedError(400, "malformed_body", f"a header has more than {MAX_PARAMETERS} parameters")
    return parse_options_header(header)


@dataclass(slots=True)
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    content: list[bytes] = field(default_factory=list)


class _Form:
    """Form in memory, filled by callbacks whose names python_multipart's parser prescribes."""

    def __init__(self, limit: int) -> None:
        self.is_complete = False
        self._limit = limit
        self._parts: list[_Part] = []
        self._name = self._value = b""

    def callbacks(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}

    def uploads(self) -> list[Upload]:
        """Return the files, in order.

        Raises:
            RefusedError: If there is another field, or no file (422).
        """
        uploads = []
        for part in self._parts:
            _, options = _parse_header(part.headers.get(b"content-disposition", b""))
            if options.get(b"name") != FIELD.encode():
                raise RefusedError(422, "unknown_field", f"expected only files in the field {FIELD!r}")
            name = _name_of(part.headers[b"content-disposition"], options)
            uploads.append(Upload(b"".join(part.content), None if name is None else name[:MAX_NAME_LENGTH]))
        if not uploads:
            raise RefusedError(422, "no_picture", f"no image was sent; put one or more files in the field {FIELD!r}")
        return uploads

    def on_part_begin(self) -> None:
        if len(self._parts) == self._limit:
            raise RefusedError(413, "too_many_files", f"more than {self._limit} files; send them in several requests")
        self._parts.append(_Part())

    def on_header_begin(self) -> None:
        self._name = self._value = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._parts[-1].headers[self._name.lower()] = self._value

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._parts[-1].content.append(data[start:end])

    def on_end(self) -> None:
        self.is_complete = True


def _name_of(header: bytes, options: Mapping[bytes, bytes]) -> str | None:
    """Return the name of a file; None without one.

    Args:
        header: Value of Content-Disposition. Clients in .NET write the name as filename*=utf-8''caf%C3%A9.jpg, too.
        options: Its other options.
    """
    match = _EXTENDED_NAME.search(header.decode("latin-1"))
    # The two encodings of RFC 8187; Python's other codecs may fail.
    if match and match[1].lower() in ("utf-8", "iso-8859-1"):
        return unquote(match[2], match[1], "replace")
    name = options.get(b"filename")
    return None if name is None else name.decode("utf-8", "replace")
