"""Chromium, a server, and a visit of its page."""

from collections.abc import Callable, Iterator

import pytest

from tests.serve.serving import Running, predictor_of, running
from tests.serve.visits import DESK, Visit


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running([predictor_of(tmp_path_factory.mktemp("models"))]) as one:
        yield one


@pytest.fixture
def open_page(browser: object) -> Iterator[Callable[..., Visit]]:
    """Visits a server's page at a path, with settings of the browser's; all visits end with the test."""
    visits: list[Visit] = []

    def visited(server: Running, path: str = "", **settings: object) -> Visit:
        visits.append(Visit(browser, f"{server.url}{path}", **settings))
        return visits[-1]

    yield visited
    for one in visits:
        one.context.close()


@pytest.fixture
def visit(open_page: Callable[..., Visit], server: Running) -> Iterator[Visit]:
    one = open_page(server, viewport=DESK)
    yield one
    assert one.wrong == []
    assert all(url.startswith((server.url, "blob:")) for url in one.requested)
