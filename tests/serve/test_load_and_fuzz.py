"""Short runs of the commands whose long runs are in docs/reliability.md: load, hostile input, schemathesis."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.load import run
from tests.serve.process import started
from tools.serve_fuzz import fuzz

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


@pytest.mark.thorough
def test_no_answer_is_lost_or_mixed_up_with_a_short_queue() -> None:
    tally = run(clients=16, seconds=2, model=None, queue=8)
    assert tally.lost == []
    assert (tally.mixed_up, tally.wrong) == (0, 0)
    assert len(tally.seconds) > 16


@pytest.mark.thorough
@pytest.mark.long
def test_the_server_survives_mutated_images_and_hostile_http() -> None:
    assert fuzz(images=120, hostiles=60, seed=1, model=None) == 0


@pytest.mark.thorough
def test_responses_match_the_schema(tmp_path: Path) -> None:
    if not SCHEMATHESIS.is_file():
        pytest.skip("needs schemathesis, of the extra dev")
    with started(None, tmp_path) as (_, port):
        result = subprocess.run(
            [
                *(SCHEMATHESIS, "run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "all"),
                # A schema can't express which bytes are an image.
                *("--exclude-checks", "positive_data_acceptance"),
                *("--max-examples", "3", "--phases", "fuzzing", "--seed", "1", "--generation-database", "none"),
                *("--no-color", "--suppress-health-check", "all", "--warnings", "off"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert result.returncode == 0, result.stdout[-3000:]
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
