"""Shared code of HTTP clients: hosts, pauses between attempts, and a time limit for a whole response."""

import io
import random
import socket
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

MAX_WAIT_S = 60.0  # between two attempts, unless the server asks for a longer pause


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
        if not moment.tzinfo:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if seconds < float("inf") else None


def back_off(attempt: int, first_wait_s: float) -> float:
    """Return the seconds before the next attempt: doubled after each failure, then drawn from the upper half."""
    longest = min(first_wait_s * 2 ** (attempt - 1), MAX_WAIT_S)
    return longest * random.uniform(0.5, 1)


def host_of(address: str) -> str:
    """Return host and port of an address in lower case; empty if it has none or can't be parsed."""
    try:
        return urlsplit(address).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def timed_response(sock: socket.socket, end_s: float, **settings: Any) -> HTTPResponse:
    """Return a response that raises TimeoutError at a time of time.monotonic().

    A socket restarts its own timeout with every byte, so a server can send without end.
    """
    return HTTPResponse(_Incoming(sock, end_s), **settings)  # type: ignore[arg-type]


class _Incoming(io.RawIOBase):
    """Received bytes of a socket."""

    def __init__(self, sock: socket.socket, end_s: float) -> None:
        self._sock = sock
        self._bytes = sock.makefile("rb", buffering=0)
        self._end_s = end_s

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
