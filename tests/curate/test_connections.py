"""What waits too long, or is one connection too many, is closed; whoever asks properly is answered."""

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.curate.places import project_of, served
from uniemox.curate.annotate.access import invite
from uniemox.curate.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_of(tmp_path / "p", ["awe"])


@pytest.fixture
def port(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr("uniemox.curate.annotate.access.READ_TIMEOUT_S", 0.5)
    monkeypatch.setattr("uniemox.curate.annotate.serving.MAX_CONNECTIONS", 8)
    with served(project) as address:
        yield int(address.rpartition(":")[2])


def connect(port: int, sent: bytes = b"") -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), timeout=20)
    one.sendall(sent)
    return one


def head(port: int, length: int) -> bytes:
    lines = ["POST /api/join HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Origin: http://127.0.0.1:{port}"]
    lines += ["Content-Type: application/json", f"Content-Length: {length}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode()


def rest_of(one: socket.socket) -> bytes:
    """What comes until the server closes."""
    found = b""
    try:
        while part := one.recv(65536):
            found += part
    except ConnectionResetError:
        return found
    return found


def status_of(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/join")
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("sent", [b"", b"GET /join HTTP/1.1\r\nHost: x\r\nX-A"])
def test_missing_headers_time_out(port: int, sent: bytes) -> None:
    assert rest_of(connect(port, sent)) == b""


def test_a_missing_body_times_out_with_408(port: int) -> None:
    answer = rest_of(connect(port, head(port, 60) + b"{"))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not arrive within 0.5 s" in answer


def test_a_body_in_pieces_is_accepted(port: int, project: Project) -> None:
    body = json.dumps({"token": invite(project, "Ada")}).encode()
    one = connect(port, head(port, len(body)))
    for byte in body:
        one.sendall(bytes([byte]))
    answer = rest_of(one)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"role":"annotator"' in answer


def test_idle_connections_are_closed(port: int) -> None:
    assert status_of(port) == 200
    idle = [connect(port) for _ in range(30)]
    assert all(rest_of(one) == b"" for one in idle)
    assert status_of(port) == 200
