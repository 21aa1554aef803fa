"""Hours, disk and network of a plan, against values computed by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.reproduce.plans import make_run
from uniemox.errors import ConfigError
from uniemox_paper.costs import BYTES, NVLINK_GB_S, need_disk, simulate, step_seconds
from uniemox_paper.plan import PlannedRun
from uniemox_paper.study import PRETRAIN_GFLOP

SPEED = 1000.0


def work(
    root: Path, name: str, images: int, *, gpus: int = 1, parameters_m: float = 0.0, needs: Sequence[PlannedRun] = ()
) -> PlannedRun:
    """Return a run whose images cost as much as in pre-training; the name's first word sets 1,024 or 256 per step."""
    fields = {"images": images, "gflop": PRETRAIN_GFLOP, "parameters_m": parameters_m, "processes": gpus}
    return make_run(root, name, name.split(maxsplit=1)[0], options={"out": name}, needs=tuple(needs), **fields)


def test_dependent_runs_are_sequential_and_others_share_the_gpus(tmp_path: Path) -> None:
    start = work(tmp_path, "pretrain", 64 * 1024, gpus=2)
    tunings = [work(tmp_path, f"finetune {number}", 100 * 256, needs=[start]) for number in range(3)]
    simulation = simulate([start, *tunings], gpus=2, images_per_s=SPEED)
    one_run_s = 100 * 256 / SPEED
    assert simulation.hours * 3600 == pytest.approx(64 * 1024 / SPEED / 2 + 2 * one_run_s)  # the third waits for a GPU
    assert simulation.busy == pytest.approx((64 * 1024 / SPEED + 3 * one_run_s) / (2 * simulation.hours * 3600))
    assert (simulation.disk_gb, simulation.network_gb_per_s) == (0, 0)
    assert simulation.loader_images_per_s == pytest.approx(2 * SPEED)


def test_step_time_includes_sending_the_gradients(tmp_path: Path) -> None:
    run = work(tmp_path, "pretrain", 1024, gpus=8, parameters_m=300)
    bytes_sent = 2 * 7 / 8 * 300e6 * BYTES
    assert step_seconds(run, SPEED) == pytest.approx(1024 / SPEED / 8 + bytes_sent / (NVLINK_GB_S * 1e9))
    assert step_seconds(work(tmp_path, "pretrain", 1024, parameters_m=300), SPEED) == pytest.approx(1024 / SPEED)


def test_too_small_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [work(tmp_path / "new", f"finetune {i}", 256, parameters_m=100) for i in range(5)]
    # Checkpoints of two runs at a time.
    finished = 5 * 3 * 100e6 * BYTES
    running = 2 * 4 * 3 * 100e6 * BYTES
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**12))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**12))
    assert need_disk(runs, gpus=2) == finished + running
    simulation = simulate(runs, gpus=2, images_per_s=SPEED)
    assert simulation.disk_gb == pytest.approx((finished + running) / 1e9)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**9))
    with pytest.raises(ConfigError, match="needs 16 GB for 5 runs, but 1 GB are free"):
        need_disk(runs, gpus=2)
    assert need_disk([], gpus=2) == 0
    assert need_disk([replace(run, lacks="its weights") for run in runs], gpus=2) == 0
