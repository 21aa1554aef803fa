"""Shared code of HTTP clients: the header Retry-After, and a time limit for a whole response."""

import io
import socket
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from typing import Any


def retry_after(value: str | None) -> float | None:
    """Parse a Retry-After header, seconds or a date, to seconds; None if it is missing or invalid.

    >>> retry_after("7")
    7.0
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if seconds < float("inf") else None


def timed_response(sock: socket.socket, end_s: float, **settings: Any) -> HTTPResponse:
    """Return a response that raises TimeoutError at a time of time.monotonic().

    A socket restarts its own timeout with every byte, so a server can send without end.
    """
    return HTTPResponse(_Incoming(sock, end_s), **settings)  # type: ignore[arg-type]


class _Incoming(io.RawIOBase):
    """Received bytes of a socket."""

    def __init__(self, sock: socket.socket, end_s: float) -> None:
        self._sock, self._bytes, self._end_s = sock, sock.makefile("rb", buffering=0), end_s

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        self._bytes.close()
        super().close()
