"""The checks for a machine with a GPU: the files that they carry, and their records of results."""

import json
import math
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version

from benchmarks.gpu import prepare
from benchmarks.gpu.prepare import MACHINE, check_calls, installed_on, lacking, pinned, project_requirements
from benchmarks.gpu.reporting import CHECKS, MAX_FILES, Report, check_size, read_lines, relative_error
from benchmarks.gpu.steps import VIT_B, VIT_L, Case, first_cases, fits, later_cases
from tests.processes import is_there, wait_until
from uniemox.bench.step import StepBench

ROOT = Path(__file__).parents[2]
STARTS_A_LONG_RUN = """
import sys, time
from pathlib import Path
from benchmarks.gpu.commands import Commands

folder = Path(sys.argv[1])
folder.mkdir()
commands = Commands(folder, {"CUDA_VISIBLE_DEVICES": ""})
commands.kill_on_sigterm()
words = ["--preset", "demo", "--data", "synthetic:64", "--schedule.epochs", "100000", "--out", str(folder / "run")]
process = commands.start("long", "pretrain", *words)
print(process.pid, flush=True)
time.sleep(600)
"""


def test_lacking_returns_missing_and_outdated_packages() -> None:
    """ftfy requires wcwidth. Requirements of packages that the machine has are not looked up."""
    installed = {"numpy": Version("2.5.2"), "torch": Version("2.11.0"), "pillow": None, "rich": None}
    requirements = ["numpy>=2", "torch>=2.11", "pillow>=13", "rich>=13", "ftfy", "colorama; sys_platform == 'win32'"]
    assert lacking(map(Requirement, requirements), installed) == ["ftfy", "pillow", "wcwidth"]
    assert lacking([Requirement("numpy>=2.6")], installed) == ["numpy"]


def test_packages_to_carry_are_pinned_and_exclude_torch() -> None:
    names = lacking(project_requirements(), installed_on(MACHINE))
    assert not {"torch", "torchvision", "triton"} & set(names)
    assert {"cyclopts", "open-clip-torch"} <= set(names)
    assert all("==" in package for package in pinned(names))


def test_report_records_results_remarks_and_errors(tmp_path: Path) -> None:
    """NaN never passes, and an error is a failed check."""
    report = Report("numerics", tmp_path)
    report.at_most("small", 1e-6, 1e-4)
    report.at_most("large", 1.0, 1e-4)
    report.at_most("not a number", math.nan, 1e-4)
    report.note("remark", "none")
    with report.attempt("broken"):
        raise ValueError("no such kernel")
    report.close("equal", torch.ones(3), torch.ones(3), 0.0)
    lines = read_lines(tmp_path)
    assert [line.state for line in lines] == ["ok", "FAILED", "FAILED", "-", "FAILED", "ok"]
    assert lines[4].note == "ValueError: no such kernel"
    assert len((tmp_path / CHECKS).read_text().splitlines()) == len(lines)
    assert json.loads((tmp_path / CHECKS).read_text().splitlines()[0])["bound"] == 1e-4


def test_check_size_fails_for_too_many_or_too_large_results(tmp_path: Path) -> None:
    report = Report("results", tmp_path)
    for i in range(MAX_FILES - 1):
        (tmp_path / f"{i}.txt").touch()
    (tmp_path / CHECKS).touch()
    check_size(report, tmp_path)
    assert [line.state for line in read_lines(tmp_path)] == ["ok", "ok", "ok"]
    deep = tmp_path / "a" / "b" / "c" / "large"
    deep.parent.mkdir(parents=True)
    with deep.open("wb") as file:
        file.truncate(17 * 2**20)
    check_size(report, tmp_path)
    assert [line.state for line in read_lines(tmp_path)][3:] == ["FAILED", "FAILED", "FAILED"]


@pytest.mark.parametrize(("mib", "is_small_enough"), [(1, True), (70, False)])
def test_check_calls_adds_the_carried_folders_to_the_working_tree(
    mib: int, is_small_enough: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare, "tree_files", lambda: [ROOT / "pyproject.toml"])
    shards = tmp_path / "shards" / "all.tar"
    shards.parent.mkdir()
    with shards.open("wb") as file:
        file.truncate(mib * 2**20)
    assert check_calls(tmp_path) == is_small_enough
    assert (
        f"checks and speed: carry {tmp_path}/shards: {mib}.0 MiB with the working tree, of 64"
        in capsys.readouterr().out
    )


def test_working_tree_excludes_ignored_files() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in prepare.tree_files()}
    assert "benchmarks/gpu/run.sh" in names
    assert not any(name.startswith(("build/", ".venv/")) for name in names)


def test_the_first_steps_compare_both_models_compiled_and_eager() -> None:
    """The time limit may end the list after a few measurements, because compiling takes a minute."""
    cases = [*first_cases(), *later_cases()]
    assert len(set(cases)) == len(cases)
    assert cases[:2] == [Case(VIT_L, 128, is_compiled=True), Case(VIT_L, 128, is_compiled=False)]
    assert {(case.model, case.is_compiled) for case in cases[:4]} == {
        (VIT_L, True),
        (VIT_L, False),
        (VIT_B, True),
        (VIT_B, False),
    }


def test_steps_that_cannot_fit_are_not_tried() -> None:
    small = Case(VIT_L, 128, is_compiled=True)
    values: dict[str, object] = dict.fromkeys((field.name for field in fields(StepBench)), 0.0)
    result = StepBench(**values | {"peak_memory_mb": 40_000.0})  # type: ignore[arg-type] # floats
    assert fits(Case(VIT_L, 256, is_compiled=True), {small: result}, 80_000)
    assert not fits(Case(VIT_L, 512, is_compiled=True), {small: result}, 80_000)
    assert fits(Case(VIT_L, 64, is_compiled=True), {small: None}, 80_000)
    assert not fits(Case(VIT_L, 256, is_compiled=True), {small: None}, 80_000)
    assert fits(Case(VIT_L, 256, is_compiled=False), {small: None}, 80_000)


@pytest.mark.thorough
def test_stopped_part_kills_its_commands(tmp_path: Path) -> None:
    """They run in sessions of their own, which the signal of `timeout` does not reach."""
    folder = tmp_path / "work"
    words = [sys.executable, "-c", STARTS_A_LONG_RUN, str(folder)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as part:
        try:
            assert part.stdout is not None
            command = int(part.stdout.readline())
            wait_until((folder / "long.out").exists)
            assert is_there(command)
            part.send_signal(signal.SIGTERM)
            assert part.wait(60) == 128 + signal.SIGTERM
        finally:
            part.kill()
    wait_until(lambda: not is_there(command))
    assert not folder.exists()


def test_relative_error_is_the_norm_of_the_difference_over_that_of_the_reference() -> None:
    assert relative_error(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.4 / 5)
