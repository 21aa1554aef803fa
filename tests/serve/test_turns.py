"""Many requests of one client delay those of others by a few turns, not by all of them."""

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.curate.conftest import ADDRESS
from uniemox_curate.annotate.access import request_guard
from uniemox_serve.guard import REQUESTS_AT_ONCE, Guard
from uniemox_serve.metrics import Metrics

ATTACKER = ("10.0.0.1", 1)
OTHER = ("10.0.0.2", 1)
OWN_HOST = ADDRESS.removeprefix("http://")


def scope_of(client: tuple[str, int], host: str = OWN_HOST) -> dict[str, Any]:
    return {
        "type": "http",
        "client": client,
        "method": "GET",
        "path": "/health",
        "raw_path": b"/health",
        "query_string": b"",
        "headers": [(b"host", host.encode())],
    }


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
        # The real application waits for a thread.
        await asyncio.sleep(0)
        return Response()

    return lambda scope: guard(Request(scope), call_next)


@pytest.mark.parametrize("host", [OWN_HOST, "refused.example"])
@pytest.mark.parametrize("create_guard", [serve_guard, curate_guard])
def test_another_client_waits_for_a_few_requests_only(create_guard: Any, host: str) -> None:
    order = list[tuple[str, int]]()

    async def ask(guard: Any, scope: dict[str, Any]) -> None:
        await guard(scope)
        order.append(scope["client"])

    async def run() -> None:
        guard = create_guard()
        tasks = [asyncio.ensure_future(ask(guard, scope_of(ATTACKER, host))) for _ in range(200)]
        await asyncio.gather(*tasks, asyncio.ensure_future(ask(guard, scope_of(OTHER))))

    asyncio.run(run())
    assert len(order) == 201
    assert order.index(OTHER) <= 4 * REQUESTS_AT_ONCE
