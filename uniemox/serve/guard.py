"""Around every request: headers that protect the page, one line of log, counts, and an answer to our own mistakes."""

import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uniemox.serve.answers import REFUSALS
from uniemox.serve.metrics import Metrics

logger = logging.getLogger("uniemox.serve")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self' http: https: data:; "  # the address of an image that somebody drops on the page
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
CLIENT_GONE = 499  # as nginx has it; nobody receives it
INTERNAL, HEADERS_TOO_LARGE = 500, 431
MAX_HEADER_BYTES = 32 * 2**10
"""Of a request's line and headers: h11 holds to it only while they are incomplete."""


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; anything else, as the life span, passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            if header_bytes(scope) > MAX_HEADER_BYTES:
                await _answer(HEADERS_TOO_LARGE, "headers_too_large", "the headers are too large")(
                    scope, receive, guarded
                )
            else:
                await self._app(scope, receive, guarded)
        except ClientDisconnect:
            status = CLIENT_GONE
        except Exception:  # the border: what no line below expected is our mistake, and the server keeps running
            logger.exception("a mistake of the server")
            if not status:
                await _answer(INTERNAL, *REFUSALS[INTERNAL])(scope, receive, guarded)
            status = INTERNAL
        self._note(scope, status, time.monotonic() - start)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        path = getattr(route, "path", "other")  # a client's own paths would make metrics without end
        self._metrics.requests.labels(path, status).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        client = scope.get("client")
        method = scope["method"] if scope["method"].isalpha() else "?"
        logger.info("%s %.20s %s %d %.0f ms", client[0] if client else "-", method, path, status, 1000 * seconds)


def header_bytes(scope: Scope) -> int:
    """Bytes of a request's path, query and headers."""
    line = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    return line + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


def _answer(status: int, code: str, error: str) -> JSONResponse:
    return JSONResponse({"code": code, "error": error}, status)
