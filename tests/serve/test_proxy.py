"""The page and /docs behind nginx, which offers the server under a prefix and strips it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.serve.nginx import PREFIX, nginx_before
from tests.serve.serving import Running, image, predictor_of, running
from tests.serve.visits import DESK, Visit, expect
from uniemox.errors import ConfigError
from uniemox_serve.config import ServeConfig


@pytest.fixture(scope="module", params=["", PREFIX], ids=["without root_path", "with root_path"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    predictor = predictor_of(tmp_path_factory.mktemp("models"))
    with (
        running([predictor], ServeConfig(root_path=request.param)) as server,
        nginx_before(server.port, tmp_path_factory.mktemp("nginx")) as port,
    ):
        yield Running(port, server.server)


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_every_address_on_a_page_stays_under_the_prefix(page: str, proxy: Running) -> None:
    html = proxy.ask("GET", PREFIX + page).body.decode()
    links = [link for link in re.findall(r'(?:href|src)="([^"]+)"', html) if not link.startswith("data:")]
    assert len(links) >= 4
    for link in links:
        path = urljoin(PREFIX + page, link)
        assert path.startswith(f"{PREFIX}/"), link
        assert proxy.ask("GET", path).status == 200, path


@pytest.mark.thorough
@pytest.mark.browser
def test_page_predicts_and_explains_behind_the_prefix(open_page: Callable[..., Visit], proxy: Running) -> None:
    visit = open_page(proxy, f"{PREFIX}/", viewport=DESK)
    visit.choose(image(1, 200, 100))
    expect(visit.status).to_contain_text("1 person found")
    visit.page.get_by_role("button", name="Heat map").click()
    expect(visit.status).to_contain_text("bright areas support")
    visit.page.get_by_role("link", name="API").click()
    visit.page.locator("#operations-default-list_models").click()
    visit.page.get_by_role("button", name="Execute").click()
    status = visit.page.locator(".live-responses-table .response .response-col_status").first
    expect(status).to_contain_text("200")
    assert visit.wrong == []
    # The page asks for the models, and the trial on /docs does.
    assert visit.requested.count(f"{proxy.url}{PREFIX}/models") >= 2
    assert all(url.startswith((f"{proxy.url}{PREFIX}/", "blob:")) for url in visit.requested)


def test_schema_names_the_root_path(tmp_path: Path, server: Running) -> None:
    """A client that is generated from the schema then sends its requests under the prefix."""
    assert "servers" not in server.ask("GET", "/openapi.json").json
    with running([predictor_of(tmp_path)], ServeConfig(root_path=PREFIX)) as prefixed:
        assert prefixed.ask("GET", "/openapi.json").json["servers"] == [{"url": PREFIX}]
        assert prefixed.ask("GET", "/models").status == 200


@pytest.mark.parametrize("path", ["emotions", "/emotions/", "/"])
def test_malformed_root_paths_are_refused(path: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"root_path is '{path}'; it begins with / and does not end with it, as in /emotions"
    ):
        ServeConfig(root_path=path)
