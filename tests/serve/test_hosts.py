"""Pages of other sites can't use the server, under whatever name they reach it."""

import errno
import socket
from collections.abc import Iterator
from typing import ClassVar

import pytest

from tests.serve.serving import Running, image, predictor_of, running
from uniemox.errors import ConfigError
from uniemox_serve.app import addresses_to_share
from uniemox_serve.config import ServeConfig
from uniemox_serve.guard import own_addresses, own_names

SITE = "https://example.org"
OWN_HOST = "127.0.0.1:8000"


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    config = ServeConfig(allow_origins=(SITE, "http://other:8000", "https://Museum.example:443"))
    with running([predictor_of(folder)], config) as server:
        yield server


def post(server: Running, **headers: str) -> tuple[int, object]:
    answer = server.ask("POST", "/predict", image(), Content_Type="image/jpeg", **headers)
    return answer.status, answer.json["code"] if answer.status != 200 else None


@pytest.mark.parametrize("path", ["/", "/models", "/metrics", "/health", "/openapi.json"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil", ""])
def test_foreign_host_names_are_421(server: Running, path: str, host: str) -> None:
    answer = server.ask("GET", path, Host=host)
    assert answer.code == (421, "wrong_host")


def test_health_checks_need_no_host(server: Running) -> None:
    """Load balancers send HTTP/1.0 without a Host."""

    def status_of(request: str) -> int:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(f"{request} HTTP/1.0\r\n\r\n".encode())
            return int(connection.recv(4096).split()[1])

    assert [status_of("GET /health"), status_of("HEAD /health"), status_of("GET /health/")] == [200, 200, 200]
    # Proxies may send the whole address, which names a host but is no Host header.
    assert [status_of("GET http://127.0.0.1/health"), status_of("GET http://127.0.0.1/models")] == [200, 421]
    assert [status_of("GET /models"), status_of("GET /"), status_of("POST /health")] == [421, 421, 421]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9000", "localhost.:9000", OWN_HOST, "[::1]:8000", "192.168.0.4"]
)
def test_localhost_and_addresses_are_accepted_with_any_port(server: Running, host: str) -> None:
    assert server.ask("GET", "/models", Host=host).status == 200
    assert post(server, Host=host, Origin=f"http://{host}") == (200, None)


def test_the_names_of_this_machine_are_accepted(server: Running) -> None:
    short = socket.gethostname().partition(".")[0]
    for host in (short, f"{short.upper()}.local:8000", socket.gethostname()):
        assert server.ask("GET", "/models", Host=host).status == 200
        assert post(server, Host=host, Origin=f"http://{host}") == (200, None)
    for host in (f"{short}.evil.example", f"evil-{short}", f"{short}.local.evil.example"):
        assert server.ask("GET", "/models", Host=host).code == (421, "wrong_host")


def test_a_name_server_has_no_say_about_accepted_names(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda *_: "evil.example")
    assert server.ask("GET", "/models", Host="evil.example").code == (421, "wrong_host")


class Routes(socket.socket):
    """Sockets of a machine with the given address in each family; None: no route."""

    addresses: ClassVar[dict[int, str | None]] = {}

    def connect(self, address: object) -> None:
        if self.addresses[self.family] is None:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")

    def getsockname(self) -> tuple[str | None, int]:
        return self.addresses[self.family], 1


@pytest.mark.parametrize(
    ("four", "six", "expected"),
    [
        ("192.0.2.2", None, ["192.0.2.2"]),
        ("10.0.0.7", "2001:db8::7", ["10.0.0.7", "2001:db8::7"]),
        ("127.0.0.1", "fe80::1%eth0", []),
        (None, "::1", []),
    ],
)
def test_the_ip_addresses_are_printed_to_share_and_accepted(
    server: Running, monkeypatch: pytest.MonkeyPatch, four: str | None, six: str | None, expected: list[str]
) -> None:
    names = [f"http://{name}:80" for name in sorted(own_names())]
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Routes)
        patch.setattr(Routes, "addresses", {socket.AF_INET: four, socket.AF_INET6: six})
        assert own_addresses() == expected
        for host in ("0.0.0.0", "::"):
            reached = [address for address in expected if host == "::" or ":" not in address]
            shared = [f"[{address}]" if ":" in address else address for address in reached]
            assert addresses_to_share(host, 80) == [*(f"http://{address}:80" for address in shared), *names]
    for name in shared:
        assert server.ask("GET", "/models", Host=f"{name}:80").status == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:8001", "http://localhost:8000", ""]
)
@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_posts_from_other_origins_are_403(server: Running, path: str, origin: str) -> None:
    answer = server.ask("POST", path, image(), Content_Type="image/jpeg", Host=OWN_HOST, Origin=origin)
    assert answer.code == (403, "foreign_origin")
    assert "--allow-origin" in answer.json["error"]


def test_a_request_without_an_origin_is_accepted(server: Running) -> None:
    assert post(server) == (200, None)


def test_an_allowed_site_may_post_and_read_the_response(open_server: Running) -> None:
    answer = open_server.ask("POST", "/predict", image(), Content_Type="image/jpeg", Origin=SITE)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == SITE
    for host in ("localhost", "museum.example", "Museum.example:443"):
        assert post(open_server, Host=host, Origin="https://museum.example") == (200, None)
    assert post(open_server, Host="museum.example:80") == (421, "wrong_host")
    preflight = {
        "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": "authorization,content-type",
    }
    assert open_server.ask("OPTIONS", "/predict", Origin=SITE, **preflight).status == 200
    assert post(open_server, Origin="https://evil.example") == (403, "foreign_origin")
    foreign = open_server.ask("GET", "/models", Origin="https://evil.example")
    assert "access-control-allow-origin" not in foreign.headers


def test_a_proxy_may_pass_on_the_host_of_an_allowed_site(open_server: Running) -> None:
    assert post(open_server, Host="example.org", Origin=SITE) == (200, None)
    assert post(open_server, Host="other:8000") == (200, None)
    assert post(open_server, Host="other") == (421, "wrong_host")


@pytest.mark.parametrize("origin", ["example.org", "https://example.org/", "*", "ftp://a", "https://"])
def test_malformed_origins_are_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="must be like https://"):
        ServeConfig(allow_origins=(origin,))
