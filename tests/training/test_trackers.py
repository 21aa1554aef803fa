"""Weights & Biases and MLflow receive the curves without a server; a resumed run is continued there."""

import json
import re
import socket
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.processes import wait_until
from uniemox.errors import ConfigError, MissingPackageError
from uniemox.io.run_files import CONFIG
from uniemox.training.journal import Journal, read_metrics
from uniemox.training.trackers import MLFLOW_ID, WANDB_ID, _Mlflow, open_tracker


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, and no server."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlflow")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "runs" / "first"
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps({"config": {"seed": 3, "optimizer": {"base_lr": 0.001}}}))
    return folder


def train(run: Path, tracker: str, first: int, last: int) -> None:
    with Journal(run, first - 1, tracker=tracker) as journal:  # type: ignore[arg-type]
        for step in range(first, last + 1):
            journal.write(step, {"loss": 1 / step, "lr": 0.1})
        journal.image(last, "reconstruction", Image.new("RGB", (8, 8)))


@pytest.mark.thorough
def test_mlflow_has_every_step_of_a_run_that_resumed(run: Path) -> None:
    pytest.importorskip("mlflow", reason="needs MLflow: pip install 'uniemox[track]'")
    train(run, "mlflow", 1, 3)
    run_id = (run / MLFLOW_ID).read_text().strip()
    train(run, "mlflow", 4, 5)
    assert (run / MLFLOW_ID).read_text().strip() == run_id
    client = _Mlflow(run).client
    points = sorted((point.step, point.value) for point in client.get_metric_history(run_id, "loss"))
    assert points == [(step, 1 / step) for step in range(1, 6)]
    # The client above continues the run.
    assert client.get_run(run_id).info.status == "RUNNING"
    with pytest.raises(ValueError, match="lost"), Journal(run, 5, tracker="mlflow"):
        raise ValueError("lost")
    tracked = client.get_run(run_id)
    assert tracked.info.status == "FAILED"
    assert tracked.data.params == {"seed": "3", "optimizer.base_lr": "0.001"}
    assert tracked.info.run_name == "runs/first"
    assert len(read_metrics(run)) == 5


def test_mlflow_gets_an_image_after_all_metrics(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an image, MLflow reads the files of the metrics, and fails at one that is being written."""
    pytest.importorskip("mlflow", reason="needs MLflow: pip install 'uniemox[track]'")
    tracker = _Mlflow(run)
    unsent = []
    monkeypatch.setattr(tracker.client, "log_image", lambda *_args, **_options: unsent.append(len(tracker.sent)))
    tracker.write(1, {"loss": 1.0})
    tracker.write(2, {"loss": 0.5})
    tracker.image(2, "reconstruction", Image.new("RGB", (8, 8)))
    assert unsent == [0]
    points = tracker.client.get_metric_history(tracker.id, "loss")
    # MLflow sends in several threads, so that a later step may come first.
    assert sorted(point.step for point in points) == [1, 2]
    tracker.close(failed=False)


def test_missing_server_is_reported_before_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="needs MLflow: pip install 'uniemox[track]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ConfigError, match=r"MLflow does not start: .*see MLFLOW_TRACKING_URI"):
        open_tracker(run, "mlflow")


@pytest.mark.thorough
def test_wandb_writes_offline_files_in_the_run_folder(run: Path) -> None:
    pytest.importorskip("wandb", reason="needs Weights & Biases: pip install 'uniemox[track]'")
    train(run, "wandb", 1, 2)
    run_id = (run / WANDB_ID).read_text().strip()
    [folder] = (run / "wandb").glob(f"offline-run-*-{run_id}")
    [file] = folder.glob("*.wandb")
    # Another process writes the file.
    wait_until(lambda: b"reconstruction" in file.read_bytes())
    train(run, "wandb", 3, 4)
    assert (run / WANDB_ID).read_text().strip() == run_id
    # Runs that begin in the same second share a folder.
    assert len(list((run / "wandb").glob(f"offline-run-*-{run_id}"))) in (1, 2)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_tracked_data_contain_no_local_paths(name: str, run: Path, tmp_path: Path) -> None:
    """W&B sends its file; MLflow sends parameters and tags."""
    pytest.importorskip(name, reason="needs the extra track")
    settings = {"seed": 3, "data": {"source": f"folder:{tmp_path}/photos"}, "joined": [f"{tmp_path}/a/model.onnx"]}
    (run / CONFIG).write_text(json.dumps({"config": settings}))
    train(run, name, 1, 1)
    sent = [
        *(run / "wandb").rglob("*.wandb"),
        *tmp_path.glob("mlflow/*/*/params/*"),
        *tmp_path.glob("mlflow/*/*/tags/*"),
    ]
    wait_until(lambda: any(b"folder:photos" in path.read_bytes() for path in sent))
    content = b"".join(path.read_bytes() for path in sent)
    assert b"model.onnx" in content
    for word in (str(tmp_path), str(Path.cwd()), sys.executable, socket.gethostname()):
        assert not re.search(rb"(?<!\w)" + re.escape(word.encode()) + rb"(?!\w)", content)


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_named(name: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingPackageError, match=f"save.tracker {name} needs"):
        open_tracker(run, name)  # type: ignore[arg-type]
