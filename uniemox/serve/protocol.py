"""uvicorn's HTTP/1.1 with an end to how long it waits for a client, and to how many it waits for."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from uniemox.errors import ConfigError
from uniemox.serve.config import ServeConfig

BACKLOG = 2048  # connections that the kernel holds until they are accepted


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises ConfigError if the address is taken or invalid."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"can't listen on {host}, port {port}: {error}; choose another --port (0: any free one), or --host"
        ) from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # otherwise the end of an answer can wait for 40 ms
    return listener


class PatientProtocol(H11Protocol):
    """A connection that is closed if a request's headers, or a body that nobody reads any more, take too long.

    So is one whose client does not read its answer. uvicorn itself would wait for all of them for ever.
    config_of_server: set by `with_limits`.
    """

    config_of_server: ServeConfig
    _address: str
    _clocks: dict[str, asyncio.TimerHandle]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come; one too many is sent away."""
        config, self._clocks = self.config_of_server, {}
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        same = sum(getattr(one, "_address", None) == self._address for one in self.connections)
        if len(self.connections) >= config.max_connections or same >= config.max_connections_each:
            transport.abort()
            return
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that the two methods below hear of every byte that has to wait
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self.transport is None:  # sent away
            return
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        if self.transport is None:
            return
        self._stop("request")
        self._stop("answer")
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as we answer. It has so long for all of it, also if we have closed."""
        super().pause_writing()
        self._start("answer", self.transport.abort)

    def resume_writing(self) -> None:
        """The client has been sent everything."""
        super().resume_writing()
        self._stop("answer")

    def on_response_complete(self) -> None:
        """An answer has been sent; the rest of its request's body, or the next request, may still come."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, unless an answer is already on its way."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def _watch(self) -> None:
        """Start the clock when it is the client's turn, stop it when it is ours. More bytes do not wind it up again."""
        is_idle = self.conn.their_state is h11.IDLE
        is_late_body = self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE
        if is_idle or is_late_body:
            self._start("request", self.transport.close)
        else:
            self._stop("request")

    def _start(self, name: str, give_up: Callable[[], None]) -> None:
        """Give the client so much time, unless its clock is running."""
        if name not in self._clocks:
            self._clocks[name] = self.loop.call_later(self.config_of_server.read_timeout_s, give_up)

    def _stop(self, name: str) -> None:
        if name in self._clocks:
            self._clocks.pop(name).cancel()


def with_limits(config: ServeConfig) -> Any:
    """The protocol class for one server."""
    return type("PatientProtocol", (PatientProtocol,), {"config_of_server": config})
