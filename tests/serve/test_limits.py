"""Too large, too many, too slow, malformed: each is refused with its own status, and the server goes on."""

import io
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from tests.hostile_images import progressive_jpeg
from tests.pictures import png_header
from tests.processes import children_of, is_there
from tests.serve.process import started
from tests.serve.serving import Answer, Gated, Running, form, gated, picture, predictor_of, running
from uniemox.predict.prediction import Prediction
from uniemox.serve import models
from uniemox.serve.config import ServeConfig
from uniemox.serve.models import PUT_BACK, ExplainAsk, Models, PredictAsk

CONFIG = ServeConfig(max_mb=0.1, max_files=3, read_timeout_s=0.5, max_megapixels=1, timeout_s=5)
MOST = CONFIG.max_bytes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running([predictor_of(tmp_path_factory.mktemp("models"))], CONFIG) as one:
        yield one
        assert one.post("/predict", picture()).status == 200  # whatever it was sent, it goes on


def wait_until(is_true: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.005)


class Raw:
    """A connection on which anything can be sent."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, *lines: str, body: bytes = b"") -> "Raw":
        self.socket.sendall("".join(f"{line}\r\n" for line in lines).encode("latin-1") + body)
        return self

    def read(self) -> bytes:
        """Until the server closes, or an answer is whole."""
        found = b""
        while True:
            try:
                part = self.socket.recv(65536)
            except ConnectionResetError:
                return found
            found += part
            head, _, body = found.partition(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if not part or (length and len(body) >= int(length[0].split(b":")[1])):
                return found

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed it; waits for that up to 10 s."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def cut_off_after_s(raw: Raw, piece: bytes) -> float:
    """How long the server bears it that a piece is sent again and again; 10 at the most."""
    start = time.monotonic()
    while time.monotonic() - start < 10:
        try:
            raw.send(body=piece)
        except (ConnectionResetError, BrokenPipeError):
            break
        time.sleep(0.02)
    return time.monotonic() - start


def chunked(parts: list[bytes]) -> Iterator[bytes]:
    yield from parts


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["code"]


def test_a_body_of_the_limit_is_read_and_one_byte_more_is_not(server: Running) -> None:
    fits = picture() + bytes(MOST - len(picture()))  # a JPEG may have anything behind it
    assert server.ask("POST", "/predict", fits, Content_Type="image/jpeg").status == 200
    for body in (fits + b"\0", chunked([fits, b"\0"]), bytes(50 * MOST)):
        assert code(server.ask("POST", "/predict", body, Content_Type="image/jpeg")) == (413, "too_large")


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(server: Running) -> None:
    raw = Raw(server.port).send(
        "POST /predict HTTP/1.1", "Host: x", "Content-Type: image/jpeg", "Content-Length: 10000000000", ""
    )
    assert raw.read().startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_is_refused_while_it_comes(server: Running) -> None:
    head = ("POST /predict HTTP/1.1", "Host: x", "Content-Type: image/jpeg", "Transfer-Encoding: chunked", "")
    raw = Raw(server.port).send(*head, body=b"%x\r\n%s\r\n" % (MOST + 1, bytes(MOST + 1)))
    assert raw.read().startswith(b"HTTP/1.1 413 ")  # its end has not been sent


def test_who_goes_on_sending_what_nobody_reads_is_cut_off(server: Running) -> None:
    raw = Raw(server.port).send(
        "POST /predict HTTP/1.1", "Host: x", "Content-Type: image/jpeg", "Content-Length: 10000000000", ""
    )
    assert b"413" in raw.read()
    assert cut_off_after_s(raw, bytes(1000)) < 5


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
        client.sendall(f"GET /openapi.json HTTP/1.1\r\nHost: x\r\n{last}\r\n".encode() * asked)
        wait_until(connection.transport.get_write_buffer_size)
        wait_until(lambda: not connections)


def test_who_reads_slowly_gets_the_whole_answer(server: Running) -> None:
    whole = server.ask("GET", "/openapi.json").body
    raw = Raw(server.port)
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    raw.send("GET /openapi.json HTTP/1.1", "Host: x", "")
    time.sleep(0.2)
    assert raw.read().endswith(whole)


def test_too_many_files(server: Running) -> None:
    assert server.post("/predict", *[picture()] * 3).status == 200
    assert code(server.post("/predict", *[picture()] * 4)) == (413, "too_many_files")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Content_Type": "image/svg+xml"},
        {"Content_Type": "image/jpegx"},
        {"Content_Type": "multipart/mixed; boundary=x"},
        {"Content_Type": "\xff; =;"},
        {"Content_Type": "image/jpeg", "Content_Encoding": "gzip"},
    ],
)
def test_other_types_are_415(server: Running, headers: dict[str, str]) -> None:
    assert code(server.ask("POST", "/predict", picture(), **headers)) == (415, "unsupported_type")


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "multipart/form-data", (400, "malformed_body")),
        (b"", "multipart/form-data; boundary=", (400, "malformed_body")),
        (b"", "multipart/form-data; boundary=x", (400, "malformed_body")),
        (b"nonsense", "multipart/form-data; boundary=x", (400, "malformed_body")),
        (form([picture()])[0][:-10], form([])[1], (400, "malformed_body")),
        (form([picture()])[0], "multipart/form-data; boundary=" + "y" * 300, (400, "malformed_body")),
        (b"--x\r\n" + b"A: b\r\n" * 9000, "multipart/form-data; boundary=x", (400, "malformed_body")),
        (form([picture()], field_name="file")[0], form([])[1], (422, "unknown_field")),
        (form([])[0], form([])[1], (422, "no_picture")),
        (b"", "image/png", (422, "no_picture")),
    ],
)
def test_malformed_bodies(server: Running, body: bytes, kind: str, status: tuple[int, str]) -> None:
    assert code(server.ask("POST", "/predict", body, Content_Type=kind)) == status


def test_pictures_that_would_be_too_large_once_decoded_are_refused_by_their_header(server: Running) -> None:
    buffer = io.BytesIO()
    Image.new("1", (1200, 900)).save(buffer, "PNG")
    answers = server.post("/predict", png_header(30_000, 30_000), buffer.getvalue(), picture()).json
    assert "more than the 100 megapixels" in answers[0]["error"]
    assert answers[1]["error"] == "picture: 1200 x 900 px is more than the 1 megapixels that are read; scale it down"
    assert answers[2]["scene"]


def test_a_body_that_comes_too_slowly_is_408(server: Running) -> None:
    raw = Raw(server.port).send(
        "POST /predict HTTP/1.1", "Host: x", "Content-Type: image/jpeg", "Content-Length: 100", ""
    )
    answer = raw.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"too_slow"' in answer
    assert raw.is_closed


@pytest.mark.parametrize("lines", [(), ("GET /health HTTP/1.1", "Host: x", "X-A: b")])
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
        raw.send("GET /health HTTP/1.1", "Host: x", "")
        assert b'"ready":true' in raw.read()
        time.sleep(0.2)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\nA b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400(server: Running, sent: bytes) -> None:
    raw = Raw(server.port)
    raw.send(body=sent)
    answer = raw.read()
    assert answer == b"" or answer.split()[1] in (b"400", b"431", b"501")


def test_one_connection_too_many_is_closed(tmp_path: Path) -> None:
    with running([predictor_of(tmp_path)], ServeConfig(max_connections=2)) as server:
        first, second = Raw(server.port), Raw(server.port)
        wait_until(lambda: len(server.server.server_state.connections) == 2)
        assert Raw(server.port).is_closed
        first.socket.close()
        wait_until(lambda: len(server.server.server_state.connections) == 1)
        assert server.ask("GET", "/health").status == 200
        second.socket.close()


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Running, Gated, ThreadPoolExecutor]]:
    """A server whose model answers once its gate is open, with room for two pictures beside the one in work."""
    model = gated(predictor_of(tmp_path))
    config = ServeConfig(queue=2, timeout_s=1.0, max_wait_ms=0)
    with running([model], config) as server, ThreadPoolExecutor(8) as pool:
        yield server, model, pool
        model.gate.set()


def posted(server: Running, pool: ThreadPoolExecutor, number: int) -> "Future[Answer]":
    return pool.submit(server.post, "/predict", picture(number))


def queue_length(server: Running) -> float:
    text = server.ask("GET", "/metrics").body.decode()
    return float(next(line for line in text.splitlines() if line.startswith("uniemox_queue_length ")).split()[1])


def test_a_full_queue_is_503_and_says_when_to_come_back(slow: tuple[Running, Gated, ThreadPoolExecutor]) -> None:
    server, model, pool = slow
    first = posted(server, pool, 0)
    assert model.started.wait(10)
    waiting = [posted(server, pool, number) for number in (1, 2)]
    wait_until(lambda: queue_length(server) == 2)
    refused = server.post("/predict", picture(3))
    assert code(refused) == (503, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    model.gate.set()
    assert [answer.result().status for answer in (first, *waiting)] == [200] * 3
    assert server.post("/predict", picture(3)).status == 200


def test_an_answer_that_does_not_come_in_time_is_504_and_its_work_is_dropped(
    slow: tuple[Running, Gated, ThreadPoolExecutor],
) -> None:
    server, model, pool = slow
    first = posted(server, pool, 0)
    assert model.started.wait(10)
    late = posted(server, pool, 1)
    assert code(late.result()) == (504, "timed_out")
    assert code(first.result()) == (504, "timed_out")
    model.gate.set()
    assert server.post("/predict", picture(2)).status == 200
    text = server.ask("GET", "/metrics").body.decode()
    assert "uniemox_batch_size_sum 2.0" in text  # the first and the last: the late one never reached the model


def test_the_work_of_a_client_that_has_gone_is_dropped(slow: tuple[Running, Gated, ThreadPoolExecutor]) -> None:
    server, model, pool = slow
    first = posted(server, pool, 0)
    assert model.started.wait(10)
    body, kind = form([picture(1)])
    gone = Raw(server.port).send(
        "POST /predict HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "", body=body
    )
    wait_until(lambda: queue_length(server) == 1)
    gone.socket.close()
    wait_until(lambda: 'path="/predict",status="499"' in server.ask("GET", "/metrics").body.decode())
    model.gate.set()
    assert first.result().status == 200
    assert "uniemox_batch_size_sum 1.0" in server.ask("GET", "/metrics").body.decode()


def test_stopping_answers_what_was_accepted(tmp_path: Path) -> None:
    model = gated(predictor_of(tmp_path))
    with ThreadPoolExecutor(4) as pool, running([model], ServeConfig(max_wait_ms=0)) as server:
        answers = [posted(server, pool, 0)]
        assert model.started.wait(10)
        answers += [posted(server, pool, number) for number in (1, 2)]
        wait_until(lambda: queue_length(server) == 2)
        server.server.should_exit = True
        threading.Timer(0.3, model.gate.set).start()
        assert [answer.result().status for answer in answers] == [200] * 3


def test_sigterm_lets_a_request_end_and_the_exit_code_is_0(tmp_path: Path) -> None:
    with started(None, tmp_path) as (process, port):
        body = picture()
        raw = Raw(port).send(
            "POST /predict HTTP/1.1",
            "Host: x",
            "Content-Type: image/jpeg",
            f"Content-Length: {len(body)}",
            "",
            body=body[:50],
        )
        idle = Raw(port).send("GET /health HTTP/1.1", "Host: x", "")
        assert b"200 OK" in idle.read()
        process.send_signal(signal.SIGTERM)
        assert idle.is_closed
        raw.send(body=body[50:])
        assert raw.read().startswith(b"HTTP/1.1 200 ")
        assert process.wait(20) == 0
    log = (tmp_path / "log.txt").read_text()
    assert "Traceback" not in log
    assert "127.0.0.1 POST /predict 200 " in log


@pytest.fixture(scope="module")
def slow_file() -> bytes:
    """An image within all limits of its header that takes seconds to decode."""
    return progressive_jpeg(90, 4000, 4000)


def test_an_image_that_takes_too_long_is_refused_and_others_are_answered(tmp_path: Path, slow_file: bytes) -> None:
    config = ServeConfig(timeout_s=60, decode_timeout_s=0.3, max_files=16)
    with running([predictor_of(tmp_path)], config) as server, ThreadPoolExecutor(12) as pool:
        alone = pool.submit(server.ask, "POST", "/predict", slow_file, Content_Type="image/jpeg")
        among = pool.submit(server.post, "/predict", *[slow_file] * 12, picture(0))
        heat = pool.submit(server.ask, "POST", "/explain", slow_file, Content_Type="image/jpeg")
        others = [posted(server, pool, number) for number in range(6)]
        assert [answer.result().status for answer in others] == [200] * 6
        for refused in (alone.result(), heat.result()):
            assert code(refused) == (422, "unreadable_picture")
            assert "picture: decoding took longer than 0.3 s" in refused.json["error"]
        entries = among.result().json
        assert all("took longer than 0.3 s" in entry["error"] for entry in entries[:12])
        assert entries[12]["scene"]


def test_what_is_not_begun_in_time_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Models([predictor_of(tmp_path)], max_megapixels=1, decode_s=60)
    ask = PredictAsk(served.names[0], None, None)
    assert all(isinstance(answer, Prediction) for answer in served.work(ask, [picture(0), picture(1)]))
    monkeypatch.setattr(models, "BATCH_DECODE_S", -1.0)
    found = served.work(ask, [picture(0), b"nothing", picture(1)])
    assert found[::2] == [PUT_BACK] * 2
    assert "not a picture" in found[1].error
    assert served.work(ExplainAsk(ask.model, None), [picture(0)]) == [PUT_BACK]
    served.close()


def test_sigterm_ends_what_is_being_decoded_and_all_processes(tmp_path: Path, slow_file: bytes) -> None:
    with started(None, tmp_path, timeout_s=1, decode_timeout_s=0.5) as (process, port):
        decoders = children_of(process.pid)
        assert len(decoders) >= 2
        body, kind = form([slow_file] * 6)
        head = ("POST /predict HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "")
        raw = Raw(port).send(*head, body=body)
        wait_until(lambda: b"504" in raw.read() or raw.is_closed)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not any(map(is_there, decoders))
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
