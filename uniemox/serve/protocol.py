"""HTTP/1.1 protocol of uvicorn with time limits for slow clients, and limits on connections."""

import asyncio
import re
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from uniemox.errors import ConfigError
from uniemox.serve.config import ServeConfig
from uniemox.serve.guard import MAX_HEADER_BYTES, client_of

SLICE_S = 0.005
BACKLOG = 2048  # connections that wait in the kernel to be accepted
ACCEPTED_AT_ONCE = 32
"""Connections that are accepted in one turn of the event loop; asyncio uses the backlog, 2,048 by default."""
MAX_SMALL_CHUNKS = 100
"""Maximum number of chunks in a body, besides one per KiB; each takes as long as a large one."""
MAX_LINES = 100
"""Maximum number of header lines in a request; browsers and proxies send about 40."""
MAX_FORWARDED_BYTES = 1024
"""Maximum size of X-Forwarded-For, which uvicorn parses before the client's turn, for curate, which accepts proxies."""
BUFFER_BYTES = 128 * 1024
"""Of a connection, each way, in the kernel, which doubles it. By default, it grows to 4 MB for clients that do not
read, and to 6 MB for bytes that wait for us."""
PIECE_BYTES = 64 * 1024
LINGER_S = 2.0
"""Time for a client to close its side of a connection after the answer."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        ConfigError: If the address is taken or invalid.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"can't listen on {host}, port {port}: {error}; choose another --port (0: any free one), or --host"
        ) from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else the end of a response can wait 40 ms
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # connections inherit these
        listener.setsockopt(socket.SOL_SOCKET, buffer, BUFFER_BYTES)
    return listener


def in_pieces(app: ASGIApp) -> ASGIApp:
    """Return an app that sends large bodies in pieces, each when the client has read those before."""

    async def sending_pieces(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_pieces(message: Message) -> None:
            body = message.get("body", b"")
            at = 0
            while len(body) - at > PIECE_BYTES:
                await send({"type": message["type"], "body": body[at : at + PIECE_BYTES], "more_body": True})
                at += PIECE_BYTES
            await send({**message, "body": body[at:]} if at else message)

        await app(scope, receive, send_pieces)

    return sending_pieces


class _Connection(h11.Connection):
    """Parser that refuses many header lines, and bodies in many tiny chunks, because they block other connections."""

    _chunks_left = 0.0

    def next_event(self) -> Any:
        if self.their_state is h11.IDLE:
            received = self.trailing_data[0]
            end = re.search(rb"\n\r?\n", received)
            if received.count(b"\n", 0, end.start() if end else len(received)) > MAX_LINES:
                raise h11.RemoteProtocolError("too many header lines")
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks_left = MAX_SMALL_CHUNKS
            if any(name == b"x-forwarded-for" and len(value) > MAX_FORWARDED_BYTES for name, value in event.headers):
                raise h11.RemoteProtocolError("X-Forwarded-For is too long")
        elif isinstance(event, h11.Data):
            self._chunks_left += len(event.data) / 1024 - event.chunk_start
            if self._chunks_left < 0:
                raise h11.RemoteProtocolError("too many tiny chunks")
        return event


class _Flow(FlowControl):
    """Flow control that calls `go_on` instead of receiving more when the app is ready for it."""

    def __init__(self, transport: asyncio.Transport, go_on: Callable[[], None]) -> None:
        super().__init__(transport)
        self._go_on = go_on

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            self._go_on()


class _Transport:
    """Transport of asyncio whose `close` calls `end` instead; then it counts as closing."""

    is_ending = False

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None]) -> None:
        self.transport = transport
        self._end = end

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def close(self) -> None:
        if not self.is_closing():
            self._end()

    def write(self, data: bytes) -> None:
        if not self.is_closing():  # else asyncio logs a line
            self.transport.write(data)

    def is_closing(self) -> bool:
        return self.is_ending or self.transport.is_closing()


class Reader:
    """Parses what clients have sent: in each turn of the event loop, for at most SLICE_S of each client.

    So a client with a thousand connections delays others by SLICE_S, or by one piece of MAX_HEADER_BYTES.
    """

    def __init__(self) -> None:
        self._queues: dict[str, deque[PatientProtocol]] = {}  # connections with received bytes, by client

    def add(self, connection: "PatientProtocol", client: str) -> None:
        """Read a piece of a connection soon, after the client's other ones."""
        if not self._queues:
            connection.loop.call_soon(self._run, connection.loop)
        self._queues.setdefault(client, deque()).append(connection)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        for client, queue in [*self._queues.items()]:
            end = time.perf_counter() + SLICE_S
            while queue:
                connection = queue.popleft()
                try:
                    connection.read_piece()
                except Exception as error:  # noqa: BLE001 - as asyncio does; others are read on
                    loop.call_exception_handler({"message": "a connection can't be read", "exception": error})
                    connection.transport.abort()
                if time.perf_counter() > end:
                    break
            if not queue:
                del self._queues[client]
        if self._queues:
            loop.call_soon(self._run, loop)


class PatientProtocol(H11Protocol):
    """Connection that closes if the headers, or the rest of an already answered body, take too long.

    It also closes if the client does not read the response. uvicorn itself would wait forever. After its last response
    it waits for the client to close, because closing with unread bytes would take back the response.

    Args:
        config_of_server: Of all connections of one server, set by `with_limits`.
        reader: Of all connections of one server, set by `with_limits`.
    """

    config_of_server: ServeConfig
    reader: Reader
    _client: str
    _clocks: dict[str, asyncio.TimerHandle]
    _received: bytearray
    """Bytes that are not parsed yet."""
    _is_queued: bool
    """True if the reader will parse some of them."""
    _is_idle: bool
    """True before the first request, and after a response, until the next request begins."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; close it if there are too many."""
        config = self.config_of_server
        self._clocks = {}
        self.conn = _Connection(h11.SERVER, MAX_HEADER_BYTES)
        self._received = bytearray()
        self._is_queued = False
        self._is_idle = True
        self._client = client_of(transport.get_extra_info("peername"))
        same = sum(getattr(one, "_client", None) == self._client for one in self.connections)
        if len(self.connections) >= config.max_connections or same >= config.max_connections_each:
            transport.abort()
            return
        super().connection_made(transport)
        self.transport = _Transport(transport, self._end)  # type: ignore[assignment]
        self.flow = _Flow(transport, self.go_on)
        transport.set_write_buffer_limits(high=0)  # so that the two methods below are called for every waiting byte
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Queue received bytes for the reader; no more are received until they are parsed."""
        if self.transport.is_closing() or self.conn.their_state is h11.MUST_CLOSE:  # its last request is complete
            return
        self._received += data
        self.go_on()

    def go_on(self) -> None:
        """Parse received bytes soon, or receive more; nothing while the app is to read the body or answer first."""
        if self._received:
            self.transport.pause_reading()  # again, because uvicorn may have resumed it
        if self._is_queued or self.flow.read_paused:
            return
        if not self._received:
            self.transport.resume_reading()
        elif self.conn.their_state is not h11.DONE:  # else these are of the next request
            self._is_queued = True
            self.reader.add(self, self._client)

    def read_piece(self) -> None:
        """Parse a piece of the received bytes; in pieces, because h11 limits only headers that are incomplete."""
        self._is_queued = False
        if self.transport is None or self.transport.is_closing():  # sent away
            return
        piece = bytes(self._received[:MAX_HEADER_BYTES])
        del self._received[:MAX_HEADER_BYTES]
        self._is_idle = False
        self._stop("end")
        super().data_received(piece)
        if self.conn.their_state is h11.MUST_CLOSE:
            self._received.clear()
        self._watch()
        self.go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the client has gone."""
        if self.transport is None:
            return
        for name in [*self._clocks]:
            self._stop(name)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn does so only if there was no error

    def pause_writing(self) -> None:
        """Start the time limit for a client that reads too slowly; it covers the whole response, even after closing."""
        super().pause_writing()
        self._start("answer", self._drop)

    def resume_writing(self) -> None:
        """Stop the time limit: all bytes are sent."""
        super().resume_writing()
        self._stop("answer")
        if self.transport.is_ending:  # type: ignore[attr-defined]
            self.loop.call_soon(self._shut)  # asyncio may be about to close it

    def on_response_complete(self) -> None:
        """Wait for the rest of the request's body, or for the next request, after a response was sent."""
        self._is_idle = True
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._watch()
        self.go_on()

    def send_400_response(self, msg: str) -> None:
        """Send an error for invalid HTTP, unless a response has already begun."""
        if self.cycle is not None and not self.cycle.response_complete:  # the app must not answer, too
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            with suppress(h11.LocalProtocolError):  # to HEAD
                super().send_400_response(msg)
            self.transport.close()
        else:
            self._drop()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection when the client has read the response."""
        if self.transport.is_closing():
            return
        if self._unread():
            self._start("end", self._drop)
        else:
            super().timeout_keep_alive_handler()

    def _end(self) -> None:
        """Close the connection: at once if it is idle, else when the client does, after all that it is sending."""
        transport: _Transport = self.transport  # type: ignore[assignment]
        if self._is_idle:
            transport.transport.close()
            return
        transport.is_ending = True
        self._received.clear()
        transport.resume_reading()
        if not transport.get_write_buffer_size():  # else when it is empty
            self._shut()

    def _shut(self) -> None:
        """Tell the client that nothing more comes, and wait until it closes."""
        if self.transport.transport.is_closing():  # type: ignore[attr-defined]
            return
        try:
            self.transport.write_eof()
        except OSError:  # it has gone
            self.transport.abort()
        else:
            self._start("end", self._close_if_read, LINGER_S)

    def _close_if_read(self) -> None:
        self._stop("end")
        if self._unread():
            self._start("end", self._drop)
        else:
            self.transport.transport.close()  # type: ignore[attr-defined]

    def _give_up(self) -> None:
        """Close the connection of a client that does not send what it began."""
        if self._unread():
            self._drop()
        else:
            self.transport.transport.close()  # type: ignore[attr-defined]

    def _drop(self) -> None:
        """Close the connection and forget what the client has not read; the kernel would keep it for minutes."""
        with suppress(OSError):
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _unread(self) -> bool:
        """Return True if the client has not received everything that was sent. Only Linux tells."""
        if sys.platform != "linux":
            return False
        import fcntl  # noqa: PLC0415 - Windows lacks both
        import termios  # noqa: PLC0415

        return any(fcntl.ioctl(self.transport.get_extra_info("socket"), termios.TIOCOUTQ, bytes(4)))

    def _watch(self) -> None:
        """Start the clock when the client must send, stop it when we must. Further bytes do not restart it."""
        is_idle = self.conn.their_state is h11.IDLE
        is_late_body = self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE
        if is_idle or is_late_body:
            self._start("request", self._give_up)
        else:
            self._stop("request")

    def _start(self, name: str, give_up: Callable[[], None], seconds: float | None = None) -> None:
        """Start a time limit, unless it is running.  seconds: None: the server's."""
        if name not in self._clocks:
            self._clocks[name] = self.loop.call_later(seconds or self.config_of_server.read_timeout_s, give_up)

    def _stop(self, name: str) -> None:
        if name in self._clocks:
            self._clocks.pop(name).cancel()


def with_limits(config: ServeConfig) -> Any:
    """Return a subclass of `PatientProtocol` with one server's config; uvicorn creates an instance per connection."""
    return type("PatientProtocol", (PatientProtocol,), {"config_of_server": config, "reader": Reader()})


class Server(uvicorn.Server):
    """Server of uvicorn with our protocol, whose connections wait in the kernel.

    Args:
        limits: Of time and connections.
        keep_alive_s: Time limits for an idle connection, and for the open requests at the end; None: no limit.
        shutdown_s: Likewise.
        proxy_headers: Take the client's address from a proxy on this machine.
    """

    def __init__(
        self, app: ASGIApp, limits: ServeConfig, *, keep_alive_s: int, shutdown_s: int | None, proxy_headers: bool
    ) -> None:
        config = uvicorn.Config(
            in_pieces(app),
            http=with_limits(limits),
            ws="none",
            lifespan="on",
            log_config=None,  # uvicorn's own would close the log handlers of everything else in this process
            log_level="warning",
            access_log=False,  # the guard of `uniemox serve` writes its own line
            server_header=False,
            proxy_headers=proxy_headers,
            backlog=ACCEPTED_AT_ONCE,
            timeout_keep_alive=keep_alive_s,
            timeout_graceful_shutdown=shutdown_s,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening; asyncio has reduced the backlog of the sockets to the config's."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)
