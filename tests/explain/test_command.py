"""uniemox explain, from files to sheets."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App
from PIL import Image

from tests.drawn import draw_picture
from tests.runs import finetuned, one_thread, pretrained
from uniemox.cli.explain import explain
from uniemox.errors import CheckpointError, ConfigError, ImageError, MissingPackageError


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(2):
        draw_picture(i).save(folder / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def call(*words: object) -> None:
    app = App(name="uniemox")
    app.command(explain)
    try:
        app(["explain", *map(str, words)], exit_on_error=False, print_error=False)
    except SystemExit as stop:
        assert not stop.code


def test_a_sheet_of_two_models(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad pictures are named and left out; scores are one JSON object."""
    out = tmp_path / "new" / "sheet.png"
    models = ("--model", finetuned("knn"), finetuned("probe"))
    call(pictures, *models, "--out", out, "--scores", "--json")
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert set(found) == {"knn", "probe"}
    for scores in found.values():
        assert scores["pictures"] == 2
        low, high = scores["deletion"]["interval"]
        assert 0 <= low <= scores["deletion"]["mean"] <= high <= 1
    assert "broken.jpg" in printed.err
    assert "2 pictures, 2 models" in printed.err
    assert Image.open(out).format == "PNG"


def test_a_page_and_a_folder(pictures: Path, tmp_path: Path) -> None:
    model = ("--model", finetuned("knn") / "model.onnx", "--label", "awe")
    call(pictures / "0.png", *model, "--out", tmp_path / "page.html")
    assert "0.png" in (tmp_path / "page.html").read_text("utf-8")
    call(pictures, *model, "--out", tmp_path / "maps")
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["0.knn.png", "1.knn.png"]
    assert Image.open(tmp_path / "maps" / "0.knn.png").size == (320, 240)


def test_reconstructions(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("reconstruct", pictures, "--model", pretrained(), "--out", tmp_path / "sheet.png", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == 2
    assert list(found["masked_mse"]) == ["pretrained step-00000002", "pretrained step-00000004"]
    assert Image.open(tmp_path / "sheet.png").width > 4 * 160


def test_what_can_not_be_done_is_an_error(pictures: Path, tmp_path: Path) -> None:
    model, out = ("--model", finetuned("knn")), ("--out", tmp_path / "sheet.png")
    with pytest.raises(ConfigError, match="add --scores"):
        call(pictures, *model, *out, "--json")
    with pytest.raises(ConfigError, match=r"give sheet\.png"):
        call(pictures, *model, "--out", tmp_path / "sheet.gif")
    with pytest.raises(ConfigError, match="no picture to explain"):
        call(*model, *out)
    with pytest.raises(ImageError, match="none of 1 pictures"):
        call(pictures / "broken.jpg", *model, *out)
    with pytest.raises((CheckpointError, MissingPackageError)):
        call(pictures, "--model", tmp_path, *out, "--method", "grad-cam")
    assert not (tmp_path / "sheet.png").exists()
