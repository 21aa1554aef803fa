"""Too large, too many, too slow, malformed: each is refused with its own status, and the server goes on."""

import asyncio
import inspect
import io
import socket
import struct
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from starlette.responses import Response
from starlette.types import Message

from tests.images import png_header
from tests.processes import wait_until
from tests.serve.serving import Raw, Running, cut_off_after_s, form, image, predictor_of, running, upload
from uniemox.serve.config import ServeConfig
from uniemox.serve.protocol import BUFFER_BYTES, PIECE_BYTES, in_pieces, listen
from uniemox.serve.routes import open_routes, routes

CONFIG = ServeConfig(max_mb=0.1, max_files=3, read_timeout_s=0.5, max_megapixels=1, timeout_s=5)
MOST = CONFIG.max_bytes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running([predictor_of(tmp_path_factory.mktemp("models"))], CONFIG) as one:
        yield one
        assert one.post("/predict", image()).status == 200  # whatever it was sent, it goes on


def test_a_body_of_the_limit_is_read_and_one_byte_more_is_not(server: Running) -> None:
    fits = image() + bytes(MOST - len(image()))  # a JPEG may have anything behind it
    assert server.ask("POST", "/predict", fits, Content_Type="image/jpeg").status == 200
    for body in (fits + b"\0", iter([fits, b"\0"]), bytes(50 * MOST)):
        assert server.ask("POST", "/predict", body, Content_Type="image/jpeg").code == (413, "too_large")


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(server: Running) -> None:
    raw = upload(server.port, 10**10)
    assert raw.read().startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_is_refused_while_it_comes(server: Running) -> None:
    body = b"%x\r\n%s\r\n" % (MOST + 1, bytes(MOST + 1))
    raw = upload(server.port, None, body)
    assert raw.read().startswith(b"HTTP/1.1 413 ")  # its end has not been sent


@pytest.mark.parametrize(("size", "status"), [(100, b"400"), (1024, b"200")])
def test_a_body_in_many_tiny_chunks_is_refused_while_it_comes(server: Running, size: int, status: bytes) -> None:
    body = image() + bytes(MOST - len(image()))
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    raw = upload(server.port, None, chunks + (b"0\r\n\r\n" if status == b"200" else b""))
    assert raw.read().split()[1] == status


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_first_sends_everything_gets_its_refusal(server: Running, version: str) -> None:
    """As nginx does, with HTTP/1.0. If the server closed with unread bytes, the kernel would take back its answer."""
    body = bytes(5 * 10**6)
    lines = (f"POST /predict HTTP/{version}", "Host: localhost", "Content-Type: image/jpeg", "Connection: close")
    raw = Raw(server.port).send(*lines, f"Content-Length: {len(body)}", "", body=body)
    assert raw.read().startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("more", [b"\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_bytes_after_the_last_request_are_ignored(server: Running, more: bytes) -> None:
    data = image()
    kind = "Content-Type: image/jpeg"
    lines = ("POST /predict HTTP/1.1", "Host: localhost", "Connection: close", kind, f"Content-Length: {len(data)}", "")
    raw = Raw(server.port).send(*lines, body=data)
    time.sleep(0.01)
    assert raw.send(body=more).read().startswith(b"HTTP/1.1 200 ")


def test_lines_of_a_body_do_not_count_as_headers(server: Running) -> None:
    """Headers may end in line feeds alone."""
    data = image() + b"\n" * 1000
    head = f"POST /predict HTTP/1.1\nHost: localhost\nContent-Type: image/jpeg\nContent-Length: {len(data)}\n\n"
    assert Raw(server.port).send(body=head.encode() + data).read().startswith(b"HTTP/1.1 200 ")


def test_a_long_list_of_proxies_is_400(server: Running) -> None:
    forwarded = "X-Forwarded-For: " + ", ".join(["10.0.0.1"] * 200)
    assert Raw(server.port).send("GET /health HTTP/1.1", "Host: localhost", forwarded, "").read().split()[1] == b"400"


def test_the_kernel_keeps_little_of_what_is_not_read() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                assert connection.getsockopt(socket.SOL_SOCKET, buffer) <= 2 * BUFFER_BYTES


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 3 * PIECE_BYTES - 1])
def test_a_large_answer_is_sent_in_pieces(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    sent = list[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    asyncio.run(in_pieces(Response(body[:size]))({"type": "http", "method": "GET", "headers": []}, receive, send))
    assert b"".join(one.get("body", b"") for one in sent) == body[:size]
    assert max(len(one.get("body", b"")) for one in sent) <= PIECE_BYTES
    assert [one.get("more_body", False) for one in sent[1:]] == [True] * (len(sent) - 2) + [False]


def test_an_answer_that_waits_for_its_client_is_not_copied() -> None:
    """The same file for a thousand clients must take its memory once."""
    response = Response(bytes(2**24))

    async def send(message: Message) -> None:
        assert tracemalloc.get_traced_memory()[0] < 4 * PIECE_BYTES

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    tracemalloc.start()
    try:
        asyncio.run(in_pieces(response)({"type": "http", "method": "GET", "headers": []}, receive, send))
    finally:
        tracemalloc.stop()


def test_who_does_not_read_stays_counted_until_it_is_dropped(server: Running) -> None:
    """So that its unread answers, which the kernel keeps, are not more than one for each connection."""
    raw = Raw(server.port)
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    raw.send("GET /page/swagger-ui-bundle.js HTTP/1.1", "Host: localhost", "Connection: close", "")
    wait_until(lambda: bool(server.server.server_state.connections))
    wait_until(lambda: not server.server.server_state.connections)
    with pytest.raises(ConnectionResetError):
        list(iter(partial(raw.socket.recv, 65536), b""))


def test_connections_that_end_in_every_way_leave_no_traceback(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """Reset after an answer; an invalid body with its headers, also to HEAD; an invalid body during a long answer."""
    for method, path in (("GET", "/health"), ("HEAD", "/health"), ("GET", "/page/swagger-ui-bundle.js")):
        lines = (f"{method} {path} HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked", "")
        assert Raw(server.port).send(*lines, "zz").read().startswith(b"HTTP/1.1 400 ")
        raw = Raw(server.port)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        raw.send(*lines)
        time.sleep(0.1)
        with suppress(OSError):
            raw.send("zz")
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.socket.close()
        raw = Raw(server.port).send(f"{method} /health HTTP/1.1", "Host: localhost", "")
        time.sleep(0.05)
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.socket.close()
    time.sleep(server.server.config.timeout_keep_alive + 0.5)
    assert "Traceback" not in caplog.text


def test_a_byte_after_an_unread_answer_does_not_leave_it_to_the_kernel(server: Running) -> None:
    raw = Raw(server.port)
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    raw.send(*("GET /openapi.json HTTP/1.1", "Host: localhost", "") * 2)
    time.sleep(0.2)
    raw.send(body=b"G")
    wait_until(lambda: not server.server.server_state.connections)
    with pytest.raises(ConnectionResetError):
        list(iter(partial(raw.socket.recv, 65536), b""))


def test_who_goes_on_sending_what_nobody_reads_is_cut_off(server: Running) -> None:
    raw = upload(server.port, 10**10)
    assert b"413" in raw.read()
    assert cut_off_after_s(raw, bytes(1000)) < 5


def test_requests_that_are_sent_at_once_take_little_memory(server: Running) -> None:
    """What is received is parsed only when the request before is answered."""
    connections = server.server.server_state.connections
    wait_until(lambda: not connections)
    one = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    waiting = list[int]()
    data = memoryview(one * (2**21 // len(one)))
    answers = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        wait_until(lambda: connections)
        [connection] = connections
        client.settimeout(0.01)
        while answers.count(b"HTTP/1.1 415 ") < 100:
            with suppress(TimeoutError):
                data = data[client.send(data) :]
            with suppress(TimeoutError):
                answers += client.recv(2**20)
            waiting.append(len(connection._received) + len(connection.conn.trailing_data[0]))
    assert max(waiting) < 2**19


@pytest.mark.parametrize(("asked", "left"), [(300, "much"), (1, "little")])
def test_who_does_not_read_the_answers_is_cut_off(server: Running, asked: int, left: str) -> None:
    """Much is more than 64 KiB, after which a transport says so by itself; little is the rest of one closed answer."""
    connections = server.server.server_state.connections
    wait_until(lambda: not connections)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", server.port))
        wait_until(lambda: connections)
        [connection] = connections
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        last = "Connection: close\r\n" if asked == 1 else ""
        client.sendall(f"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n{last}\r\n".encode() * asked)
        wait_until(connection.transport.get_write_buffer_size)
        wait_until(lambda: not connections)


def test_who_reads_slowly_gets_the_whole_answer(server: Running) -> None:
    whole = server.ask("GET", "/openapi.json").body
    raw = Raw(server.port)
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    raw.send("GET /openapi.json HTTP/1.1", "Host: localhost", "")
    time.sleep(0.2)
    assert raw.read().endswith(whole)


def test_too_many_files(server: Running) -> None:
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
def test_the_bytes_decide_whatever_image_type_is_sent(server: Running, kind: str) -> None:
    """Browsers and clients have many names for one format."""
    sent = {"Content_Type": f"image/{kind}"}
    assert server.ask("POST", "/predict", image(), **sent).status == 200
    assert server.ask("POST", "/predict", b"<svg/>", **sent).code == (422, "unreadable_picture")


@pytest.mark.parametrize("path", ["/predict/", "/explain/", "/models/", "/health/", "/docs/", "/page/style.css/"])
def test_a_trailing_slash_is_no_redirect(server: Running, path: str) -> None:
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
def test_malformed_bodies(server: Running, body: bytes, kind: str, status: tuple[int, str]) -> None:
    assert server.ask("POST", "/predict", body, Content_Type=kind).code == status


def test_a_name_with_semicolons_is_kept(server: Running) -> None:
    assert server.post("/predict", image(), names=[";" * 90]).json[0]["name"] == ";" * 90


def test_cookies_are_not_parsed(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """http.cookies takes 2 s for 32 KB of backslashes, and FastAPI calls it for every route."""
    monkeypatch.delattr("http.cookies._unquote")
    assert server.ask("GET", "/health", Cookie='a="' + "\\" * 30_000 + '"').status == 200


@pytest.mark.parametrize("path", ["/predict", "/health", "/nowhere"])
def test_a_query_over_4_kib_is_refused(server: Running, path: str) -> None:
    assert server.ask("GET", f"{path}?{'a&' * 2000}").status != 414
    assert server.ask("GET", f"{path}?{'a&' * 2100}").code == (414, "query_too_long")


def test_images_that_would_be_too_large_once_decoded_are_refused_by_their_header(server: Running) -> None:
    buffer = io.BytesIO()
    Image.new("1", (1200, 900)).save(buffer, "PNG")
    answers = server.post("/predict", png_header(30_000, 30_000), buffer.getvalue(), image()).json
    assert "more than the 100 megapixels" in answers[0]["error"]
    assert answers[1]["error"] == "image: 1200 x 900 px is more than the 1 megapixels that are read; scale it down"
    assert answers[2]["scene"]


def test_a_body_that_comes_too_slowly_is_408(server: Running) -> None:
    raw = upload(server.port, 100)
    answer = raw.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"too_slow"' in answer
    assert raw.is_closed


@pytest.mark.parametrize("lines", [(), ("GET /health HTTP/1.1", "Host: localhost", "X-A: b")])
def test_headers_that_do_not_come_are_not_waited_for(server: Running, lines: tuple[str, ...]) -> None:
    start = time.monotonic()
    raw = Raw(server.port).send(*lines)
    assert raw.is_closed
    assert time.monotonic() - start < 5


def test_a_trickle_of_headers_does_not_wind_up_the_clock(server: Running) -> None:
    assert cut_off_after_s(Raw(server.port).send("GET /health HTTP/1.1"), b"X-A: b\r\n") < 5


def test_a_second_request_on_the_same_connection_has_its_own_time(server: Running) -> None:
    raw = Raw(server.port)
    for _ in range(4):
        raw.send("GET /health HTTP/1.1", "Host: localhost", "")
        assert b'"ready":true' in raw.read()
        time.sleep(0.2)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        *(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * count + b"\r\n" for count in (101, 20_000)),
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: [::]\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 20_000,
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400(server: Running, sent: bytes) -> None:
    raw = Raw(server.port)
    raw.send(body=sent)
    answer = raw.read()
    assert answer == b"" or answer.split()[1] in (b"400", b"431", b"501")


def test_no_request_waits_for_a_thread() -> None:
    """There are 40, so that requests of one client would delay those of others."""
    calls = [one for route in (*routes.routes, *open_routes.routes) for one in (route, *route.dependant.dependencies)]
    assert len(calls) > 12
    assert all(inspect.iscoroutinefunction(getattr(one, "endpoint", None) or one.call) for one in calls)


def test_one_connection_too_many_is_closed(tmp_path: Path) -> None:
    with running([predictor_of(tmp_path)], ServeConfig(max_connections=2)) as server:
        first = Raw(server.port)
        second = Raw(server.port)
        wait_until(lambda: len(server.server.server_state.connections) == 2)
        assert Raw(server.port).is_closed
        first.socket.close()
        wait_until(lambda: len(server.server.server_state.connections) == 1)
        assert server.ask("GET", "/health").status == 200
        second.socket.close()
