"""Many requests of one client delay those of others by a few turns, not by all of them."""

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.curate.conftest import ADDRESS
from uniemox.curate.annotate.access import request_guard
from uniemox.serve.config import ServeConfig
from uniemox.serve.guard import AT_ONCE, Guard
from uniemox.serve.metrics import Metrics
from uniemox.serve.protocol import Reader, with_limits

ATTACKER = ("10.0.0.1", 1)
OTHER = ("10.0.0.2", 1)


OWN_HOST = ADDRESS.removeprefix("http://")


def scope_of(client: tuple[str, int], host: str = OWN_HOST) -> dict[str, Any]:
    more = {"method": "GET", "path": "/health", "raw_path": b"/health", "query_string": b""}
    return {"type": "http", "client": client, "headers": [(b"host", host.encode())], **more}


def serve_guard() -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Answer."""

    async def send(message: Any) -> None:
        """Drop it."""

    guard = Guard(app, Metrics(), [ADDRESS])
    return lambda scope: guard(scope, None, send)  # type: ignore[arg-type]


def curate_guard() -> Any:
    guard = request_guard([ADDRESS])

    async def call_next(request: Request) -> Response:
        await asyncio.sleep(0)  # for a thread
        return Response()

    return lambda scope: guard(Request(scope), call_next)


@pytest.mark.parametrize("host", [OWN_HOST, "refused.example"])
@pytest.mark.parametrize("make", [serve_guard, curate_guard])
def test_another_client_waits_for_a_few_requests_only(make: Any, host: str) -> None:
    order = list[tuple[str, int]]()

    async def ask(guard: Any, scope: dict[str, Any]) -> None:
        await guard(scope)
        order.append(scope["client"])

    async def run() -> None:
        guard = make()
        tasks = [asyncio.ensure_future(ask(guard, scope_of(ATTACKER, host))) for _ in range(200)]
        await asyncio.gather(*tasks, asyncio.ensure_future(ask(guard, scope_of(OTHER))))

    asyncio.run(run())
    assert len(order) == 201
    assert order.index(OTHER) <= 4 * AT_ONCE


def test_connections_of_an_ipv6_network_are_counted_together() -> None:
    kind = with_limits(ServeConfig(max_connections=4))
    protocol = object.__new__(kind)
    closed = list[bool]()
    protocol.connections = [SimpleNamespace(_client="2001:db8::/64")] * 2
    transport = SimpleNamespace(
        get_extra_info=lambda name: ("2001:db8::7", 80, 0, 0), abort=lambda: closed.append(True)
    )
    protocol.connection_made(transport)
    assert closed == [True]


def test_pieces_of_many_connections_are_read_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can't be read is closed, and the others are read."""
    monkeypatch.setattr("uniemox.serve.protocol.SLICE_S", -1.0)
    order = list[str]()
    closed = list[str]()
    reader = Reader()

    def read(name: str, is_broken: bool) -> None:
        order.append(name)
        if is_broken:
            raise ValueError("expected")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        for name, number in [*(("attacker", number) for number in range(100)), ("other", 0)]:
            transport = SimpleNamespace(abort=partial(closed.append, name))
            piece = partial(read, name, number == 1)
            reader.add(SimpleNamespace(loop=loop, transport=transport, read_piece=piece), name)  # type: ignore[arg-type]
        while len(order) < 101:
            await asyncio.sleep(0)

    asyncio.run(run())
    assert order.index("other") == 1
    assert closed == ["attacker"]
