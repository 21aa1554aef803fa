"""Requests that are too large, too many, too slow or malformed: each gets its own status; the server keeps running."""

import inspect
import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.images import png_header
from tests.processes import wait_until
from tests.serve.serving import Raw, Running, form, image, predictor_of, running, upload
from uniemox_serve.config import ServeConfig
from uniemox_serve.routes import open_routes, routes
from uniemox_serve.server import DRAIN_S

CONFIG = ServeConfig(max_mb=0.1, max_files=3, read_timeout_s=0.5, max_megapixels=1, timeout_s=5)
MAX_BYTES = CONFIG.max_bytes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running([predictor_of(tmp_path_factory.mktemp("models"))], CONFIG) as server:
        yield server
        # It still answers, whatever it was sent.
        assert server.post("/predict", image()).status == 200


def test_a_body_of_the_maximum_size_is_read_and_one_byte_more_is_413(server: Running) -> None:
    # A JPEG may have other bytes after its end.
    largest = image() + bytes(MAX_BYTES - len(image()))
    assert server.ask("POST", "/predict", largest, Content_Type="image/jpeg").status == 200
    for body in (largest + b"\0", iter([largest, b"\0"]), bytes(50 * MAX_BYTES)):
        assert server.ask("POST", "/predict", body, Content_Type="image/jpeg").code == (413, "too_large")


def test_a_content_length_over_the_limit_is_refused_before_the_body_is_sent(server: Running) -> None:
    raw = upload(server.port, 10**10)
    assert raw.read().startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_over_the_limit_is_refused_before_its_end(server: Running) -> None:
    body = b"%x\r\n%s\r\n" % (MAX_BYTES + 1, bytes(MAX_BYTES + 1))
    raw = upload(server.port, None, body)
    assert raw.read().startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_sends_everything_before_it_reads_gets_its_refusal(server: Running, version: str) -> None:
    """Proxies do so. If the server closed with unread bytes, the kernel would take back its response."""
    body = bytes(MAX_BYTES)
    lines = (f"POST /predict HTTP/{version}", "Host: localhost", "Content-Type: text/plain", "Connection: close")
    for _ in range(20):
        raw = Raw(server.port).send(*lines, f"Content-Length: {len(body)}", "", body=body)
        assert raw.read().startswith(b"HTTP/1.1 415 ")


def test_a_refusal_does_not_wait_for_a_body_that_the_client_holds_back(server: Running) -> None:
    """As curl does with large bodies; it does not send them after a refusal."""
    lines = ("POST /predict HTTP/1.1", "Host: localhost", "Content-Type: text/plain", "Content-Length: 1000")
    start = time.monotonic()
    assert Raw(server.port).send(*lines, "Expect: 100-continue", "").read().startswith(b"HTTP/1.1 415 ")
    assert time.monotonic() - start < DRAIN_S / 2


def test_a_refusal_waits_for_a_slow_body_for_a_limited_time(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniemox_serve.server.DRAIN_S", 0.2)
    start = time.monotonic()
    assert upload(server.port, 1000, b"x", "text/plain").read().startswith(b"HTTP/1.1 415 ")
    assert 0.2 <= time.monotonic() - start < 5


def test_a_slow_reader_gets_the_whole_response(server: Running) -> None:
    expected = server.ask("GET", "/openapi.json").body
    raw = Raw(server.port)
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    raw.send("GET /openapi.json HTTP/1.1", "Host: localhost", "")
    time.sleep(0.2)
    assert raw.read().endswith(expected)


def test_too_many_files_are_413(server: Running) -> None:
    assert server.post("/predict", *[image()] * 3).status == 200
    assert server.post("/predict", *[image()] * 4).code == (413, "too_many_files")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Content_Type": "imagejpeg"},
        {"Content_Type": "video/mp4"},
        {"Content_Type": "multipart/mixed; boundary=x"},
        {"Content_Type": "\xff; =;"},
        {"Content_Type": "image/jpeg", "Content_Encoding": "gzip"},
    ],
)
def test_other_types_are_415(server: Running, headers: dict[str, str]) -> None:
    assert server.ask("POST", "/predict", image(), **headers).code == (415, "unsupported_type")


@pytest.mark.parametrize(
    "kind", ["jpg", "pjpeg", "x-png", "*", "x-ms-bmp", "apng", "x-adobe-dng", "svg+xml", "JPEG; q=1"]
)
def test_any_image_type_is_accepted_because_the_bytes_decide(server: Running, kind: str) -> None:
    """Browsers and clients have many names for one format."""
    headers = {"Content_Type": f"image/{kind}"}
    assert server.ask("POST", "/predict", image(), **headers).status == 200
    assert server.ask("POST", "/predict", b"<svg/>", **headers).code == (422, "unreadable_picture")


@pytest.mark.parametrize("path", ["/predict/", "/explain/", "/models/", "/docs/", "/page/style.css/"])
def test_a_trailing_slash_is_404_and_not_redirected(server: Running, path: str) -> None:
    """Behind a proxy that speaks https, it would lead to plain http, and clients would send their images there."""
    for method in ("GET", "POST"):
        answer = server.ask(method, path, image(), Content_Type="image/jpeg")
        assert answer.code == (404, "not_found")
        assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "multipart/form-data", (400, "malformed_body")),
        (b"", "multipart/form-data; boundary=", (400, "malformed_body")),
        (b"", "multipart/form-data; boundary=x", (400, "malformed_body")),
        (b"nonsense", "multipart/form-data; boundary=x", (400, "malformed_body")),
        (form([image()])[0][:-10], form([])[1], (400, "malformed_body")),
        (form([image()])[0], "multipart/form-data; boundary=" + "y" * 300, (400, "malformed_body")),
        (b"--x\r\n" + b"A: b\r\n" * 9000, "multipart/form-data; boundary=x", (400, "malformed_body")),
        (form([image()])[0], form([])[1] + ";" * 101, (400, "malformed_body")),
        (form([image()], [";" * 101])[0], form([])[1], (400, "malformed_body")),
        (form([image()], field_name="file")[0], form([])[1], (422, "unknown_field")),
        (form([])[0], form([])[1], (422, "no_picture")),
        (b"", "image/png", (422, "no_picture")),
    ],
)
def test_malformed_bodies_are_refused(server: Running, body: bytes, kind: str, status: tuple[int, str]) -> None:
    assert server.ask("POST", "/predict", body, Content_Type=kind).code == status


def test_a_name_with_semicolons_is_kept(server: Running) -> None:
    assert server.post("/predict", image(), names=[";" * 90]).json[0]["name"] == ";" * 90


def test_cookies_are_not_parsed(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """http.cookies takes 2 s for 32 KB of backslashes, and FastAPI calls it for every route."""
    monkeypatch.delattr("http.cookies._unquote")
    assert server.ask("GET", "/health", Cookie='a="' + "\\" * 30_000 + '"').status == 200


def test_images_with_too_many_pixels_are_refused_by_their_header(server: Running) -> None:
    buffer = io.BytesIO()
    Image.new("1", (1200, 900)).save(buffer, "PNG")
    answers = server.post("/predict", png_header(30_000, 30_000), buffer.getvalue(), image()).json
    assert "more than the 100 megapixels" in answers[0]["error"]
    assert answers[1]["error"] == "image: 1200 x 900 px is more than the 1 megapixels that are read; scale it down"
    assert answers[2]["scene"]


def test_a_slow_body_is_408(server: Running) -> None:
    raw = upload(server.port, 100)
    answer = raw.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"too_slow"' in answer
    assert raw.is_closed


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA b\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: [::]\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 20_000,
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ],
)
def test_malformed_http_is_refused(server: Running, request_bytes: bytes) -> None:
    response = Raw(server.port).send(body=request_bytes).read()
    assert response == b"" or response.split()[1] in (b"400", b"501")


@pytest.mark.parametrize(
    "large",
    [
        b"/ HTTP/1.1\r\nX: " + b"a" * 70_000,
        b"/ HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
        b"/" + b"a" * 70_000 + b" HTTP/1.1",
    ],
    ids=["header", "headers", "path"],
)
def test_large_headers_take_one_answer_at_most(server: Running, large: bytes) -> None:
    """They are refused if they arrive in parts: h11 limits incomplete headers only."""
    response = Raw(server.port).send(body=b"GET " + large + b"\r\nHost: localhost\r\n\r\n").read()
    assert response.split()[1] in (b"200", b"400", b"404")
    assert server.ask("GET", "/health").status == 200


def test_all_routes_and_dependencies_are_coroutines() -> None:
    """Other functions would wait for one of 40 threads, so that requests of one client would delay those of others."""
    all_routes = [*routes.routes, *open_routes.routes]
    functions = [route.endpoint for route in all_routes]
    functions += [dependency.call for route in all_routes for dependency in route.dependant.dependencies]
    assert len(functions) > 12
    assert all(map(inspect.iscoroutinefunction, functions))


def test_requests_above_the_limit_on_connections_are_503(tmp_path: Path) -> None:
    with running([predictor_of(tmp_path)], ServeConfig(max_connections=3)) as server:
        idle = [Raw(server.port) for _ in range(2)]
        wait_until(lambda: len(server.server.server_state.connections) == 2)
        assert server.ask("GET", "/health").status == 200
        idle.append(Raw(server.port))
        wait_until(lambda: len(server.server.server_state.connections) == 3)
        refused = server.ask("GET", "/health")
        assert (refused.status, refused.body) == (503, b"Service Unavailable")
        for raw in idle:
            raw.socket.close()
        wait_until(lambda: not server.server.server_state.connections)
        assert server.ask("GET", "/health").status == 200
