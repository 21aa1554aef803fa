"""What every request must pass and every answer carries: known hosts, own origin, small bodies, strict headers."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 256 * 1024
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


class Guard:
    """Refuses requests for other hosts (a name that was bound anew to this machine) and from other sites.

    addresses: where the pages are, such as http://127.0.0.1:8000.
    """

    def __init__(self, app: ASGIApp, addresses: Iterable[str]) -> None:
        self.app = app
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

        problem = self._problem(scope["method"], Headers(scope=scope))
        if problem is not None:
            await JSONResponse({"detail": problem[1]}, problem[0])(scope, receive, send_with_headers)
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
        if int(length) > MOST_BODY:
            return 413, f"more than {MOST_BODY} bytes"
        return None
