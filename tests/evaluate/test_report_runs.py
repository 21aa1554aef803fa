"""The report of runs without an evaluation: missing, without steps, pre-trained."""

import json
import re
from pathlib import Path

import pytest

from tests.drawn import draw_image
from tests.evaluate.test_report import page_of, write_run
from uniemox.errors import DataError
from uniemox.evaluate.report.page import write_report


def test_missing_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run to report"):
        write_report([], tmp_path / "page.html")
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(DataError, match=re.escape(f"{folder} has no run: there is no config.json")):
            write_report([folder], tmp_path / "page.html")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json: not JSON .*; copy the run's folder again"):
        write_report([tmp_path], tmp_path / "page.html")
    (tmp_path / "config.json").write_text('{"kind": "probe"}')
    with pytest.raises(DataError, match="has kind 'probe'"):
        write_report([tmp_path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_unwritable_page_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{tmp_path} can't be written")):
        write_report([write_run(tmp_path / "run", "finetune")], tmp_path)


def test_report_of_a_run_without_steps(tmp_path: Path) -> None:
    """A record and nothing else, of both kinds."""
    for kind in ("pretrain", "finetune"):
        run = tmp_path / kind
        run.mkdir()
        (run / "config.json").write_text(json.dumps({"kind": kind}))
    page = page_of(tmp_path, tmp_path / "pretrain", tmp_path / "finetune")
    assert page.words.count("There is no model.safetensors: the run is not finished.") == 2
    assert page.words.count("No losses were logged.") == 2
    assert "There is no image yet" in page.words
    assert "No scores were found" in page.words
    assert page.sources == []


def test_report_of_a_pretraining_run(tmp_path: Path) -> None:
    settings = {"model": {"losses": {"semantic_visual_alignment": 0.0}}, "teacher": {"source": "clip"}}
    run = write_run(tmp_path / "pre", "pretrain", steps=30, **settings)
    (run / "pictures").mkdir()
    for step in (10, 20, 30):
        draw_image(step, (160, 120)).save(run / "pictures" / f"reconstruction-{step:08d}.png")
    page = page_of(tmp_path, run)
    assert page.charts == [
        f"{name}: 30 steps, from 4 to 0.1333 at step 30"
        for name in ("scene reconstruction", "person reconstruction", "gradient norm")
    ]
    # The table behind the charts has 20 of the 30 steps, among them the first and the last.
    rows = [row for row in page.rows if len(row) == 4 and row[0].isdecimal()]
    assert (len(rows), rows[0], rows[-1]) == (20, ["1", *["4"] * 3], ["30", *["0.1333"] * 3])
    assert page.alts == ["Reconstructions after step 10", "Reconstructions after step 30"]
    for words in ("1,234", "none: no loss needs one", "30 steps, 15 epochs", "torch 9.8.7", "folder:photos"):
        assert words in page.words
    assert "scene: input, reconstruction, original; person: input, reconstruction, original" in page.words
    assert "not finished" not in page.words
    (run / "pictures" / "reconstruction-00000030.png").write_bytes(b"no image")
    page = page_of(tmp_path, run)
    assert "An image can't be read" in page.words
    assert page.alts == ["Reconstructions after step 10"]


def test_a_teacher_is_named_where_a_loss_needs_it(tmp_path: Path) -> None:
    settings = {"model": {"losses": {"semantic_visual_alignment": 1.0}}, "teacher": {"source": "the teacher"}}
    assert "the teacher" in page_of(tmp_path, write_run(tmp_path / "pre", "pretrain", **settings)).words


def test_curves_are_explained_and_values_that_never_change_are_not_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "pre", "pretrain", steps=30)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for i, line in enumerate(lines):
        line |= {"fused_cosine": 0.5 - i / 100, "with_person": 0.75}
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = page_of(tmp_path, run)
    words = " ".join(page.words.split())
    assert "scene reconstruction, 0.1333 at step 30. L1, the error of hidden patches of the scene: falls, then" in words
    assert "near 1, the features have collapsed into one" in words
    assert "Values that do not change: share of images with a person: 0.75 (logged 30 times). Share of" in words
    assert [chart for chart in page.charts if chart.startswith("similarity of fused features: 30 steps")]
    assert not [chart for chart in page.charts if "with a person" in chart]
