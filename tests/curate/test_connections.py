"""Slow bodies, too many connections, and requests through nginx with the documented configuration."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.curate.places import project_of, served
from tests.processes import wait_until
from tests.serve.nginx import PREFIX, nginx_before
from uniemox_curate.annotate.access import invite
from uniemox_curate.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_of(tmp_path / "p", ["awe"])


@pytest.fixture
def port(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr("uniemox_curate.annotate.access.READ_TIMEOUT_S", 0.5)
    monkeypatch.setattr("uniemox_curate.annotate.serving.MAX_CONNECTIONS", 8)
    with served(project) as address:
        yield int(address.rpartition(":")[2])


def connect(port: int, sent: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(sent)
    return client


def head(port: int, length: int) -> bytes:
    lines = ["POST /api/join HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Origin: http://127.0.0.1:{port}"]
    lines += ["Content-Type: application/json", f"Content-Length: {length}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode()


def rest_of(client: socket.socket) -> bytes:
    """What comes until the server closes."""
    received = b""
    try:
        while part := client.recv(65536):
            received += part
    except ConnectionResetError:
        return received
    return received


def status_of(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/join")
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_missing_body_times_out_with_408(port: int) -> None:
    answer = rest_of(connect(port, head(port, 60) + b"{"))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 0.5 s" in answer


def test_a_body_in_pieces_is_accepted(port: int, project: Project) -> None:
    body = json.dumps({"token": invite(project, "Ada")}).encode()
    client = connect(port, head(port, len(body)))
    for byte in body:
        client.sendall(bytes([byte]))
    answer = rest_of(client)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"role":"annotator"' in answer


def test_requests_above_the_limit_on_connections_are_503(port: int) -> None:
    assert status_of(port) == 200
    idle = [connect(port) for _ in range(8)]
    wait_until(lambda: status_of(port) == 503)
    for connection in idle:
        connection.close()
    wait_until(lambda: status_of(port) == 200)


def test_an_annotator_joins_through_nginx(project: Project, port: int, tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir()
    changes = {
        f"location {PREFIX}/": "location /",
        "$http_host;": f"127.0.0.1:{port}; proxy_set_header X-Forwarded-For $remote_addr;",
    }
    with nginx_before(port, folder, changes) as proxy_port:
        body = json.dumps({"token": invite(project, "Ada")}).encode()
        headers = {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", proxy_port, timeout=20)
        connection.request("POST", "/api/join", body, headers)
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["role"]) == (200, "annotator")
        # The server refuses it by its length and does not use the body; nginx must not report 502.
        connection.request("POST", "/api/join", bytes(2**20), headers)
        assert connection.getresponse().status == 413
        connection.close()
