"""SIGTERM and Ctrl-C: the first saves and stops, the second ends the process; a run resumes to the same bits."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.runs import PLAIN_OUTPUT, losses, once, pretrain_words, scenes, sha256, tiny_pretraining, uniemox
from tools.commands import start_command
from uniemox.io.run_files import METRICS
from uniemox.io.stopping import SIGNALS, StopRequest
from uniemox.pretrain.run import pretrain
from uniemox.training.trainer import is_stop_requested

CPU = torch.device("cpu")
WORDS = {"schedule__epochs": 20, "save__every_steps": 1000, "hardware__workers": 1}


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_handlers_come_back(number: int) -> None:
    before = [signal.getsignal(name) for name in SIGNALS]
    with StopRequest() as stop:
        assert not is_stop_requested(stop)
        os.kill(os.getpid(), number)
        assert is_stop_requested(stop)
        assert stop.signal == number
        # The second signal acts at once.
        assert [signal.getsignal(name) for name in SIGNALS] == before
    assert [signal.getsignal(name) for name in SIGNALS] == before
    with StopRequest():
        pass
    assert [signal.getsignal(name) for name in SIGNALS] == before


def test_the_second_signal_ends_the_process_at_once() -> None:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with StopRequest():
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.01)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


def whole_run() -> Path:
    """Folder of a run with the options `WORDS` that is not stopped."""
    config = tiny_pretraining()
    config = replace(config, schedule=replace(config.schedule, epochs=20))
    return once("whole", lambda out: pretrain(config, scenes(), out))


def stopped(out: Path, number: int) -> tuple[int | None, str]:
    """Exit code and output of a run whose processes all get a signal after three steps."""
    log = out.with_name("log")
    running = start_command(pretrain_words(out, **WORDS), out=log, err=log, environment=PLAIN_OUTPUT)
    while running.is_alive() and not ((out / METRICS).exists() and (out / METRICS).read_text().count("\n") > 2):
        time.sleep(0.005)
    os.killpg(running.pid, number)
    running.join(60)
    return running.exitcode, log.read_text()


@pytest.mark.thorough
@pytest.mark.long
@pytest.mark.portable
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_run_saves_and_resumes_to_the_same_bits(number: int, code: int, tmp_path: Path) -> None:
    """The signal goes to all processes, as a terminal and a batch system send it: those that load must not mind."""
    out = tmp_path / "run"
    status, stderr = stopped(out, number)
    done = losses(out)[-1]["step"]
    assert status == code, stderr
    assert 3 <= done < 40
    assert (
        f"stopped after step {done} of 40, which is saved in {out}; the same command with --resume continues" in stderr
    )
    assert "Traceback" not in stderr
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{done:08d}"]
    if number == signal.SIGTERM:
        resumed = uniemox(*pretrain_words(out, **WORDS), "--resume")
        assert resumed.returncode == 0, resumed.stderr
        assert losses(out) == losses(whole_run())
        assert sha256(out / "encoder.safetensors") == sha256(whole_run() / "encoder.safetensors")
