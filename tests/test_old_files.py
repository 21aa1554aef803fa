"""Files of earlier versions open: runs in the middle and at their end, classifiers of every kind, ONNX, a project.

tests/reference/version_0_1 was written by that version, with the tiny settings of tests/runs.py under today's names.
version_0_2 holds a classifier of every fusion, head and method, written before networks had a NetworkSpec, and
answers.json what each said. predictions.json holds the answers that this version gave for drawn images, of
the classifier `several`.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from tests.conftest import REFERENCE
from tests.runs import losses, scenes, tiny_pretraining
from uniemox import load
from uniemox.checkpoints.classifier import load_classifier
from uniemox.classifier_info import NEW_RULES, OLD_RULES, AnswerRules, read_info
from uniemox.errors import CheckpointError
from uniemox.evaluate.report.page import write_report
from uniemox.evaluate.run_records import read_run
from uniemox.labels import MIKELS
from uniemox.predict.network import Network
from uniemox.pretrain.config import TeacherConfig
from uniemox.pretrain.run import pretrain
from uniemox_ask.forms import questions_of
from uniemox_ask.record import open_record
from uniemox_curate.annotate.verdicts import verdicts
from uniemox_curate.collect.screen import remembered_config
from uniemox_curate.project import open_project

OLD = REFERENCE / "version_0_1"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that may be written to, from which the paths in it are read."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def test_old_pretraining_resumes(old: Path) -> None:
    config = tiny_pretraining(teacher=TeacherConfig(source="stored:teacher.npz", view="whole"))
    pretrain(config, scenes(), old / "pretrained", resume=True)
    expected = json.loads((old / "pretraining_losses.json").read_text())
    resumed = losses(old / "pretrained")
    assert len(resumed) == len(expected) == 4
    for ours, theirs in zip(resumed, expected, strict=True):
        assert _renamed(ours) == pytest.approx(_renamed(theirs), rel=1e-3)


def _renamed(line: dict[str, float]) -> dict[str, float]:
    return {{"rate": "lr"}.get(name, name): value for name, value in line.items()}


def test_old_classifier_gives_its_stored_logits(old: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    scene, person = (torch.randn(3, 3, 32, 32, generator=generator) for _ in range(2))
    classifier, info = load_classifier(old / "finetuned" / "model.safetensors")
    expected = json.loads((old / "logits.json").read_text())
    assert np.allclose(classifier(scene, person).detach().numpy(), expected, atol=1e-4)
    assert info.streams == "both"


CLASSIFIERS = sorted(path.parent.name for path in (REFERENCE / "version_0_2").glob("*/model.safetensors"))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_kind_of_old_classifier_gives_its_stored_logits(name: str) -> None:
    """Full, probe, knn, mean, histogram; each fusion; several encoders; CCIM; each method that relates regions."""
    folder = REFERENCE / "version_0_2" / name
    generator = torch.Generator().manual_seed(0)
    scene, person = (torch.randn(2, 3, 32, 32, generator=generator) for _ in range(2))
    expected = json.loads((folder.parent / "answers.json").read_text())[name]
    classifier, info = load_classifier(folder / "model.safetensors")
    with torch.no_grad():
        logits, distances = classifier.answer(scene, person)
    np.testing.assert_allclose(logits.numpy(), expected["logits"], atol=1e-4)
    # The axes of knn's distances have next to no variance, so processors differ.
    rtol = 0.01 if name == "knn" else 1e-3
    np.testing.assert_allclose(distances.numpy(), expected["distances"], rtol=rtol, atol=1e-3)
    assert read_info(info.to_json()) == info
    if (folder / "model.onnx").is_file():
        network = Network.open(folder / "model.onnx")
        assert network.info == info
        views = {"scene": scene.numpy(), "person": person.numpy()}
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        [onnx_logits] = session.run(["logits"], {name: views[name] for name in info.views})
        np.testing.assert_allclose(onnx_logits, expected["logits"], atol=1e-3)


def test_old_onnx_file_predicts(old: Path) -> None:
    predictor = load(old / "finetuned" / "model.onnx", finder=None)
    answer = predictor.predict(np.full((40, 40, 3), (220, 30, 30), np.uint8))
    assert answer.top(1)[0][0] == "amusement"
    assert answer.kind == "evoked"


def drawn_images() -> dict[str, Image.Image]:
    """Images of several shapes, each of 5 x 5 plain rectangles."""
    rng = np.random.default_rng(0)
    sizes = {"square": (40, 40), "wide": (60, 40), "panorama": (150, 40), "tower": (40, 90), "dark": (40, 40)}
    images = {}
    for name, size in sizes.items():
        brightness = 30 if name == "dark" else 255
        small = Image.fromarray((rng.random((5, 5, 3)) * brightness).astype(np.uint8))
        images[name] = small.resize(size, Image.Resampling.NEAREST)
    return images


def test_a_file_without_answer_rules_answers_as_its_version_did() -> None:
    """Smoothing, likely sets and the squares of long images had other rules than today's."""
    folder = REFERENCE / "version_0_2"
    expected = json.loads((folder / "predictions.json").read_text())
    predictor = load(folder / "several" / "model.onnx", finder=None)
    assert predictor.network.info.rules == OLD_RULES
    smoothed = 0
    for name, image in drawn_images().items():
        prediction = predictor.predict(image, coverage=0.8)
        assert list(prediction.scene.values()) == pytest.approx(expected[name]["scene"], abs=1e-5), name
        assert prediction.familiarity == pytest.approx(expected[name]["familiarity"], abs=1e-5), name
        assert list(prediction.likely) == expected[name]["likely"], name
        smoothed += prediction.familiarity < NEW_RULES.trusted_familiarity
    assert smoothed  # today's rules would give other answers


def test_rules_are_stored_and_those_of_a_later_version_refused() -> None:
    info = Network.open(REFERENCE / "version_0_2/several/model.onnx").info
    rules = AnswerRules(trusted_familiarity=0.3, min_weight=0.5)
    assert read_info(replace(info, rules=rules).to_json()).rules == rules
    values = json.loads(info.to_json())
    values["rules"]["long_images"] = "spiral"
    with pytest.raises(CheckpointError, match=r"does not know the answer rules long_images 'spiral'; update uniemox"):
        read_info(json.dumps(values))


@pytest.mark.parametrize(
    "rules", [[], ["min_weight", 1], "", "abc", None, {"prior": "flat"}, {"min_weight": True}, {"min_weight": "0.4"}]
)
def test_damaged_and_unknown_rules_are_refused(rules: object) -> None:
    values = json.loads(Network.open(REFERENCE / "version_0_2/several/model.onnx").info.to_json())
    with pytest.raises(CheckpointError, match="rules"):
        read_info(json.dumps(values | {"rules": rules}))


def test_report_reads_an_old_run(old: Path) -> None:
    run = read_run(old / "finetuned")
    assert run.setting("config.optimizer.base_lr") == 0.05
    assert not run.missing
    write_report([old / "finetuned"], old / "report.html")
    page = (old / "report.html").read_text("utf-8")
    assert "learning rate" in page
    assert "Less than two groups have 20" in page


def test_old_project_opens_with_its_settings_and_answers(old: Path) -> None:
    project = open_project(old / "project")
    config = remembered_config(project, None, None)
    assert (config.min_side_px, config.min_score) == (100, 0.25)
    assert [verdict.label for _, verdict in sorted(verdicts(project).items())] == ["awe", "fear", None, None]


def test_old_folder_of_answers_is_continued(tmp_path: Path) -> None:
    header = {"question": questions_of(MIKELS).text, "longest_px": 1024}
    (tmp_path / "answers.jsonl").write_text(json.dumps(header) + "\n")
    file, rows = open_record(tmp_path, questions_of(MIKELS).text)
    with file:
        assert rows == {}
