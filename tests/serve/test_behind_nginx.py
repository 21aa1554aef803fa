"""Strangers' requests that end at nginx, with the configuration in docs/serve.md; the server does not see them."""

import http.client
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import wait_until
from tests.serve.nginx import PREFIX, nginx_before
from tests.serve.serving import Raw, Running, cut_off_after_s, image, predictor_of, running
from uniemox_serve.config import ServeConfig

KEY = "a-key-of-more-than-sixteen"
# Shorter times keep the tests short. The other limits are the documented ones.
CHANGES = {"client_header_timeout 10s": "client_header_timeout 1s", "client_body_timeout 10s": "client_body_timeout 1s"}
MAX_OPEN_REQUESTS = 20
POST = (f"POST {PREFIX}/predict HTTP/1.1", "Host: localhost", "Content-Type: image/jpeg")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The server itself, with a key."""
    with running([predictor_of(tmp_path_factory.mktemp("models"))], ServeConfig(), KEY) as server:
        yield server


@pytest.fixture
def proxy(server: Running, tmp_path: Path) -> Iterator[Running]:
    """nginx in front of the server; at the end the server still answers."""
    with nginx_before(server.port, tmp_path, CHANGES) as port:
        proxy = Running(port, server.server, KEY)
        yield proxy
        assert proxy.post(f"{PREFIX}/predict", image()).status == 200


def requests_seen(server: Running) -> int:
    """Return the number of requests that the server has answered."""
    text = server.ask("GET", "/metrics").body.decode()
    return sum(int(float(count)) for count in re.findall(r"^uniemox_requests_total{.*} (\S+)$", text, re.MULTILINE))


def from_another_address(proxy: Running, path: str) -> int:
    """Return the status for a client at another address."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20, source_address=("127.0.0.2", 0))
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("lines", [(), (f"GET {PREFIX}/health HTTP/1.1", "Host: localhost", "X-A: b")])
def test_missing_headers_end_at_nginx(proxy: Running, lines: tuple[str, ...]) -> None:
    raw = Raw(proxy.port).send(*lines)
    assert not proxy.server.server_state.connections
    assert raw.read().split()[1:2] in ([], [b"408"])
    assert not proxy.server.server_state.connections


def test_a_trickle_of_headers_does_not_extend_the_time_limit(proxy: Running) -> None:
    assert cut_off_after_s(Raw(proxy.port).send(f"GET {PREFIX}/health HTTP/1.1"), b"X-A: b\r\n") < 5


def test_slow_bodies_end_at_nginx_and_take_no_connection_of_the_server(proxy: Running, server: Running) -> None:
    before = requests_seen(server)
    slow = [Raw(proxy.port).send(*POST, "Content-Length: 1000", "", body=b"x") for _ in range(MAX_OPEN_REQUESTS)]
    time.sleep(0.2)
    assert not proxy.server.server_state.connections
    assert from_another_address(proxy, f"{PREFIX}/health") == 200
    for raw in slow:
        assert raw.read().split()[1:2] in ([], [b"408"])
    # The health check above, and the count before.
    assert requests_seen(server) == before + 2


def test_one_address_gets_a_limited_number_of_open_requests(server: Running, tmp_path: Path) -> None:
    """The limit of the rate is lifted, because nginx would count requests only after their wait."""
    with nginx_before(server.port, tmp_path, {"rate=10r/s": "rate=1000r/s"}) as port:
        proxy = Running(port, server.server, KEY)
        opened = [Raw(port).send(*POST, "Content-Length: 1000", "", body=b"x") for _ in range(MAX_OPEN_REQUESTS)]
        wait_until(lambda: proxy.ask("GET", f"{PREFIX}/health").status == 503)
        assert from_another_address(proxy, f"{PREFIX}/health") == 200
        for raw in opened:
            raw.socket.close()
        wait_until(lambda: proxy.ask("GET", f"{PREFIX}/health").status == 200)


def test_many_requests_of_one_address_are_slowed_down(proxy: Running) -> None:
    start = time.monotonic()
    assert {proxy.ask("GET", f"{PREFIX}/health").status for _ in range(35)} == {200}
    assert time.monotonic() - start > 1


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        (b"GET /emotions/health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", (b"400",)),
        (b"GET /emotions/health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", (b"400",)),
        (b"GET /emotions/" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", (b"414",)),
        (b"GET /emotions/health HTTP/1.1\r\nHost: localhost\r\nA b\r\n\r\n", (b"400", b"200")),
        (b"POST /emotions/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", (b"400",)),
        (b"POST /emotions/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", (b"400",)),
        (b"POST /emotions/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", (b"413",)),
    ],
)
def test_large_and_malformed_requests_end_at_nginx(
    proxy: Running, server: Running, request_bytes: bytes, statuses: tuple[bytes, ...]
) -> None:
    before = requests_seen(server)
    assert Raw(proxy.port).send(body=request_bytes).read().split()[1] in statuses
    if b"200" not in statuses:
        assert requests_seen(server) == before + 1


def test_a_body_in_tiny_chunks_reaches_the_server_whole(proxy: Running) -> None:
    data = image()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n"
    lines = (*POST, f"Authorization: Bearer {KEY}", "Transfer-Encoding: chunked", "")
    assert Raw(proxy.port).send(*lines, body=chunks).read().startswith(b"HTTP/1.1 200 ")


def test_clients_that_do_not_read_take_no_connection_of_the_server(proxy: Running) -> None:
    clients = []
    for _ in range(10):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", proxy.port))
        client.sendall(f"GET {PREFIX}/page/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        clients.append(client)
    for client in clients:
        assert client.recv(8) == b"HTTP/1.1"
    wait_until(lambda: not proxy.server.server_state.connections)
    for client in clients:
        client.close()


def test_refusals_of_large_bodies_reach_the_client(proxy: Running) -> None:
    """If the server closed with unread bytes of the body, nginx would lose its response and report 502."""
    body = bytes(9 * 2**20)
    for _ in range(5):
        refused = proxy.ask("POST", f"{PREFIX}/predict", body, Content_Type="image/jpeg", Authorization="Bearer wrong")
        assert refused.code == (401, "wrong_key")
        assert proxy.ask("POST", f"{PREFIX}/predict", body, Content_Type="text/plain").code == (415, "unsupported_type")
