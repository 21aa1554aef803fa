"""The checks for a machine with a GPU: what they carry, and how they record results."""

import json
import math
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version

from benchmarks.gpu.prepare import MACHINE, installed_on, lacking, pinned, project_requirements
from benchmarks.gpu.reporting import CHECKS, Report, read_lines, relative_error


def test_only_lacking_and_outdated_packages_are_carried() -> None:
    """ftfy brings wcwidth. Requirements of packages that the machine has are not looked up."""
    installed = {"numpy": Version("2.5.2"), "torch": Version("2.11.0"), "pillow": None, "rich": None}
    wanted = ["numpy>=2", "torch>=2.11", "pillow>=13", "rich>=13", "ftfy", "colorama; sys_platform == 'win32'"]
    assert lacking(map(Requirement, wanted), installed) == ["ftfy", "pillow", "wcwidth"]
    assert lacking([Requirement("numpy>=2.6")], installed) == ["numpy"]


def test_what_the_project_needs_is_pinned_and_small() -> None:
    names = lacking(project_requirements(), installed_on(MACHINE))
    assert not {"torch", "torchvision", "triton"} & set(names)
    assert {"cyclopts", "open-clip-torch"} <= set(names)
    assert all("==" in package for package in pinned(names))


def test_results_are_kept_whatever_happens_next(tmp_path: Path) -> None:
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


def test_relative_error() -> None:
    assert relative_error(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.4 / 5)
