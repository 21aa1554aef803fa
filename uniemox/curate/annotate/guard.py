"""What every request must pass and every answer carries: known hosts, own origin, small bodies, strict headers."""

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 256 * 1024
READ_TIMEOUT_S = 30.0
"""Until a request's headers are there, again until its body is, and until its answer is read."""
SAFE_METHODS = ("GET", "HEAD")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class RequestGuard:
    """Refuses requests for other hosts (a name that was bound anew to this machine) and from other sites.

    addresses: where the pages are, such as http://127.0.0.1:8000.  read_timeout_s: for the body of a request.
    """

    def __init__(self, app: ASGIApp, addresses: Iterable[str], read_timeout_s: float) -> None:
        self.app, self.read_timeout_s = app, read_timeout_s
        self.origins = frozenset(addresses)
        self.hosts = frozenset(urlsplit(address).netloc for address in self.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        problem, headers = self._problem(scope["method"], Headers(scope=scope)), {}
        if problem is None and scope["method"] not in SAFE_METHODS:
            try:
                receive = await _with_body(receive, self.read_timeout_s)
            except TimeoutError:
                problem = 408, f"the body was not there within {self.read_timeout_s:g} s"
                headers = {"Connection": "close"}
        if problem is not None:
            answer = JSONResponse({"detail": problem[1]}, problem[0], headers=headers)
            await answer(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    def _problem(self, method: str, headers: Headers) -> tuple[int, str] | None:
        if headers.get("host") not in self.hosts:
            return 421, "this server does not answer for that name"
        if method in SAFE_METHODS:
            return None
        if headers.get("origin", "none sent") not in self.origins:
            return 403, "requests from other sites are refused"
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return 415, "expected JSON"
        length = headers.get("content-length", "")
        if not length.isdigit():
            return 411, "expected a Content-Length"
        if int(length) > MAX_BODY:
            return 413, f"more than {MAX_BODY} bytes"
        return None


async def _with_body(receive: Receive, timeout_s: float) -> Receive:
    """A request whose body is there: no longer than its Content-Length, which was checked. Raises TimeoutError."""
    body, is_whole = bytearray(), False
    async with asyncio.timeout(timeout_s):
        while not is_whole:
            message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return _first(message, receive)
            body += message.get("body", b"")
            is_whole = not message.get("more_body", False)
    return _first({"type": "http.request", "body": bytes(body), "more_body": False}, receive)


def _first(message: Message, receive: Receive) -> Receive:
    """That message, then what comes."""
    waiting = [message]

    async def given() -> Message:
        return waiting.pop() if waiting else await receive()

    return given
