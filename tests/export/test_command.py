"""uniemox export, from a run to a file."""

import json
from pathlib import Path

import pytest
from cyclopts import App

from tests.drawn import class_folders
from tests.runs import finetuned
from uniemox.cli.export import export
from uniemox.data.seen import read_seen
from uniemox.errors import CheckpointError, ConfigError


def call(*words: object) -> None:
    app = App(name="uniemox")
    app.command(export)
    try:
        app(["export", *map(str, words)], exit_on_error=False, print_error=False)
    except SystemExit as stop:
        assert not stop.code


@pytest.mark.thorough
def test_export_of_a_run_equals_its_own_file(tmp_path: Path) -> None:
    call(finetuned("knn"), "--out", tmp_path / "new" / "knn.onnx")
    assert (tmp_path / "new" / "knn.onnx").read_bytes() == (finetuned("knn") / "model.onnx").read_bytes()
    assert read_seen(tmp_path / "new" / "knn.onnx") == read_seen(finetuned("knn")) != set()


def test_float16_is_smaller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(finetuned("probe") / "model.onnx", "--out", tmp_path / "small.onnx", "--float16", "--json")
    size = (tmp_path / "small.onnx").stat().st_size
    assert json.loads(capsys.readouterr().out) == {"written": str(tmp_path / "small.onnx"), "bytes": size}
    assert size < 0.8 * (finetuned("probe") / "model.onnx").stat().st_size


def test_int8_is_written_or_refused_with_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which of the two, this machine decides. With --splits, the images of the test part are compared."""
    data = class_folders(tmp_path / "data", each=4)
    published = tmp_path / "published"
    published.mkdir()
    keys = [f"{path.parent.name}/{path.name}" for path in sorted(data.rglob("*.*")) if path.is_file()]
    (published / "train.txt").write_text("\n".join(keys[6:]))
    (published / "test.txt").write_text("\n".join(keys[:6]))
    out = tmp_path / "int8.onnx"
    words = (finetuned("knn") / "model.onnx", "--out", out, "--int8", "--data", f"folder:{data}", "--json")
    words = (*words, "--splits", published)
    try:
        call(*words)
    except ConfigError as error:
        assert "nothing was written" in str(error)
    printed = capsys.readouterr()
    assert "ms an image" in printed.err
    result = json.loads(printed.out)
    assert out.exists() == result["int8"]["is_kept"] == (result["written"] is not None)
    assert result["int8"]["pictures"] == 6


def test_float16_of_embedded_would_not_be_smaller(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="already stored in 16 or 8 bits, as those of embedded are"):
        call("small", "--out", tmp_path / "small.onnx", "--float16")
    assert not list(tmp_path.iterdir())


def test_keep_float16_expression_is_checked(tmp_path: Path) -> None:
    arguments = (finetuned("probe") / "model.onnx", "--out", tmp_path / "out.onnx", "--keep-float16", "no.such.name")
    with pytest.raises(ConfigError, match="matches no kernel's name"):
        call(*arguments, "--int8-weights")
    for words in ((), ("--float16",)):
        with pytest.raises(ConfigError, match="--keep-float16 needs --int8-weights"):
            call(*arguments, *words)
    with pytest.raises(ConfigError, match="can't be combined with"):
        call(*arguments, "--int8-weights", "--float16")
    with pytest.raises(CheckpointError, match="there is no such file"):
        call(tmp_path / "missing.onnx", "--out", tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


def test_models_that_cannot_be_exported_are_an_error(tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out.onnx")
    with pytest.raises(ConfigError, match="need each other"):
        call(finetuned("knn"), *out, "--int8")
    with pytest.raises(ConfigError, match="--splits needs --data"):
        call(finetuned("knn"), *out, "--splits", tmp_path)
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        call(tmp_path, *out)
    with pytest.raises(CheckpointError):
        call(finetuned("knn") / "config.json", *out)
    assert not (tmp_path / "out.onnx").exists()
