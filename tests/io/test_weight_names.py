"""Names of models in the package, and folders that have the same names."""

from pathlib import Path

import pytest

from tests.runs import finetuned
from uniemox.data.synthetic_scenes import synthetic
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.evaluate.compare import compare
from uniemox.evaluate.rating_fit import fit_ratings
from uniemox.evaluate.recalibration import recalibrate
from uniemox.evaluate.run import evaluate
from uniemox.export.run import export_onnx
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.network import open_start
from uniemox.insight.site.writing import write_site
from uniemox.io.weight_names import EMBEDDED, file_in_package, is_in_package
from uniemox.predict.opening import open_network
from uniemox.training.run_folder import begin_run


def test_a_run_with_the_name_of_a_model_in_the_package_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`evaluate --model ./small` scored the model of the package."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").symlink_to(finetuned("knn"))
    with pytest.raises(ConfigError, match=r"small is a model in the package, and a folder with a model here"):
        evaluate(Path("./small"), synthetic(4))
    assert not is_in_package(tmp_path / "small")
    assert is_in_package(Path("embedded"))


def test_a_folder_with_another_model_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "best.onnx").write_bytes(b"")
    with pytest.raises(ConfigError, match="small is a model in the package, and a folder with a model here"):
        file_in_package(Path("./small"))


def test_a_folder_of_images_with_such_a_name_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert file_in_package(Path("small")) == EMBEDDED / "small.onnx"


def test_a_folder_that_nobody_may_read_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("uniemox.io.weight_names.os.listdir", refuse)
    assert is_in_package("small")


def test_a_run_cannot_be_begun_under_such_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(ConfigError, match=r"--out embedded is the name of a model in the package; .* runs/embedded"),
        begin_run(Path("embedded"), "finetune", FinetuneConfig(init="small"), synthetic(4), resume=False),
    ):
        pass
    assert not Path("embedded").exists()


def test_other_commands_do_not_take_such_a_run_for_the_model_of_the_package_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`predict --model small` and `finetune --init small` read the model of the package without a word."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").symlink_to(finetuned("knn"))
    ambiguous = "small is a model in the package, and a folder with a model here"
    with pytest.raises(ConfigError, match=ambiguous):
        open_network("small")
    with pytest.raises(ConfigError, match=ambiguous):
        open_start("small", FinetuneConfig().network, size=32)
    # A file that `export` wrote without an ending.
    (tmp_path / "embedded").write_bytes(b"")
    with pytest.raises(ConfigError, match="embedded is a model in the package, and a file here; for the file"):
        open_network("embedded")
    # Without a name, there is nothing to mistake.
    assert open_network(None).name == "embedded"


def test_no_model_is_written_under_such_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("./small")
    refused = pytest.raises(ConfigError, match="--out small is the name of a model in the package")
    with refused:
        export_onnx(Path("embedded"), out)
    with refused:
        recalibrate("embedded", synthetic(4), out)
    with refused:
        fit_ratings("embedded", synthetic(4), out)
    with refused:
        write_site(open_network("embedded"), EMBEDDED / "scene.onnx", out, tmp_path)
    assert not out.exists()


def test_a_run_without_scores_is_no_folder_of_scores(tmp_path: Path) -> None:
    """The advice was to compare with the model of the package instead."""
    run = tmp_path / "runs" / "small"
    run.mkdir(parents=True)
    (run / "config.json").write_text('{"kind": "finetune", "config": {}}')
    with pytest.raises((DataError, CheckpointError)) as error:
        compare([run], [run])
    assert "folder of the scores" not in str(error.value)
    scores = tmp_path / "evaluations" / "small"
    scores.mkdir(parents=True)
    (scores / "data-all.json").write_text("{}")
    with pytest.raises(DataError, match=r"small is the folder of the scores of small; give small, and run"):
        compare([scores], [scores])
