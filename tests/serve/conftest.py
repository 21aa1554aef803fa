"""Chromium, a server, and a visit of its page."""

from collections.abc import Callable, Iterator

import pytest

from tests.serve.serving import Running, predictor_of, running
from tests.serve.visits import DESK, Visit


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running([predictor_of(tmp_path_factory.mktemp("models"))]) as server:
        yield server


@pytest.fixture
def open_page(browser: object) -> Iterator[Callable[..., Visit]]:
    """Opens a server's page at a path, with settings of the browser's; all pages are closed after the test."""
    visits: list[Visit] = []

    def open_visit(server: Running, path: str = "", **settings: object) -> Visit:
        visits.append(Visit(browser, f"{server.url}{path}", **settings))
        return visits[-1]

    yield open_visit
    for visit in visits:
        visit.context.close()


@pytest.fixture
def visit(open_page: Callable[..., Visit], server: Running) -> Iterator[Visit]:
    visit = open_page(server, viewport=DESK)
    yield visit
    assert visit.wrong == []
    assert all(url.startswith((server.url, "blob:")) for url in visit.requested)
