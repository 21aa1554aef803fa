"""Chromium, a server, and a visit of its page."""

from collections.abc import Iterator

import pytest

from tests.serve.serving import Running, predictor_of, running
from tests.serve.visits import Visit


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running([predictor_of(tmp_path_factory.mktemp("models"))]) as one:
        yield one


@pytest.fixture
def visit(browser: object, server: Running) -> Iterator[Visit]:
    one = Visit(browser, server.url, viewport={"width": 1000, "height": 900})
    yield one
    assert one.wrong == []
    assert all(url.startswith((server.url, "blob:")) for url in one.requested)
    one.context.close()
