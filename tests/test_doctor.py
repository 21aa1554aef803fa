"""`uniemox doctor`: its findings here, and for machines that lack something."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.runs import uniemox_here
from uniemox.bench import doctor
from uniemox.bench.all_reduce import all_reduce_gb_s
from uniemox.bench.doctor import examine

NAMES = (
    *("python and packages", "GPUs", "bfloat16", "torch.compile", "all-reduce"),
    *("shared memory", "open files", "disk", "loading"),
)


def test_doctor_prints_one_line_per_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_compile", lambda: ("ok", "in 1 s", ""))
    done = uniemox_here("doctor", "--gpus", 2, "--out", tmp_path / "runs", "--json")
    findings = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert tuple(findings) == NAMES
    assert all(line["remedy"] for line in findings.values() if line["state"] == "warning")
    assert "failed" not in done.stdout
    assert f"GB free in {tmp_path}" in findings["disk"]["found"]
    assert not list(tmp_path.iterdir())
    if not torch.cuda.is_available():
        assert [findings[name]["state"] for name in ("GPUs", "bfloat16", "all-reduce")] == ["not checked"] * 3


def test_missing_resources_are_warnings_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with 64 MB of shared memory, a full disk and a compiler that fails."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 2**20))
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(doctor, "WRITTEN_MB", 1)
    monkeypatch.setattr(torch, "compile", lambda _: (_ for _ in ()).throw(RuntimeError("no C++ compiler")))
    monkeypatch.setattr(doctor, "_loading", lambda _: ("ok", "", ""))
    findings = {finding.name: finding for finding in examine(8, tmp_path)}
    for name, words in (
        ("shared memory", "--shm-size="),
        ("disk", "--out with 100 GB"),
        ("torch.compile", "mend this"),
    ):
        assert findings[name].state == "warning"
        assert words in findings[name].remedy
    assert "RuntimeError: no C++ compiler" in findings["torch.compile"].found


@pytest.mark.thorough
def test_all_reduce_measures_its_bandwidth() -> None:
    """The test uses gloo; between GPUs the check uses NCCL."""
    assert 0.01 < all_reduce_gb_s(2, "gloo") < 1000
