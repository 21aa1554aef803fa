"""The page and /docs behind nginx, which offers the server under a prefix and strips it."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.serve.serving import Running, image, predictor_of, running
from tests.serve.visits import DESK, Visit, expect
from uniemox.errors import ConfigError
from uniemox.serve.config import ServeConfig

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")
PREFIX = "/emotions"
CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location {prefix}/ {{
            proxy_pass http://127.0.0.1:{upstream}/;
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""


@contextmanager
def nginx_before(server: Running, folder: Path) -> Iterator[Running]:
    """nginx on a free port; its address ends in the prefix."""
    if NGINX is None:
        pytest.skip("needs nginx on the PATH: apt-get install nginx")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port, prefix=PREFIX, upstream=server.port))
    words = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with (folder / "log.txt").open("w") as log, subprocess.Popen(words, stderr=log) as process:
        try:
            for _ in range(200):
                assert process.poll() is None, (folder / "log.txt").read_text()
                with socket.socket() as asked:
                    if asked.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield Running(port, server.server)
        finally:
            process.terminate()


@pytest.fixture(scope="module", params=["", PREFIX], ids=["without root_path", "with root_path"])
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = predictor_of(tmp_path_factory.mktemp("models"))
    with (
        running([models], ServeConfig(root_path=request.param)) as server,
        nginx_before(server, tmp_path_factory.mktemp("nginx")) as before,
    ):
        yield before


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_every_address_on_a_page_stays_under_the_prefix(page: str, proxy: Running) -> None:
    html = proxy.ask("GET", PREFIX + page).body.decode()
    links = [one for one in re.findall(r'(?:href|src)="([^"]+)"', html) if not one.startswith("data:")]
    assert len(links) >= 4
    for link in links:
        path = urljoin(PREFIX + page, link)
        assert path.startswith(f"{PREFIX}/"), link
        assert proxy.ask("GET", path).status == 200, path


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
    shown = visit.page.locator(".live-responses-table .response .response-col_status").first
    expect(shown).to_contain_text("200")
    assert visit.wrong == []
    assert visit.requested.count(f"{proxy.url}{PREFIX}/models") >= 2  # by the page, and as tried out
    assert all(url.startswith((f"{proxy.url}{PREFIX}/", "blob:")) for url in visit.requested)


def test_schema_names_the_root_path_alone(tmp_path: Path, server: Running) -> None:
    """So that a client that is made from the schema asks under the prefix."""
    assert "servers" not in server.ask("GET", "/openapi.json").json
    with running([predictor_of(tmp_path)], ServeConfig(root_path=PREFIX)) as prefixed:
        assert prefixed.ask("GET", "/openapi.json").json["servers"] == [{"url": PREFIX}]
        assert prefixed.ask("GET", "/models").status == 200


@pytest.mark.parametrize("path", ["emotions", "/emotions/", "/"])
def test_other_root_paths_are_refused(path: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"root_path is '{path}'; it begins with / and does not end with it, as in /emotions"
    ):
        ServeConfig(root_path=path)
