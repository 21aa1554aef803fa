"""metrics.jsonl has a line per step, and lines after the resumed step are removed."""

from pathlib import Path

import pytest
from PIL import Image

from tests.data.tree import says
from uniemox.errors import DataError
from uniemox.io.run_files import METRICS
from uniemox.training.journal import Journal, read_metrics


def written(run: Path, first: int, last: int, done: int = 0) -> None:
    run.mkdir(exist_ok=True)
    with Journal(run, done) as journal:
        for step in range(first, last + 1):
            journal.write(step, {"loss": step / 10})


def test_lines_are_written_before_the_run_ends(tmp_path: Path) -> None:
    with Journal(tmp_path, 0) as journal:
        assert read_metrics(tmp_path) == []
        journal.write(1, {"loss": 0.5})
        assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}]


def test_lines_after_the_resumed_step_are_removed(tmp_path: Path) -> None:
    written(tmp_path, 1, 5)
    with (tmp_path / METRICS).open("a") as file:
        # The process was killed here.
        file.write('{"step": 6, "lo')
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    written(tmp_path, 4, 6, done=3)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    # There was no checkpoint, so the run begins again.
    written(tmp_path, 1, 1, done=0)
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.1}]


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniemox.training.journal.rank", lambda: 1)
    with Journal(tmp_path, 0) as journal:
        journal.write(1, {"loss": 0.5})
        journal.image(1, "scene", Image.new("RGB", (2, 2)))
    assert list(tmp_path.iterdir()) == []


def test_images_have_their_step_in_the_name(tmp_path: Path) -> None:
    with Journal(tmp_path, 0) as journal:
        journal.image(12, "scene", Image.new("RGB", (3, 2)))
    with Image.open(tmp_path / "pictures" / "scene-00000012.png") as image:
        assert image.size == (3, 2)


def test_missing_or_malformed_metrics_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says(tmp_path / METRICS, "can't be read (No such file or directory)")):
        read_metrics(tmp_path)
    (tmp_path / METRICS).write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(DataError, match=says(f"{METRICS}:2: not JSON")):
        read_metrics(tmp_path)
    huge = b'{"step": 1, "loss": 1' + b"0" * 400 + b"}"
    for line in (b"5", b"[]", b'{"a": 1}', b'{"step": "x"}', b'{"step": 1, "loss": "x"}', huge, b"\xff\xfe"):
        (tmp_path / METRICS).write_bytes(line + b'\n{"step": 2}\n')
        with pytest.raises(DataError, match=says(f"{METRICS}:1: ", "; copy the run's folder again")):
            read_metrics(tmp_path)
    (tmp_path / METRICS).write_text('{"step": 1}\n5')
    assert read_metrics(tmp_path) == [{"step": 1}]


def test_an_image_replaces_a_link(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_text("mine")
    (tmp_path / "run" / "pictures").mkdir(parents=True)
    (tmp_path / "run" / "pictures" / "views-00000003.png").symlink_to(private)
    with Journal(tmp_path / "run", 0) as journal:
        journal.image(3, "views", Image.new("RGB", (4, 4)))
    assert private.read_text() == "mine"
    assert Image.open(tmp_path / "run" / "pictures" / "views-00000003.png").size == (4, 4)
