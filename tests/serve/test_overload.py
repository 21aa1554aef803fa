"""Overload: a full queue, late answers, clients that have gone, slow decoders, stopping."""

import gc
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hostile_images import progressive_jpeg
from tests.processes import children_of, is_there, wait_until
from tests.serve.process import started
from tests.serve.serving import Answer, Gated, Raw, Running, form, gated, image, predictor_of, running, upload
from uniemox.io.images import open_image
from uniemox.predict.prediction import Prediction
from uniemox_serve import models
from uniemox_serve.config import ServeConfig
from uniemox_serve.models import PUT_BACK, ExplainAsk, Models, PredictAsk


@pytest.fixture
def slow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Running, Gated, ThreadPoolExecutor]]:
    """Server whose model answers once its gate is open, with room for two more images in the queue.

    The parameter is the time in seconds after which an answer is late; without one, a busy machine makes none late.
    """
    model = gated(predictor_of(tmp_path))
    config = ServeConfig(queue=2, timeout_s=getattr(request, "param", 120.0), max_wait_ms=0)
    with running([model], config) as server, ThreadPoolExecutor(8) as pool:
        yield server, model, pool
        model.gate.set()


def posted(server: Running, pool: ThreadPoolExecutor, number: int) -> "Future[Answer]":
    return pool.submit(server.post, "/predict", image(number))


def queue_length(server: Running) -> float:
    text = server.ask("GET", "/metrics").body.decode()
    return float(next(line for line in text.splitlines() if line.startswith("uniemox_queue_length ")).split()[1])


def test_a_full_queue_is_503_with_retry_after(slow: tuple[Running, Gated, ThreadPoolExecutor]) -> None:
    server, model, pool = slow
    first = posted(server, pool, 0)
    assert model.started.wait(60)
    waiting = [posted(server, pool, number) for number in (1, 2)]
    wait_until(lambda: queue_length(server) == 2)
    refused = server.post("/predict", image(3))
    assert refused.code == (503, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    model.gate.set()
    assert [answer.result().status for answer in (first, *waiting)] == [200] * 3
    assert server.post("/predict", image(3)).status == 200


@pytest.mark.thorough
@pytest.mark.parametrize("slow", [3.0], indirect=True)
def test_a_late_answer_is_504_and_its_work_is_dropped(
    slow: tuple[Running, Gated, ThreadPoolExecutor], caplog: pytest.LogCaptureFixture
) -> None:
    server, model, pool = slow
    first = posted(server, pool, 0)
    assert model.started.wait(60)
    late = posted(server, pool, 1)
    assert late.result().code == (504, "timed_out")
    assert first.result().code == (504, "timed_out")
    model.gate.set()
    assert server.post("/predict", image(2)).status == 200
    text = server.ask("GET", "/metrics").body.decode()
    # The first image and the last one; the late one never reached the model.
    assert "uniemox_batch_size_sum 2.0" in text
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_work_of_a_disconnected_client_is_dropped(slow: tuple[Running, Gated, ThreadPoolExecutor]) -> None:
    server, model, pool = slow
    first = posted(server, pool, 0)
    assert model.started.wait(60)
    body, kind = form([image(1)])
    gone = upload(server.port, len(body), body, kind)
    wait_until(lambda: queue_length(server) == 1)
    gone.socket.close()
    wait_until(lambda: 'path="/predict",status="499"' in server.ask("GET", "/metrics").body.decode())
    model.gate.set()
    assert first.result().status == 200
    assert "uniemox_batch_size_sum 1.0" in server.ask("GET", "/metrics").body.decode()


def test_stopping_answers_accepted_requests(tmp_path: Path) -> None:
    model = gated(predictor_of(tmp_path))
    with ThreadPoolExecutor(4) as pool, running([model], ServeConfig(max_wait_ms=0)) as server:
        answers = [posted(server, pool, 0)]
        assert model.started.wait(60)
        answers += [posted(server, pool, number) for number in (1, 2)]
        wait_until(lambda: queue_length(server) == 2)
        server.server.should_exit = True
        threading.Timer(0.3, model.gate.set).start()
        assert [answer.result().status for answer in answers] == [200] * 3


def test_sigterm_finishes_open_requests_and_exits_with_0(tmp_path: Path) -> None:
    with started(None, tmp_path) as (process, port):
        body = image()
        raw = upload(port, len(body), body[:50])
        idle = Raw(port).send("GET /health HTTP/1.1", "Host: localhost", "")
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


@pytest.mark.thorough
def test_an_image_that_takes_too_long_is_refused_and_others_are_answered(tmp_path: Path, slow_file: bytes) -> None:
    config = ServeConfig(timeout_s=60, decode_timeout_s=0.3, max_files=16)
    with running([predictor_of(tmp_path)], config) as server, ThreadPoolExecutor(12) as pool:
        alone = pool.submit(server.ask, "POST", "/predict", slow_file, Content_Type="image/jpeg")
        among = pool.submit(server.post, "/predict", *[slow_file] * 12, image(0))
        heat = pool.submit(server.ask, "POST", "/explain", slow_file, Content_Type="image/jpeg")
        others = [posted(server, pool, number) for number in range(6)]
        assert [answer.result().status for answer in others] == [200] * 6
        for refused in (alone.result(), heat.result()):
            assert refused.code == (422, "unreadable_picture")
            assert "image: decoding took longer than 0.3 s" in refused.json["error"]
        entries = among.result().json
        assert all("took longer than 0.3 s" in entry["error"] for entry in entries[:12])
        assert entries[12]["scene"]


def test_images_that_were_not_begun_in_time_are_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Models([predictor_of(tmp_path)], max_megapixels=1, decode_s=60)
    ask = PredictAsk(served.names[0], None, None)
    assert all(isinstance(answer, Prediction) for _, answer in served.work(ask, [image(0), image(1)]))
    monkeypatch.setattr(models, "BATCH_DECODE_S", -1.0)
    assert list(served.work(ask, [image(0), image(1)])) == [(0, PUT_BACK), (1, PUT_BACK)]
    assert list(served.work(ExplainAsk(ask.model, None), [image(0)])) == [(0, PUT_BACK)]
    served.close()


def test_a_slow_header_delays_no_earlier_image_of_its_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def opened(data: bytes, name: str) -> object:
        assert data != image(1) or gate.wait(10)
        return open_image(data, name)

    monkeypatch.setattr(models, "open_image", opened)
    served = Models([predictor_of(tmp_path)], max_megapixels=1, decode_s=60)
    work = served.work(PredictAsk(served.names[0], None, None), [image(0), image(1), b"nothing"])
    assert isinstance(next(work)[1], Prediction)
    gate.set()
    (_, slow), (_, unreadable) = work
    assert isinstance(slow, Prediction)
    assert "not an image" in unreadable.error
    served.close()


def test_sigterm_ends_decoding_and_all_processes(tmp_path: Path, slow_file: bytes) -> None:
    with started(None, tmp_path, timeout_s=1, decode_timeout_s=0.5) as (process, port):
        decoders = children_of(process.pid)
        assert len(decoders) >= 2
        body, kind = form([slow_file] * 6)
        raw = upload(port, len(body), body, kind)
        wait_until(lambda: b"504" in raw.read() or raw.is_closed)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not any(map(is_there, decoders))
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
