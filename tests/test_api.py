"""The public functions: what they do, and that a user's scripts pass strict type checkers."""

import inspect
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

import uniemox
from tests.drawn import draw_image
from tests.runs import CPU, pretrained
from uniemox.errors import ConfigError
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.few_labels_config import FewLabelsConfig
from uniemox.io import write_file
from uniemox.pretrain.config import PretrainConfig
from uniemox.run_settings import FewLabelsSettings, FinetuneSettings, PretrainSettings
from uniemox.views.config import ViewConfig

ROOT = Path(__file__).resolve().parents[1]
PYRIGHT = ROOT / "build" / "npm" / "node_modules" / ".bin" / "pyright"

# The flags of `mypy --strict`, which a file can't ask for by that name.
STRICT = (
    "disallow-any-generics, disallow-subclassing-any, disallow-untyped-calls, disallow-untyped-defs, "
    "disallow-incomplete-defs, check-untyped-defs, disallow-untyped-decorators, warn-return-any, "
    "no-implicit-reexport, strict-equality, extra-checks, warn-unused-ignores"
)
SCRIPTS = {
    "predict": """
import uniemox

predictor = uniemox.load("small", faces="find")
answer = predictor.predict("photo.jpg")
label, probability = answer.top(1)[0]
print(label.upper(), probability + 1, answer.valence)
for each in predictor.predict_many(["a.jpg", b"..."]):
    if isinstance(each, uniemox.Failure):
        print(each.error)
    else:
        print(each.scene["awe"])
frame = uniemox.to_frame(predictor.predict_folder("photos"))
print(frame[frame["is_unfamiliar"]]["path"])
features = predictor.embed(["a.jpg", "b.jpg"])
print(features.shape)
""",
    "train": """
from pathlib import Path

import uniemox
from uniemox.training.config import ScheduleConfig

data = uniemox.open_data("folder:photos", splits="splits.json")
pretrained = uniemox.pretrain(data, out="runs/pre", preset="demo", schedule=ScheduleConfig(epochs=1, warmup_epochs=0))
run = uniemox.finetune(data, out="runs/mine", init=pretrained, method="probe", batch_size=32)
print(run.model, run.metrics["loss"][-1])
test = uniemox.open_data("folder:photos", splits=run.splits).only("test")
evaluation = uniemox.evaluate(run, test, by="label")
print(evaluation.accuracy + 1, evaluation.accuracy_interval, evaluation.notes)
people = uniemox.open_data("emotic:EMOTIC", splits="lists")
several = uniemox.finetune(people, out="runs/emotic", method="probe", task="multilabel", class_weighting="discrete")
print(uniemox.export(several, out="small.onnx", weights="int8"))
for point in uniemox.few_labels(data, out="curves/mine", methods=("probe", "knn"), images=(1, 2), seeds=3):
    print(point.method.upper(), point.images_per_class, point.accuracy + 1, point.low, point.interval_text)
predictor = uniemox.load(run.model)
paths = [str(path) for path in Path("photos").iterdir()]
print(predictor.embed(paths).shape, len(predictor.predict_many(paths)))
""",
    "look": """
import uniemox

predictor = uniemox.load()
uniemox.explain(predictor, "photo.jpg", method="occlusion").overlay().save("why.png")
summary = uniemox.survey("photos", out="survey.html", by=["folder"])
print(summary.whole.images)
for hit in uniemox.search("photos", like="beach.jpg", mood="valence>7", count=3):
    print(hit.path, hit.score + 1, hit.values["valence"])
for image in [*uniemox.tag("photos", naming="photo.xmp"), *uniemox.untag("photos")]:
    print(image.path.upper(), image.state, image.keyword)
""",
}
# Pages whose Python blocks before a heading are one script, what it needs, and the heading; "" is the end of the page.
SCRIPTS_OF_DOCS = {
    "docs/predict.md": ('paths = ["a.jpg", "b.jpg"]', "## Embeddings"),
    "docs/tutorials/predict.md": ("", ""),
    "docs/tutorials/faces.md": ("", "## A model of your own"),
    "README.md": ("", ""),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api") / "photos"
    for i in range(40):
        place = folder / ("bright" if i % 2 else "dark")
        place.mkdir(parents=True, exist_ok=True)
        image = draw_image(i, (48, 40)).point(lambda value, i=i: value // 2 + 120 * (i % 2))
        image.save(place / f"{i}.png")
    return folder


def write_scripts(folder: Path, first_line: str = "") -> list[str]:
    """Write the scripts and those of the documentation, and return their names."""
    scripts = dict(SCRIPTS)
    for page, (start, heading) in SCRIPTS_OF_DOCS.items():
        text = (ROOT / page).read_text("utf-8")
        if heading:
            text, found, _ = text.partition(f"\n{heading}\n")
            assert found, page
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        assert blocks, page
        scripts[page.removesuffix(".md").replace("/", "_").lower()] = "\n".join([start, *blocks])
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(f"{first_line}\n{text}", "utf-8")
    return [f"{name}.py" for name in scripts]


@pytest.mark.types
def test_users_scripts_pass_mypy(tmp_path: Path) -> None:
    """Mypy's settings for other files are the project's, so that it finds their types in the cache of `make types`."""
    names = write_scripts(tmp_path, f"# mypy: {STRICT}")
    words = [sys.executable, "-m", "mypy", *(str(tmp_path / name) for name in names)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not PYRIGHT.exists(), reason="pyright is not installed: npm install --prefix build/npm pyright")
def test_users_scripts_pass_pyright(tmp_path: Path) -> None:
    words = [str(PYRIGHT), "--pythonpath", sys.executable, *write_scripts(tmp_path)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("settings", "config", "without"),
    [
        (FinetuneSettings, FinetuneConfig, {"init"}),
        (PretrainSettings, PretrainConfig, set()),
        (FewLabelsSettings, FewLabelsConfig, {"init"}),
    ],
)
def test_settings_are_the_fields_of_the_config(settings: type, config: type, without: set[str]) -> None:
    names = {field.name for field in fields(config)} - without
    assert set(settings.__annotations__) == names
    assert set(get_type_hints(config)) >= names


@pytest.mark.thorough
@pytest.mark.long
def test_a_classifier_is_trained_and_scored_and_predicts(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"folder:{photos}"
    view = ViewConfig(size=32)
    run = uniemox.finetune(source, out=tmp_path / "run", init=pretrained(), method="probe", view=view, hardware=CPU)
    assert run.model == tmp_path / "run" / "model.onnx"
    assert run.splits is not None
    data = uniemox.open_data(source, splits=run.splits).only("test")
    evaluation = uniemox.evaluate(run, data, save_as="mine")
    assert evaluation.as_dict()["n"] == len(data)
    accuracy = evaluation.accuracy
    assert accuracy >= 0.5
    assert (tmp_path / "run" / "evaluations" / "mine.json").exists()
    with pytest.raises(uniemox.UniemoxError, match="trained on"):
        uniemox.evaluate(run, source)
    answer = uniemox.load(run.model).predict(photos / "dark" / "0.png")
    assert answer.top(1)[0][0] == "dark"
    exported = uniemox.export(run, out=tmp_path / "mine.onnx", weights="float16")
    assert exported.stat().st_size < 0.6 * run.model.stat().st_size
    same = uniemox.load(exported).predict(photos / "dark" / "0.png").scene
    assert same == pytest.approx(answer.scene, abs=0.01)
    # The ONNX files of such folders are tested with small networks.
    monkeypatch.setattr("uniemox.export.hub_folder.export_classifier", lambda _, __, path: write_file(path, ""))
    card = uniemox.export(run, out=tmp_path / "hub", to="hub-folder") / "README.md"
    low, high = evaluation.accuracy_interval
    assert f"accuracy {accuracy:.3f}, 95 % interval {low:.3f} to {high:.3f}" in card.read_text()


def test_wrong_settings_are_refused_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no preset 'bset'"):
        uniemox.finetune(f"folder:{photos}", out=tmp_path / "run", preset="bset")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="weights must be one of float16, int8, got 'int4'"):
        uniemox.export("small", out=tmp_path / "x.onnx", weights="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="call predict for one, predict_folder for a folder"):
        uniemox.load("small").predict_many(str(photos))
    for name, hint in (
        ("epochs", "the settings are init, method, "),
        ("batchsize", "did you mean 'batch_size'"),
        ("exclude", r"it is an option of the data: open_data\('KIND:PATH', exclude=FILE\)"),
    ):
        with pytest.raises(TypeError, match=f"there is no setting '{name}'; {hint}"):
            uniemox.finetune(f"folder:{photos}", out=tmp_path / "run", **{name: 3})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_collections_are_surveyed_and_searched(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    predictor = uniemox.load("small")
    summary = uniemox.survey(tmp_path / "photos", out=tmp_path / "page.html", by=["folder"], predictor=predictor)
    assert summary.whole.images == 40
    assert re.fullmatch(
        r"<Summary of 40 images, 0 unreadable: \w+ \d+%, .*, valence \d\.\d, arousal \d\.\d, \d+ unfamiliar>",
        repr(summary),
    )
    assert {name: tally.images for name, tally in summary.groups["folder"].items()} == {"bright": 20, "dark": 20}
    assert "<html" in (tmp_path / "page.html").read_text()
    like = tmp_path / "photos" / "dark" / "0.png"
    hits = uniemox.search(tmp_path / "photos", like=like, count=3, unfamiliar=True, predictor=predictor)
    assert len(hits) == 3
    assert str(like) not in [hit.path for hit in hits]
    guesses = sum(
        hit.is_unfamiliar
        for hit in uniemox.search(tmp_path / "photos", like=like, count=40, unfamiliar=True, predictor=predictor)
    )
    with pytest.warns(UserWarning, match=f"^{guesses} further images? match.*; unfamiliar=True returns them"):
        assert len(uniemox.search(tmp_path / "photos", like=like, count=40, predictor=predictor)) == 39 - guesses
    explanation = uniemox.explain(predictor, like, label="awe")
    assert repr(explanation).startswith("<Explanation of awe (0.")
    assert explanation._repr_png_().startswith(b"\x89PNG")
    assert explanation.heat.max() <= 1


def test_packages_with_the_name_of_a_function_can_be_called() -> None:
    """Importing `uniemox.finetune.config` binds the package to `uniemox.finetune`."""
    for name in ("finetune", "pretrain", "evaluate", "export"):
        bound = getattr(uniemox, name)
        first = next(iter(inspect.signature(bound).parameters))
        assert first == ("model" if name in ("evaluate", "export") else "data")
    code = "import uniemox, uniemox.finetune.config\nuniemox.finetune('x', out='y', preset='z')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "there is no preset 'z'" in done.stderr
