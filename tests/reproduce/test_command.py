"""The command `uniemox reproduce`, without long runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runs import uniemox_here
from uniemox.errors import ConfigError
from uniemox_paper.cli import PlanOptions, images, table_or_figure, verify
from uniemox_paper.config import Name, ReproduceConfig


def show(target: Name, out: Path, **options: Any) -> None:
    """Run the command with these options."""
    config = {name: options.pop(name) for name in [*options] if name in ReproduceConfig.__dataclass_fields__}
    table_or_figure(target, config=ReproduceConfig(out=out, **config), options=PlanOptions(**options))


def test_dry_run_prints_the_commands_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show("table7", tmp_path / "r", seeds=1, dry_run=True)
    lines = capsys.readouterr().out.splitlines()
    # Each row has its own teacher.
    assert len(lines) == 12
    assert lines[0].startswith(f"uniemox data shard synthetic:3072 {tmp_path}/r/runs/data-shard-")
    assert [line.split()[1] for line in lines].count("pretrain") == 2
    assert sum("--teacher.no-with-emotion" in line for line in lines) == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", ["seeds", "jobs", "gpus", "images_per_s"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} must be (at least 1|above 0), got 0"):
        show("table4", Path(), **{name: 0})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"check": True, "jobs": 2}, "--jobs is not read with --check"),
        ({"check": True, "loads_per_s": 400.0}, "--loads-per-s is not read with --check"),
        ({"check": True, "images_per_s": 900.0}, "--images-per-s is not read with --check"),
        ({"plan": True, "jobs": 2}, "--jobs is not read with --plan"),
        ({"dry_run": True, "as_json": True}, "--json is not read with --dry-run"),
        ({"loads_per_s": 400.0}, "--loads-per-s is read only with --plan"),
        ({"images_per_s": 900.0}, "--images-per-s is read only at --scale paper"),
        ({"check": True, "plan": True}, "give only one of --check and --plan"),
    ],
)
def test_options_that_a_mode_does_not_read_are_refused(options: dict[str, Any], error: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=error):
        show("table4", tmp_path, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would start on a GPU")
def test_paper_scale_prints_its_cost_and_starts_nothing_without_a_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show("table4", tmp_path / "r", scale="paper", images_per_s=1000, gpus=8)
    captured = capsys.readouterr()
    assert "229 runs, 363.3 million images through a network, 126.0 EFLOP of training" in captured.err
    assert "0.64 days on 8 GPUs of 1,000 pre-training images/s, 283 TFLOP/s" in captured.err
    assert "no run was started, because their requirements are missing" in captured.err
    assert "need the data: --data EmoSet=emoset:PATH" in captured.err
    assert captured.out.splitlines()[0].startswith(
        "torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node 8 -m uniemox pretrain --preset paper"
    )
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("speed_argument", "hours"), [("500", 33.7), ("train.json", 16.87), ("none.json", None), ("list.json", None)]
)
def test_images_per_s_is_a_number_or_a_file(speed_argument: str, hours: float | None, tmp_path: Path) -> None:
    """The file is the output of `python -m benchmarks.train` on one of the GPUs."""
    (tmp_path / "train.json").write_text('{"images_per_s": 1000.0, "mfu": 0.3}')
    (tmp_path / "list.json").write_text("[1]")
    speed = speed_argument if speed_argument == "500" else tmp_path / speed_argument
    words = ("reproduce", "table4", "--scale", "paper", "--plan", "--images-per-s", speed, "--json")
    done = uniemox_here(*words, "--out", tmp_path / "r")
    if hours is None:
        assert done.returncode == 1
        assert "--images-per-s takes a number, or a file that `python -m benchmarks.train` wrote" in done.stderr
        return
    eight = next(simulation for simulation in json.loads(done.stdout) if simulation["gpus"] == 8)
    assert eight["hours"] == pytest.approx(hours, rel=0.05)


def test_tables_one_and_two_need_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show("table1", tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out)["name"] == "table1"
    assert "Melancholy" in (tmp_path / "table1-demo.html").read_text()
    show("table2", tmp_path, data=("synthetic:64",))
    page = (tmp_path / "table2-demo.html").read_text()
    assert "23,308" in page
    assert "64 images, mikels (8), evoked" in page
    assert "not run" in page


def test_images_command_writes_images_of_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images(data="synthetic:80", out=tmp_path / "shown", count=2, split="test")
    assert capsys.readouterr().out == f"wrote 2 images to {tmp_path}/shown\n"
    names = {path.name for path in (tmp_path / "shown").iterdir()}
    assert names == {"00.png", "01.png", "pictures.json", "persons.jsonl"}


def test_verify_refuses_no_runs() -> None:
    with pytest.raises(ConfigError, match="give at least one folder"):
        verify()
