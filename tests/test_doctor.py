"""`uniemox doctor`: what it finds here, and what it says of machines that lack something."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.runs import uniemox_here
from uniemox.bench import doctor
from uniemox.bench.doctor import all_reduce_gb_s, examine

NAMES = (
    *("python and packages", "GPUs", "bfloat16", "torch.compile", "all-reduce"),
    *("shared memory", "open files", "disk", "loading"),
)


def test_every_check_is_a_line_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_compile", lambda: ("ok", "in 1 s", ""))
    done = uniemox_here("doctor", "--gpus", 2, "--out", tmp_path / "runs", "--json")
    found = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert tuple(found) == NAMES
    assert all(line["remedy"] for line in found.values() if line["state"] == "warning")
    assert "failed" not in done.stdout
    assert f"GB free in {tmp_path}" in found["disk"]["found"]
    assert not list(tmp_path.iterdir())
    if not torch.cuda.is_available():
        assert [found[name]["state"] for name in ("GPUs", "bfloat16", "all-reduce")] == ["not checked"] * 3


def test_what_is_missing_is_a_warning_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with 64 MB of shared memory, a full disk and a compiler that fails."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 2**20))
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(doctor, "WRITTEN_MB", 1)
    monkeypatch.setattr(torch, "compile", lambda _: (_ for _ in ()).throw(RuntimeError("no C++ compiler")))
    monkeypatch.setattr(doctor, "_loading", lambda _: ("ok", "", ""))
    found = {finding.name: finding for finding in examine(8, tmp_path)}
    for name, words in (
        ("shared memory", "--shm-size="),
        ("disk", "--out with 100 GB"),
        ("torch.compile", "mend this"),
    ):
        assert found[name].state == "warning"
        assert words in found[name].remedy
    assert "RuntimeError: no C++ compiler" in found["torch.compile"].found


def test_processes_of_a_machine_measure_what_they_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """With gloo here; between GPUs it is NCCL."""
    assert 0.01 < all_reduce_gb_s(2, "gloo") < 1000
