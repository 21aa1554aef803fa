"""A folder for a model hub, opened by timm, by transformers and by the hub's own library."""

import functools
import http.server
import json
import math
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import ExifTags, Image

import uniemox
from tests.drawn import draw_image
from tests.runs import data_of, finetuned, once
from uniemox.checkpoints.classifier import load_classifier, save_classifier
from uniemox.classifier_info import to_affect
from uniemox.cli import app
from uniemox.data.seen import OTHERS, SEEN, read_seen
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.evaluate.places import evaluations_folder
from uniemox.evaluate.run import evaluate
from uniemox.export.hub_folder import _task_in_words, timm_network, write_hub_folder
from uniemox.io.run_files import WEIGHTS

NPM = Path(__file__).parents[2] / "build/npm/node_modules/onnxruntime-web"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    for i in range(3):
        draw_image(i, (90, 70)).save(folder / f"{i}.png")
    rotated = Image.Exif()
    rotated[ExifTags.Base.Orientation] = 6
    draw_image(3, (90, 70)).save(folder / "3.jpg", quality=95, exif=rotated)
    return sorted(folder.iterdir())


def run_python(folder: Path, section: str, image: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the Python code in a section of the card as it is printed, and return its variables."""
    text = (folder / "README.md").read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    code = text.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code.replace('"photo.jpg"', repr(str(image))), names)
    return names


def by_timm(folder: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Run the card's code as it is printed."""
    names = run_python(folder, "With timm", image, monkeypatch)
    labels = names["model"].pretrained_cfg["label_names"]
    return dict(zip(labels, names["probabilities"][0].tolist(), strict=True))


def hub() -> Path:
    """A folder that timm and transformers open."""
    return once("hub", _write_hub)


def _write_hub(out: Path) -> None:
    classifier, info = load_classifier(finetuned("probe") / WEIGHTS)
    assert write_hub_folder(classifier, replace(info, temperature=1.7, distances=()), out, name="mine")


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (90, 70)])
def test_the_page_about_export_gives_the_pixels(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    rotated = Image.Exif()
    rotated[ExifTags.Base.Orientation] = 6
    draw_image(1, size).save(tmp_path / "photo.jpg", quality=95, exif=rotated)
    shutil.copy(hub() / "model.onnx", tmp_path / "fi.onnx")
    monkeypatch.chdir(tmp_path)
    variables: dict[str, Any] = {}
    exec(code, variables)
    expected = uniemox.load("fi.onnx", finder=None).predict("photo.jpg").scene
    assert variables["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_labels_with_commas_are_quoted_in_the_card() -> None:
    info = load_classifier(finetuned("probe") / WEIGHTS)[1]
    network = replace(info.network, labels=("cosy, warm", *info.labels[1:]))
    assert _task_in_words(replace(info, network=network)).startswith('one of "cosy, warm", ')


def test_scores_of_a_hub_folder_are_saved_in_the_working_directory() -> None:
    """The folder is published, and scores have the names of the user's images."""
    folder = evaluations_folder(hub())
    assert folder.parent == Path("evaluations")
    assert folder.name.startswith(f"{hub().name}-")
    assert evaluations_folder(finetuned("probe")) == finetuned("probe") / "evaluations"


def test_hub_folders_of_one_name_have_scores_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One called embedded does not replace the scores of the package's model, and .. is no folder's name."""
    folders = [tmp_path / "a" / "embedded", tmp_path / "b" / "embedded"]
    for folder in folders:
        (folder / "sub").mkdir(parents=True)
        for name in ("model.onnx", "config.json"):
            (folder / name).symlink_to(hub() / name)
    first, second = map(evaluations_folder, folders)
    assert len({first, second, Path("evaluations") / "embedded"}) == 3
    monkeypatch.chdir(folders[0])
    assert evaluations_folder(Path()) == first
    monkeypatch.chdir("sub")
    assert evaluations_folder(Path("..")) == first


def test_timm_gives_the_probabilities_of_uniemox(images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrated probabilities of images as timm's own transform sees them, one of them rotated by EXIF."""
    predictor = uniemox.load(hub(), finder=None)
    for image in images:
        assert by_timm(hub(), image, monkeypatch) == pytest.approx(predictor.predict(image).scene, abs=2e-3)


def test_the_configuration_has_no_licence_or_tag_of_another_model() -> None:
    config = json.loads((hub() / "config.json").read_text())
    assert not {"license", "tag", "origin_url"} & config["pretrained_cfg"].keys()


def test_the_card_tells_how_the_middle_of_an_image_is_cut_out() -> None:
    info = load_classifier(finetuned("probe") / WEIGHTS)[1]
    resized = math.floor(info.size / info.crop_fraction)
    assert f"shorter side resized to {resized} px (bicubic, antialiased)" in " ".join(
        (hub() / "README.md").read_text().replace("//", " ").split()
    )


@pytest.mark.thorough
@pytest.mark.skipif(not NPM.exists(), reason="npm install --prefix build/npm onnxruntime-web@1.30.0")
@pytest.mark.browser
@pytest.mark.parametrize("run", ["probe", "affect"])
def test_the_code_for_browsers_runs_as_it_is_printed(
    browser: Any, images: list[Path], tmp_path: Path, run: str
) -> None:
    """A scene with labels, and a person with valence and arousal; up to the browser's way to resize."""
    folder = tmp_path / "hub"
    classifier, info = load_classifier(finetuned(run) / WEIGHTS)
    write_hub_folder(classifier, replace(info, temperature=1.7, distances=()), folder, name="mine")
    (folder / "onnxruntime-web").symlink_to(NPM)
    shutil.copy(images[0], folder / "photo.jpg")
    code = (folder / "README.md").read_text().partition("```js\n")[2].partition("```")[0]
    imports = json.dumps({"imports": {"onnxruntime-web": "./onnxruntime-web/dist/ort.min.mjs"}})
    page = f'<script type="importmap">{imports}</script><script type="module">{code}window.answer = answer;</script>'
    (folder / "index.html").write_text(page)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab = browser.new_page()
        tab.goto(f"http://127.0.0.1:{server.server_port}/")
        answer = tab.wait_for_function("window.answer").json_value()
        tab.close()
        server.shutdown()
    if run == "affect":
        with Image.open(folder / "photo.jpg") as image:
            person = image.convert("RGB").resize((info.size, info.size), Image.Resampling.BICUBIC)
        pixels = (
            torch.from_numpy((np.asarray(person, np.float32) / 255 - info.mean) / info.std).permute(2, 0, 1).float()
        )
        with torch.no_grad():
            values = to_affect(classifier.eval()(person=pixels[None]))[0].tolist()
        expected = dict(zip(info.labels, values, strict=True))
    else:
        expected = uniemox.load(folder, finder=None).predict(folder / "photo.jpg").scene
    assert answer == pytest.approx(expected, abs=0.02)


def test_export_does_not_write_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniemox.export.hub_folder.export_classifier", lambda _, __, path: path.touch())
    classifier, info = load_classifier(finetuned("probe") / WEIGHTS)
    (tmp_path / "hub").mkdir()
    (tmp_path / "mine.json").write_text("mine")
    (tmp_path / "hub" / "config.json").symlink_to(tmp_path / "mine.json")
    with pytest.raises(CheckpointError, match="is a link"):
        write_hub_folder(classifier, replace(info, distances=()), tmp_path / "hub", name="mine")
    assert (tmp_path / "mine.json").read_text() == "mine"


def test_transformers_gives_the_probabilities_of_uniemox(images: list[Path]) -> None:
    """Its pipeline and its model class, preprocessing included; to 2e-3 as timm."""
    transformers = pytest.importorskip("transformers")
    folder = hub()
    predictor = uniemox.load(hub(), finder=None)
    images = images[:3]  # without the rotated one, which transformers does not turn
    expected = [predictor.predict(image).scene for image in images]
    classify = transformers.pipeline("image-classification", model=str(folder), top_k=len(expected[0]))
    by_pipeline = [{share["label"]: share["score"] for share in answer} for answer in classify(list(map(str, images)))]
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)([Image.open(image) for image in images])
    with torch.no_grad():
        by_model = model(**pixels).logits.softmax(-1)
    assert by_pipeline == [pytest.approx(scene, abs=2e-3) for scene in expected]
    for row, scene in zip(by_model.tolist(), expected, strict=True):
        assert dict(zip(model.config.id2label.values(), row, strict=True)) == pytest.approx(scene, abs=2e-3)


def test_valence_and_arousal_come_out_as_1_to_9() -> None:
    classifier, info = load_classifier(finetuned("affect") / WEIGHTS)
    network = timm_network(classifier, info)
    assert network is not None
    pixels = torch.randn(3, 3, info.size, info.size)
    with torch.no_grad():
        assert torch.allclose(network(pixels), to_affect(classifier(person=pixels)), atol=1e-5)


@pytest.mark.thorough
def test_other_networks_are_written_as_onnx_with_a_card(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert timm_network(*load_classifier(finetuned("both") / WEIGHTS)) is None
    alone, info = load_classifier(finetuned("probe") / WEIGHTS)
    # Joined networks are no single timm network.
    assert timm_network(alone, replace(info, network=replace(info.network, encoders=2 * info.network.encoders))) is None
    classifier, info = load_classifier(finetuned("knn") / WEIGHTS)
    assert not write_hub_folder(classifier, info, tmp_path, name="mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.onnx", SEEN]
    # The model's own images are not known, and another model may have been in the folder.
    assert read_seen(tmp_path) == {OTHERS}
    assert json.loads((tmp_path / "config.json").read_text())["library_name"] == "uniemox"
    assert uniemox.load(tmp_path).predict(images[0]).scene.keys() == set(info.labels)
    run_python(tmp_path, "With uniemox", images[0], monkeypatch)
    assert capsys.readouterr().out == f"{uniemox.load(tmp_path).predict(images[0]).scene}\n"


def test_weights_that_timm_would_not_use_are_noticed() -> None:
    classifier, info = load_classifier(finetuned("probe") / WEIGHTS)
    with torch.no_grad():
        classifier.encoder.register_module("more", torch.nn.Linear(1, 1))
        classifier.encoder.forward = lambda x: torch.zeros(len(x), classifier.head.in_features)  # type: ignore[method-assign]
    assert timm_network(classifier, info) is None


def test_the_command_writes_a_card_that_the_hub_reads_and_no_folders_of_this_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finetuned("probe")
    out = tmp_path / "hub"
    app(["export", str(run), "--to", "hub-folder", "--out", str(out)], exit_on_error=False, result_action="return_none")
    assert "timm, transformers and uniemox open it" in capsys.readouterr().err
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "timm"
    assert card.data.pipeline_tag == "image-classification"
    assert "must not be used to judge people" in card.text
    onnx = uniemox.load(out, finder=None).network.info
    texts = (out / "README.md").read_text() + (out / "config.json").read_text() + onnx.trained_on
    assert str(run.parent) not in texts
    assert not re.search(r"\{\w+\}", card.text)


def test_the_card_names_the_weights_that_the_training_started_from(tmp_path: Path) -> None:
    """Also for a run of an older version, whose files name only its data."""
    run = finetuned("probe")
    classifier, info = load_classifier(run / WEIGHTS)
    assert info.trained_on.endswith("; starts from pretrained (synthetic:16)")
    shutil.copytree(run, tmp_path / "old")
    save_classifier(classifier, replace(info, trained_on="folder:photos", distances=()), tmp_path / "old" / WEIGHTS)
    record = json.loads((run / "config.json").read_text())
    record["config"]["init"] = "small"
    (tmp_path / "old" / "config.json").write_text(json.dumps(record))
    uniemox.export(tmp_path / "old", out=tmp_path / "hub", to="hub-folder")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "It was trained on folder:photos, with" in card
    assert "Base model: small (fi, fi2). " in card
    assert "its MODEL_CARD.md describes their data and licence" in card
    onnx = uniemox.load(tmp_path / "hub", finder=None).network.info
    assert onnx.trained_on == "folder:photos; starts from small (fi, fi2)"


@pytest.mark.parametrize(
    ("trained_on", "paragraph"),
    [
        ("fi; starts from timm:vit_small", "\n\nBase model: timm:vit_small.\n\n## Scores"),
        (
            "fi; starts from my-small (fi)",
            "Base model: my-small (fi). Parentheses contain the data that it was trained on.\n",
        ),
        ("fi", "It was trained on fi, with uniemox {version}.\n\n## Scores"),
    ],
)
def test_the_card_tells_only_what_is_known_of_the_base_model(
    trained_on: str, paragraph: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uniemox.export.hub_folder.export_classifier", lambda _, __, path: path.touch())
    classifier, info = load_classifier(finetuned("knn") / WEIGHTS)
    write_hub_folder(classifier, replace(info, trained_on=trained_on, distances=()), tmp_path, name="mine")
    assert paragraph.format(version=uniemox.__version__) in (tmp_path / "README.md").read_text()


def test_training_images_of_a_hub_folder_are_not_scored(tmp_path: Path) -> None:
    run = finetuned("probe")
    uniemox.export(run, out=tmp_path / "hub", to="hub-folder")
    assert read_seen(tmp_path / "hub") == read_seen(run) != set()
    assert f"`{SEEN}` has the SHA-256" in (tmp_path / "hub" / "README.md").read_text()
    for model in (tmp_path / "hub", tmp_path / "hub" / "model.onnx"):
        with pytest.raises(DataError, match="the model was trained on"):
            evaluate(model, data_of("probe"))
    # The folder's model.safetensors is timm's, so its model.onnx is scored.
    by_folder = evaluate(tmp_path / "hub", data_of("probe").only("test"))
    assert by_folder.scores == evaluate(run / "model.onnx", data_of("probe").only("test")).scores


def test_conflicting_options_are_refused(tmp_path: Path) -> None:
    for words, error in (([str(finetuned("probe")), "--float16"], ConfigError), ([str(tmp_path)], CheckpointError)):
        with pytest.raises(error):
            app(["export", *words, "--to", "hub-folder", "--out", str(tmp_path / "x")], exit_on_error=False)
    assert not (tmp_path / "x").exists()


@pytest.mark.thorough
def test_a_model_of_several_labels_gives_their_probabilities_in_timm_and_in_the_card(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, info = load_classifier(finetuned("probe") / WEIGHTS)
    offsets = tuple(np.linspace(-1, 1, len(info.labels)).tolist())
    several = replace(
        info,
        task="multilabel",
        temperature=1.7,
        offsets=offsets,
        thresholds=(0.25,) * len(offsets),
        conformal_scores=(),
        distances=(),
    )
    assert write_hub_folder(classifier, several, tmp_path, name="mine")
    expected = uniemox.load(tmp_path, finder=None).predict(images[0])
    assert by_timm(tmp_path, images[0], monkeypatch) == pytest.approx(expected.scene, abs=2e-3)
    assert expected.assigned_labels == tuple(label for label, value in expected.top(6) if value > 0.25)
    card = (tmp_path / "README.md").read_text()
    assert "any of anger, disgust, fear, joy, sadness, surprise; a label is given if its probability is above" in card
    assert "With transformers" not in card
    assert "Math.exp(-logit / 1.7 - offsets[i])" in card
    assert f"const offsets = {json.dumps(offsets)};" in card
