"""Too few processes, threads or open files: one error names the limit, and no image or model is blamed."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.decoders import Child
from tests.drawn import draw_image, jpeg_of
from tests.predict.networks import tiny_network
from tests.runs import uniemox_here
from uniemox.data.processes import map_batches
from uniemox.errors import CheckpointError, ImageError, ShortageError
from uniemox.io.borders import image_border
from uniemox.io.decoding.pool import DecoderPool
from uniemox.io.parallel import PoolConfig, parallel_map
from uniemox.io.shortage import shortage_of
from uniemox.predict.network import Network
from uniemox.predict.opening import load

NO_PROCESS = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
NO_THREAD = RuntimeError("can't start new thread")
NO_FILE = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def fails(error: Exception) -> Callable[..., Any]:
    """A function that raises an error."""

    def function(*_: Any, **__: Any) -> Any:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (NO_PROCESS, "ulimit -u"),
        (NO_THREAD, "ulimit -u"),
        (RuntimeError("pthread_create failed, error code: 11"), "pids.max"),
        (NO_FILE, "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), "ulimit -n"),
        (OSError(errno.ENOSPC, "No space left on device"), ""),
        (RuntimeError("a size mismatch"), ""),
    ],
)
def test_the_limit_is_named_also_for_a_cause(error: Exception, limit: str) -> None:
    outer = ValueError("the image can't be read")
    outer.__cause__ = error
    for each in (error, outer):
        assert limit in shortage_of(each)
        assert bool(shortage_of(each)) == bool(limit)


def test_no_image_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ShortageError), image_border("a.jpg"):
        raise NO_FILE
    with pytest.raises(ImageError), image_border("a.jpg"):
        raise OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr("uniemox.io.decoding.pool.Child", fails(NO_PROCESS))
    pool = DecoderPool(1)
    for _ in range(2):
        with pytest.raises(ShortageError, match="ulimit -u"):
            pool.decode(jpeg_of(draw_image(0)), "a.jpg")
    pool.close()


def test_a_process_that_does_not_start_is_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniemox.io.decoding.process.__name__", "uniemox.no_such_module")
    # A process of its own, and none that an earlier test has left.
    monkeypatch.setattr("uniemox.io.decoding.pool.Child", Child)
    pool = DecoderPool(1)
    with pytest.raises(ShortageError, match="does not start"):
        pool.decode(jpeg_of(draw_image(0)), "a.jpg")
    pool.close()


def test_no_model_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_network(tmp_path / "m.onnx")
    with monkeypatch.context() as patch:
        patch.setattr("uniemox.io.onnx_sessions.InferenceSession", fails(RuntimeError("pthread_create failed")))
        with pytest.raises(ShortageError):
            Network.open(path)
        patch.setattr("uniemox.io.onnx_sessions.InferenceSession", fails(RuntimeError("no graph")))
        with pytest.raises(CheckpointError):
            Network.open(path)


def test_a_map_without_threads_or_processes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails(NO_THREAD))
        with pytest.raises(ShortageError):
            list(parallel_map([1, 2], str))
    # The second process can't be started; the first one must not wait for it forever.
    forks = iter([os.fork])

    def fork_once() -> int:
        return next(forks, fails(NO_PROCESS))()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", fork_once)
        with pytest.raises(ShortageError):
            list(map_batches(lambda: str, [1, 2, 3], PoolConfig(workers=2)))


def test_a_file_that_can_not_be_opened_ends_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_image(0).save(tmp_path / "a.png")
    predictor = load(tiny_network(tmp_path / "m.onnx"), finder=None)
    monkeypatch.setattr("uniemox.predict.images.read_limited", fails(NO_FILE))
    with pytest.raises(ShortageError, match="ulimit -n"):
        list(predictor.predict_many([tmp_path / "a.png"]))


def test_the_command_line_has_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniemox.cli.program._run_app", fails(NO_THREAD))
    done = uniemox_here("predict", tmp_path)
    assert done.returncode == 1
    assert "ulimit -u" in done.stderr
    assert "Traceback" not in done.stderr
