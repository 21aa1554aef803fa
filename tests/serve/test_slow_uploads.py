"""Clients that send bodies slowly, or many at a time, don't shut others out."""

import http.client
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.processes import wait_until
from tests.serve.serving import Running, cut_off_after_s, image, predictor_of, running, upload
from uniemox_serve import bodies
from uniemox_serve.app import create_app
from uniemox_serve.batching import Batcher
from uniemox_serve.config import ServeConfig

CONFIG = ServeConfig(queue=2, batch_size=1, max_files=1, max_mb=0.1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running([predictor_of(tmp_path)], CONFIG) as server:
        yield server


@pytest.mark.parametrize(
    ("address", "client"),
    [
        *[(address, "2001:db8::/64") for address in ("2001:db8::1", "2001:db8::ffff:2")],
        *[("2001:db8:0:1::1", "2001:db8:0:1::/64"), ("fe80::1%eth0", "fe80::/64"), ("10.0.0.1", "10.0.0.1")],
        *[("::ffff:10.0.0.1", "::ffff:10.0.0.1"), ("zz:zz", "zz:zz")],
    ],
)
def test_addresses_of_an_ipv6_network_are_one_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, client: str
) -> None:
    clients = []
    submit = Batcher.submit

    def submit_recorded(*args: Any, **settings: Any) -> Any:
        clients.append(settings["client"])
        return submit(*args, **settings)

    monkeypatch.setattr(Batcher, "submit", submit_recorded)
    app = create_app([predictor_of(tmp_path)], CONFIG)
    with TestClient(app, base_url="http://localhost", client=(address, 1)) as browser:
        assert browser.post("/predict", content=image(), headers={"Content-Type": "image/jpeg"}).status_code == 200
    assert clients == [client]


def test_slow_uploads_take_no_place_in_the_queue(server: Running) -> None:
    slow = [upload(server.port, 1000, b"x") for _ in range(20)]
    wait_until(lambda: len(server.server.server_state.connections) == 20)
    assert server.post("/predict", image()).status == 200
    for raw in slow:
        raw.socket.close()


def test_one_client_may_hold_half_of_the_memory_for_bodies(server: Running) -> None:
    size = CONFIG.max_bytes
    # Together, they are twice as large as what one client may hold.
    large = [upload(server.port, size, b"x" * (size - 1)) for _ in range(5)]
    time.sleep(0.3)
    large.append(upload(server.port, size, b"x" * (size // 2 - 100)))
    time.sleep(0.3)
    refused = server.post("/predict", image())
    assert refused.code == (503, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    other = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10, source_address=("127.0.0.2", 0))
    other.request("POST", "/predict", image(), {"Content-Type": "image/png"})
    assert other.getresponse().status == 200
    other.close()
    for raw in large:
        raw.socket.close()
    wait_until(lambda: server.post("/predict", image()).status == 200)


def test_a_body_below_the_rate_is_408_long_before_the_limit(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_S", 0.5, raising=False)
    start = time.monotonic()
    answer = upload(server.port, 1000, b"x").read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"at least 10 KiB/s" in answer
    assert cut_off_after_s(upload(server.port, 10**4), b"x") < 5
    assert time.monotonic() - start < 10


def test_a_body_above_the_rate_is_read(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE_S", 0.5, raising=False)
    data = image(width=480, height=320)
    assert len(data) > 20_000
    raw = upload(server.port, len(data))
    for start in range(0, len(data), 10_000):
        raw.send(body=data[start : start + 10_000])
        time.sleep(0.35)
    assert raw.read().startswith(b"HTTP/1.1 200 ")
