"""uvicorn with the limits of a config, for this server and for that of `uniemox curate`."""

import asyncio
import socket
from contextlib import suppress

import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uniemox.errors import ConfigError
from uniemox_serve.config import ServeConfig

MAX_HEADER_BYTES = 32 * 2**10
"""Maximum size of a request's line and headers while they are incomplete."""
BACKLOG = 2048
"""Maximum number of connections that wait in the kernel to be accepted."""
DRAIN_S = 5.0
"""Maximum time for reading the rest of a body before an early response; a proxy has received the body already."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        ConfigError: If the address is taken or invalid.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # All addresses, those of IPv4 too.
    is_dual = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    # TypeError and ValueError: characters that no host name has.
    except (OSError, OverflowError, TypeError, ValueError) as error:
        raise ConfigError(
            f"can't listen on {host}, port {port}: {error}; choose another --port (0: any free one), or --host"
        ) from error


def create_server(
    app: ASGIApp, limits: ServeConfig, *, keep_alive_s: int, shutdown_s: int, proxy_headers: bool
) -> uvicorn.Server:
    """Return a server that is not running yet.

    uvicorn has no time limit for headers and for reading a response, and none on the connections of one client.
    docs/serve.md has a configuration of nginx that sets these limits.

    Args:
        app: The application.
        limits: Limits on connections and bodies; the others are up to the application.
        keep_alive_s: Time limit in s for an idle connection after a response.
        shutdown_s: Time limit in s for the open requests when the server stops.
        proxy_headers: Take the client's address from X-Forwarded-For, if a proxy on this machine sends it.
    """
    config = uvicorn.Config(
        DrainBody(app, limits.max_bytes),
        http="h11",
        ws="none",
        lifespan="on",
        # uvicorn's own configuration would close the log handlers of everything else in this process.
        log_config=None,
        log_level="warning",
        # The guard of `uniemox serve` logs the requests.
        access_log=False,
        server_header=False,
        proxy_headers=proxy_headers,
        backlog=BACKLOG,
        # uvicorn refuses requests once the number of connections reaches its limit.
        limit_concurrency=limits.max_connections + 1,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=shutdown_s,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    return uvicorn.Server(config)


class DrainBody:
    """ASGI middleware that reads the rest of a request's body before a response that comes early, such as 401.

    A proxy asks for "Connection: close", so uvicorn closes the connection after the response. If the kernel then holds
    unread bytes of the body, it resets the connection. The proxy loses the response and reports 502.

    Args:
        app: The application.
        max_bytes: Maximum size of a body to read; the response to a larger one is sent at once.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; other events, such as lifespan, pass through."""
        if scope["type"] != "http" or not self._expects_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        received_bytes = 0
        is_complete = False

        async def receive_counted() -> Message:
            nonlocal received_bytes, is_complete
            message = await receive()
            received_bytes += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            return message

        async def send_after_body(message: Message) -> None:
            is_start = message["type"] == "http.response.start"
            # Responses with this header, such as 408, end the connection because of its body.
            if is_start and Headers(raw=message["headers"]).get("connection") != "close":
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_S):
                        while not is_complete and received_bytes <= self._max_bytes:
                            await receive_counted()
            await send(message)

        await self._app(scope, receive_counted, send_after_body)

    def _expects_body(self, headers: Headers) -> bool:
        """Return True if the client sends a body that is small enough, without waiting for permission (100)."""
        if "expect" in headers:
            return False
        if "transfer-encoding" in headers:
            return True
        return 0 < int(headers.get("content-length", 0)) <= self._max_bytes
