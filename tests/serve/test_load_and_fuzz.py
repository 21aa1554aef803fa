"""Short runs of the commands whose long runs are in docs/reliability.md: load, hostile input, schemathesis."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.load import run
from tests.serve.process import started
from tools.serve_fuzz import fuzz

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


def test_many_clients_lose_nothing_and_mix_nothing_up_though_the_queue_is_short() -> None:
    tally = run(clients=16, seconds=2, model=None, queue=8)
    assert tally.lost == []
    assert (tally.mixed_up, tally.wrong) == (0, 0)
    assert len(tally.seconds) > 16


def test_mutated_images_and_hostile_http_break_nothing() -> None:
    assert fuzz(images=120, hostiles=60, seed=1, model=None) == 0


def test_the_schema_is_kept(tmp_path: Path) -> None:
    if not SCHEMATHESIS.is_file():
        pytest.skip("needs schemathesis, of the extra dev")
    with started(None, tmp_path) as (_, port):
        done = subprocess.run(
            [
                *(SCHEMATHESIS, "run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "all"),
                *("--exclude-checks", "positive_data_acceptance"),  # a schema can't say which bytes are an image
                *("--max-examples", "3", "--phases", "fuzzing", "--seed", "1", "--generation-database", "none"),
                *("--no-color", "--suppress-health-check", "all", "--warnings", "off"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-3000:]
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
