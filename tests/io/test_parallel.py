"""Results come in order, errors in their turn, and no more is taken ahead than was asked for."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.predict.networks import tiny_network
from uniemox.io import onnx_sessions
from uniemox.io.onnx_sessions import Session
from uniemox.io.parallel import MAX_AHEAD, _cpu_quota, is_parallel_worker, parallel_map


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 50))
def test_results_come_in_the_order_of_the_items(millis: list[int], ahead: int) -> None:
    def work(item: tuple[int, int]) -> int:
        time.sleep(item[1] / 1000)
        return item[0]

    assert list(parallel_map(enumerate(millis), work, ahead=ahead)) == list(range(len(millis)))


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        # A group around this one has the smaller quota.
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2),
        ("3:cpu:/docker/x", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("0::/", {"cpu.max": "a"}, None),
    ],
)
def test_the_quota_of_a_container_limits_the_cores(
    groups: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "groups").write_text(groups + "\n")
    assert _cpu_quota(tmp_path / "cgroup", tmp_path / "groups") == quota
    assert _cpu_quota(tmp_path / "cgroup", tmp_path / "none") is None


def test_an_error_is_raised_at_its_item_and_ends_the_map() -> None:
    results = parallel_map([2, 1, 0, 1], lambda n: 2 // n, on_stop=lambda: stops.append(1))
    stopped = []
    stops: list[int] = []
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        stopped.append(next(results))
    assert (stopped, stops, list(results)) == ([], [1], [])


@pytest.mark.parametrize(("ahead", "most"), [(3, 4), (1000, MAX_AHEAD + 1)])
def test_items_in_progress_are_limited(ahead: int, most: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for i in range(100):
            taken += 1
            yield i

    results = parallel_map(items(), lambda i: i, ahead=ahead)
    for i in range(50):
        assert next(results) == i
        assert taken <= i + most
    results.close()
    assert taken <= 50 + most


def test_only_threads_of_the_map_are_workers() -> None:
    assert not is_parallel_worker()
    assert list(parallel_map(range(4), lambda _: is_parallel_worker())) == [True] * 4
    assert not is_parallel_worker()


@pytest.mark.parametrize(("threads", "opened"), [(None, [None, 1]), (2, [2])])
def test_a_session_runs_on_one_core_in_a_worker(
    threads: int | None, opened: list[int | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread_counts = []
    open_session = onnx_sessions.open_session

    def watched(path: Path, *, threads: int | None = None, provider: str = "cpu") -> onnx_sessions.InferenceSession:
        thread_counts.append(threads)
        return open_session(path, threads=threads, provider=provider)

    monkeypatch.setattr(onnx_sessions, "open_session", watched)
    session = Session(tiny_network(tmp_path / "model.onnx"), threads=threads)
    [network_input] = session.wide.get_inputs()
    view = np.random.default_rng(0).random((1, *network_input.shape[1:]), np.float32)
    alone = session.run(["logits"], {network_input.name: view})
    assert thread_counts == opened[:1]
    for beside in parallel_map([view] * 6, lambda view: session.run(["logits"], {network_input.name: view})):
        np.testing.assert_allclose(beside, alone, rtol=1e-5)
    assert thread_counts == opened


FORK = """
import gc, os, time
from uniemox.io.onnx_sessions import open_session
from uniemox.predict.opening import embedded_file
class Cycle: pass
dropped = Cycle()
dropped.itself, dropped.session = dropped, open_session(embedded_file("small.onnx"), threads=2)
gc.disable()
del dropped
child = os.fork()
if child == 0:
    gc.collect()
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_forked_process_does_not_wait_for_the_threads_of_a_dropped_session() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60)
