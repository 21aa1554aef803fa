"""Middleware for every request: checks, headers, one log line, counts, and a response to internal errors."""

import asyncio
import ipaddress
import logging
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uniemox_serve.answers import REFUSALS
from uniemox_serve.metrics import Metrics

logger = logging.getLogger("uniemox_serve")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        # An image dropped on the page may be an address.
        "connect-src 'self' http: https: data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
CLIENT_GONE = 499
"""Status of a request whose client has gone; only for log and metrics, as in nginx."""
INTERNAL = 500
REQUESTS_AT_ONCE = 8
"""Requests of one client that are worked on at a time."""


HEALTH = "/health"


class Turns:
    """Turns of the clients, REQUESTS_AT_ONCE for each: one that has a thousand connections delays mainly itself."""

    def __init__(self) -> None:
        # Semaphores that no request holds or waits for disappear.
        self._semaphores = WeakValueDictionary[str, asyncio.Semaphore]()

    def of(self, scope: Scope) -> asyncio.Semaphore:
        """Return the semaphore of a request's client."""
        return self._semaphores.setdefault(client_of(scope.get("client")), asyncio.Semaphore(REQUESTS_AT_ONCE))


def client_of(peer: Any) -> str:
    """Return the client of an address: one IPv4 address, or the /64 of an IPv6 address, which one client may have.

    A host that is no address is returned unchanged; a proxy of `uniemox curate` may report one.

    Args:
        peer: Host and port; anything else, such as None, is an unknown client with the address "".
    """
    # The part behind % is the network interface of a link-local address.
    host = str(peer[0]).partition("%")[0] if isinstance(peer, tuple | list) else ""
    with suppress(ValueError):
        if ":" in host and not host.startswith("::ffff:"):
            return str(ipaddress.ip_network((host, 64), strict=False))
    return host


def as_sent(address: str) -> str:
    """Return an address as browsers send it in Origin and Host.

    >>> as_sent("https://Example.org:443")
    'https://example.org'
    """
    address = address.lower()
    default_port = ":80" if address.startswith("http:") else ":443"
    return address.removesuffix(default_port)


class Guard:
    """ASGI middleware.

    Args:
        app: The application.
        metrics: Counters of requests.
        origins: Web origins, such as https://example.org, whose pages may send requests. Requests whose Host header
            names one of their hosts are accepted too.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, origins: Collection[str] = ()) -> None:
        self._app = app
        self._metrics = metrics
        self._origins = origins
        self._turns = Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; other events, such as lifespan, pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            scope["path"] = _plain_path(scope["path"])
            refusal = self._refusal_status(scope)
            without_cookies(scope)
            # The turn ends before images are received and predicted; the queue has turns of its own.
            async with self._turns.of(scope):
                # Let requests of other clients go first.
                await asyncio.sleep(0)
            handler: ASGIApp = self._app if refusal is None else _error_response(refusal)
            await handler(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = CLIENT_GONE
        # An unexpected exception is an internal error, and the server keeps running.
        except Exception:
            logger.exception("an internal error")
            if not status:
                await _error_response(INTERNAL)(scope, receive, send_with_headers)
            status = INTERNAL
        self._record(scope, status, time.monotonic() - start)

    def _refusal_status(self, scope: Scope) -> int | None:
        """Return the status of REFUSALS for headers that are refused; None if they are accepted."""
        headers = Headers(scope=scope)
        # Health checks of load balancers send HTTP/1.0, which needs no Host; the answer tells nothing private.
        if "host" not in headers and scope["path"] == HEALTH and scope["method"] in ("GET", "HEAD"):
            return None
        host = headers.get("host", "")
        origin = headers.get("origin")
        schemes = {allowed.partition("://")[0] for allowed in self._origins}
        is_allowed_host = any(as_sent(f"{scheme}://{host}") in self._origins for scheme in schemes)
        if not (is_numeric(host) or is_allowed_host or is_own_name(host)):
            return 421
        # Programs other than browsers send no Origin.
        is_allowed_origin = origin is None or origin in self._origins or origin.partition("://")[2] == host
        if scope["method"] == "POST" and not is_allowed_origin:
            return 403
        return None

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request and log a line."""
        # Other paths come from clients and would create unlimited metrics.
        path = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(path, status).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        client = scope.get("client")
        method = scope["method"] if scope["method"].isalpha() else "?"
        logger.info("%s %.20s %s %d %.0f ms", client[0] if client else "-", method, path, status, 1000 * seconds)


def _plain_path(path: str) -> str:
    """Return the path of a request: of an absolute address, which servers must take (RFC 9112), and of /health/.

    >>> _plain_path("http://127.0.0.1:8000/health"), _plain_path("/health/"), _plain_path("/predict")
    ('/health', '/health', '/predict')
    """
    if not path.startswith("/"):
        _, separator, rest = path.partition("://")
        path = f"/{rest.partition('/')[2]}" if separator else path
    return HEALTH if path == f"{HEALTH}/" else path


def without_cookies(scope: Scope) -> bytes:
    """Remove the cookies of a request and return them.

    FastAPI parses them for every route with http.cookies, which may take 2 s for 32 KB of backslashes (CVE-2024-7592).
    """
    cookies = b";".join(value for name, value in scope["headers"] if name == b"cookie")
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
    return cookies


def own_names() -> frozenset[str]:
    """Return the names of this machine as it knows them itself, in lower case: no name server is asked."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return frozenset({name, short, f"{short}.local"} - {"", ".local"})


def own_addresses() -> list[str]:
    """Return the IP addresses from which this machine reaches other networks, IPv4 first; [] if it reaches none."""
    addresses = []
    # Far addresses for documentation (RFC 5737, 3849). To connect a UDP socket only chooses a route: nothing is sent.
    for family, far in ((socket.AF_INET, "203.0.113.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as unsent:
            unsent.connect((far, 9))
            addresses.append(ipaddress.ip_address(unsent.getsockname()[0]))
    # A link-local address of IPv6 needs the name of an interface of the client.
    return [str(address) for address in addresses if not (address.is_loopback or address.is_link_local)]


def is_own_name(host: str) -> bool:
    """Return True if a Host header names this machine."""
    return host.lower().partition(":")[0] in own_names()


def is_numeric(host: str) -> bool:
    """Return True for localhost and IP addresses; a foreign name server can't make these refer to this machine.

    >>> [is_numeric(host) for host in ("localhost:8000", "[::1]:80", "10.0.0.7", "example.org", "a@127.0.0.1", "")]
    [True, True, True, False, False, False]
    """
    try:
        # A dot at the end marks a complete name.
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
        return "@" not in host and (name == "localhost" or bool(ipaddress.ip_address(name)))
    except ValueError:
        return False


def _error_response(status: int) -> JSONResponse:
    code, error = REFUSALS[status]
    return JSONResponse({"code": code, "error": error}, status)
