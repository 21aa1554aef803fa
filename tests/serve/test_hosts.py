"""Pages of other sites can't use the server, under whatever name they reach it."""

from collections.abc import Iterator

import pytest

from tests.serve.serving import Running, image, predictor_of, running
from uniemox.errors import ConfigError
from uniemox.serve.config import ServeConfig

SITE = "https://example.org"
ME = "127.0.0.1:8000"


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    with running(
        [predictor_of(folder)], ServeConfig(allow_origins=(SITE, "http://other:8000", "https://Museum.example:443"))
    ) as one:
        yield one


def post(server: Running, **headers: str) -> tuple[int, object]:
    answer = server.ask("POST", "/predict", image(), Content_Type="image/jpeg", **headers)
    return answer.status, answer.json["code"] if answer.status != 200 else None


@pytest.mark.parametrize("path", ["/", "/models", "/metrics", "/health", "/openapi.json"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil", ""])
def test_a_name_that_is_not_ours_gets_nothing(server: Running, path: str, host: str) -> None:
    answer = server.ask("GET", path, Host=host)
    assert answer.code == (421, "wrong_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", ME, "[::1]:8000", "192.168.0.4"])
def test_localhost_and_addresses_are_answered_at_any_port(server: Running, host: str) -> None:
    assert server.ask("GET", "/models", Host=host).status == 200
    assert post(server, Host=host, Origin=f"http://{host}") == (200, None)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:8001", "http://localhost:8000", ""]
)
@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_a_page_of_another_origin_may_not_post(server: Running, path: str, origin: str) -> None:
    answer = server.ask("POST", path, image(), Content_Type="image/jpeg", Host=ME, Origin=origin)
    assert answer.code == (403, "foreign_origin")
    assert "--allow-origin" in answer.json["error"]


def test_a_program_without_an_origin_may_post(server: Running) -> None:
    assert post(server) == (200, None)


def test_an_allowed_site_may_post_and_read_the_answer(open_server: Running) -> None:
    answer = open_server.ask("POST", "/predict", image(), Content_Type="image/jpeg", Origin=SITE)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == SITE
    for host in ("localhost", "museum.example", "Museum.example:443"):
        assert post(open_server, Host=host, Origin="https://museum.example") == (200, None)
    assert post(open_server, Host="museum.example:80") == (421, "wrong_host")
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}
    assert open_server.ask("OPTIONS", "/predict", Origin=SITE, **asked).status == 200
    assert post(open_server, Origin="https://evil.example") == (403, "foreign_origin")
    read = open_server.ask("GET", "/models", Origin="https://evil.example")
    assert "access-control-allow-origin" not in read.headers


def test_a_proxy_may_pass_the_name_of_an_allowed_site_on(open_server: Running) -> None:
    assert post(open_server, Host="example.org", Origin=SITE) == (200, None)
    assert post(open_server, Host="other:8000") == (200, None)
    assert post(open_server, Host="other") == (421, "wrong_host")


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "*", "ftp://a", "https://"])
def test_an_origin_that_is_none_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="must be like https://"):
        ServeConfig(allow_origins=(origin,))
