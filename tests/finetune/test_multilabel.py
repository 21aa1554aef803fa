"""Task multilabel: loss, weights, heads and complete runs on a drawn release of EMOTIC, in torch and as ONNX."""

import json
import shlex
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, log_loss

from tests.emotic import SHIRTS, write_release
from tests.finetune.test_divided_step import COUNT, DIVISIONS, Network, assert_same, gradient_of, run_step, scenes
from tests.runs import SIZE, data_of, finetuned, losses, pretrained, tiny_finetuning, uniemox_here
from uniemox.checkpoints.classifier import load_classifier
from uniemox.errors import ConfigError, LabelError
from uniemox.evaluate.evaluation_files import write_evaluation
from uniemox.evaluate.multilabel import MultilabelScores
from uniemox.evaluate.report.page import write_report
from uniemox.evaluate.run import evaluate
from uniemox.evaluate.run_records import read_run
from uniemox.finetune.config import NetworkConfig
from uniemox.finetune.heads import PENALTIES, fit_head
from uniemox.finetune.network import network_of
from uniemox.finetune.presets import PRESETS
from uniemox.finetune.run import check_parts, finetune
from uniemox.finetune.run_state import FinetuneRun
from uniemox.finetune.step import FinetuneBatch, Objective
from uniemox.labels import EMOTIC
from uniemox.losses.methods import multiplicative_label_loss
from uniemox.losses.tasks import discrete_weights, multilabel_loss
from uniemox.model.methods.relation import build_method
from uniemox.predict.network import Network as OnnxNetwork
from uniemox.predict.opening import load
from uniemox.predict.tables import to_frame
from uniemox.training.callback import Callback
from uniemox.training.config import ScheduleConfig
from uniemox.views.patches import normalise

WORDS = (*(word.lower() for word in SHIRTS), "engagement")


def test_loss_is_the_weighted_binary_cross_entropy() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    expected = F.binary_cross_entropy_with_logits(logits, target)
    assert multilabel_loss(logits, target) == pytest.approx(float(expected))
    weights = torch.tensor([3.0, 1.0])
    by_label = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=0)
    assert multilabel_loss(logits, target, weights) == pytest.approx(float((3 * by_label[0] + by_label[1]) / 4))


def test_discrete_weights_are_those_of_the_formula() -> None:
    shares = torch.tensor([0.0, 0.5, 1.0])
    assert discrete_weights(shares).tolist() == pytest.approx([1 / np.log(1.2), 1 / np.log(1.7), 1 / np.log(2.2)])


def test_multiplicative_loss_of_labels_trains_the_certain_modality() -> None:
    """One label with probabilities 0.9 and 0.2, and one that is absent, with 0.5 and 0.5."""
    p = torch.tensor([[0.9, 0.5], [0.2, 0.5]])[None]
    logits = p.logit().requires_grad_()
    target = torch.tensor([[1.0, 0.0]])
    expected = -(0.9 * np.log(0.9) + 0.2 * np.log(0.2) + 2 * 0.5 * np.log(0.5)) / 2
    loss = multiplicative_label_loss(logits, target)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, :, 0].tolist() == pytest.approx([-0.9 * 0.1 / 2, -0.2 * 0.8 / 2])


@pytest.mark.parametrize("sizes", [(COUNT,), *DIVISIONS])
def test_divided_step_has_the_loss_of_the_whole(sizes: tuple[int, ...]) -> None:
    target = (torch.rand(COUNT, 3, generator=torch.Generator().manual_seed(2)) < 0.4).float()
    weights = torch.tensor([1.0, 2.0, 5.0])
    model = Network()
    expected = multilabel_loss(model(normalise(scenes(), torch.device("cpu")))[0], target, weights)
    expected.backward()
    joined = FinetuneBatch(scene=scenes(), person=None, target=target)
    objective = Objective(task="multilabel", label_weights=weights)
    assert_same(run_step(Network(), joined, sizes, objective), (expected.item(), gradient_of(model)))


def test_head_is_scikit_learns_logistic_regression_of_each_label() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(120, 6)).astype(np.float32)
    target = (features @ draw.normal(size=(6, 3)) + draw.normal(size=(120, 3)) > 0.5).astype(np.float32)
    target[:, 2] = 0
    head, penalty = fit_head(features, target, task="multilabel", seed=4)
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    order = np.random.default_rng(4).permutation(120)
    held_out = order[:24]
    train = order[24:]
    with torch.no_grad():
        probabilities = head(torch.from_numpy(features)).sigmoid().numpy()
    totals = dict.fromkeys(PENALTIES, 0.0)
    for i in (0, 1):
        for value in PENALTIES:
            fitted = LogisticRegression(C=value, max_iter=2000).fit(scaled[train], target[train, i])
            totals[value] += log_loss(target[held_out, i], fitted.predict_proba(scaled[held_out]))
        expected = LogisticRegression(C=penalty, max_iter=2000).fit(scaled, target[:, i]).predict_proba(scaled)[:, 1]
        np.testing.assert_allclose(probabilities[:, i], expected, atol=2e-3)
    assert penalty == min(totals, key=totals.__getitem__)
    # Nobody has the third label.
    assert probabilities[:, 2].max() < 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "knn"}, "method knn gives one label: give method full, lora, probe or histogram"),
        ({"method": "mean"}, "method mean gives one label"),
        ({"method": "mdan"}, "method mdan gives one label: give solver, rrla or emoticon with task multilabel"),
        ({"task": "label", "class_weighting": "discrete"}, "class_weighting discrete needs task multilabel, got task"),
        ({"logit_adjustment": 1.0}, "logit_adjustment needs a linear head and task label"),
    ],
)
def test_settings_that_need_one_label_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_finetuning("embedded", **{"task": "multilabel", **changes})


def test_balanced_weighting_becomes_that_of_the_authors() -> None:
    config = replace(PRESETS["best"](), task="multilabel")
    assert config.class_weighting == "balanced"
    assert config.resolved().class_weighting == "discrete"
    assert replace(config, class_weighting="none").resolved().class_weighting == "none"


@pytest.mark.parametrize("weighting", ["discrete", "none"])
def test_labels_of_a_run_weigh_by_their_share_of_the_training_images(weighting: str) -> None:
    data = data_of("multilabel")
    config = tiny_finetuning(pretrained(), task="multilabel", class_weighting=weighting)
    parts = check_parts(config, data)
    network = network_of(config, data, parts.train)
    run = FinetuneRun(config=config, data=data, network=network, parts=parts, callback=Callback())
    weights = run.objective.label_weights
    if weighting == "none":
        assert weights is None
        return
    counts = Counter(label for sample in parts.train for label in sample.classes)
    shares = np.array([counts[label] / len(parts.train) for label in range(26)])
    assert len(set(shares)) > 2
    np.testing.assert_allclose(weights, 1 / np.log(1.2 + shares), rtol=1e-6)


def test_run_writes_probabilities_and_thresholds_of_its_held_out_images() -> None:
    run = finetuned("multilabel")
    model, info = load_classifier(run / "model.safetensors")
    assert (info.task, info.label_set, info.kind, info.labels) == ("multilabel", "emotic", "felt", EMOTIC.labels)
    assert (len(info.offsets), len(info.thresholds), info.conformal_scores) == (26, 26, ())
    assert model.distance is not None
    # The sum of the odds of several labels is no measure of distance.
    assert model.distance.weights[1] == 0
    given = {label for label, threshold in zip(info.labels, info.thresholds, strict=True) if threshold < 1}
    assert given == set(WORDS)
    assert OnnxNetwork.open(run / "model.onnx").info == info


def test_scores_are_the_mean_average_precision_in_torch_and_as_onnx(tmp_path: Path) -> None:
    run = finetuned("multilabel")
    data = data_of("multilabel").only("test")
    evaluation = evaluate(run, data)
    scores = evaluation.scores
    assert isinstance(scores, MultilabelScores)
    names = list(evaluation.predictions[0]["probabilities"])
    probabilities = np.array([list(line["probabilities"].values()) for line in evaluation.predictions])
    is_present = np.array([[name in line["labels"] for name in names] for line in evaluation.predictions])
    has_images = is_present.any(axis=0)
    expected = average_precision_score(is_present[:, has_images], probabilities[:, has_images])
    assert scores.mean_average_precision == pytest.approx(expected, abs=1e-4)
    assert {name for name, value in scores.average_precision.items() if value is not None} == set(WORDS)
    # The shirts and the scenes are easy.
    assert scores.mean_average_precision > 0.6
    assert evaluation.scored_labels == EMOTIC.labels

    onnx = evaluate(run / "model.onnx", data)
    for ours, theirs in zip(evaluation.predictions, onnx.predictions, strict=True):
        assert ours["labels"] == theirs["labels"]
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
    (tmp_path / "copy").mkdir()
    path = write_evaluation(onnx, tmp_path / "copy" / "model.onnx", data, "test")
    assert path.is_file()


def test_a_model_of_several_labels_is_scored_on_its_own_labels_alone() -> None:
    run = finetuned("multilabel")
    with pytest.raises(LabelError, match=r"can only be scored on data with the same labels; these have mikels"):
        evaluate(run, data_of("both"))
    with pytest.raises(ConfigError, match="a label map has no meaning for a model that gives several labels"):
        evaluate(run, data_of("multilabel").only("test"), label_pairs={"fear": ("fear",)})


@pytest.mark.usefixtures("without_onnx")
def test_training_in_steps_learns_the_labels(tmp_path: Path) -> None:
    config = tiny_finetuning(
        pretrained(),
        task="multilabel",
        network=NetworkConfig(streams="person"),
        class_weighting="discrete",
        schedule=ScheduleConfig(epochs=4, warmup_epochs=0),
    )
    finetune(config, data_of("multilabel"), tmp_path / "run")
    curves = read_run(tmp_path / "run").curves
    lines = losses(tmp_path / "run")
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert curves["score"][1].max() > 0.6


def test_emoticon_trains_face_and_body_on_each_label() -> None:
    method = build_method("emoticon", width=8, channels=4, labels=("a", "b", "c"))
    features = torch.randn(2, method.width, generator=torch.Generator().manual_seed(0))
    output = torch.zeros(2, 3)
    target = torch.tensor([[1.0, 1, 0], [0, 0, 0]])
    loss = Objective(task="multilabel", method=method).terms(output, target, features).sum()
    modalities = features[:, -6:].unflatten(1, (2, 3))
    assert loss == pytest.approx(float(np.log(2) + multiplicative_label_loss(modalities, target)))


@pytest.mark.thorough
def test_commands_of_the_documentation_run_on_a_drawn_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is fitted on a small network instead of the embedded model, which takes an eighth of the time."""
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
    text = text.replace("--method probe", f"--method probe --init {pretrained()} --view.size {SIZE}")
    block = text.partition("## Several labels: EMOTIC\n")[2].partition("```console\n")[2].partition("```")[0]
    write_release(tmp_path / "EMOTIC", train=12, val=8, test=8)
    shutil.copy(next((tmp_path / "EMOTIC" / "emotic").rglob("test0.jpg")), tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    lines = [line.removeprefix("$ uniemox ") for line in block.splitlines()]
    assert [line.split()[0] for line in lines] == ["data", "finetune", "evaluate", "predict"]
    for line in lines:
        done = uniemox_here(*shlex.split(line))
        assert done.returncode == 0, f"{line}: {done.stderr}"
    assert "happiness" in json.loads(done.stdout)["assigned_labels"]


def test_command_and_report_show_the_precision_of_each_label(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finetuned("multilabel"), run)
    source = data_of("multilabel").name
    done = uniemox_here("evaluate", "--model", run, "--data", source)
    assert done.returncode == 0, done.stderr
    [evaluation] = read_run(run).evaluations
    assert evaluation.measure == "mean_average_precision"
    precision = evaluation.values["average_precision"]["engagement"]
    for text in ("mean average precision", "average precision of engagement", f"{precision:.4f}", "chance: a mean"):
        assert text in done.stdout
    assert "average precision of pain" not in done.stdout

    page = tmp_path / "report.html"
    assert write_report([run], page) == []
    html = page.read_text()
    for text in ("mean average precision (mAP)", "average precision: engagement", "multilabel"):
        assert text in html


@pytest.mark.thorough
def test_dominance_is_learned_beside_valence_and_arousal(tmp_path: Path) -> None:
    data = data_of("multilabel")
    config = tiny_finetuning(pretrained(), method="probe", task="affect", network=NetworkConfig(streams="person"))
    finetune(config, data, tmp_path / "run")
    model = tmp_path / "run" / "model.onnx"
    test = data.only("test")
    evaluation = evaluate(model, test)
    values = evaluation.as_dict()
    for axis in ("valence", "arousal", "dominance"):
        predicted = np.array([line[axis] for line in evaluation.predictions])
        target = np.array([getattr(sample, axis) for sample in test.samples])
        assert values[axis]["mae"] == pytest.approx(np.abs(predicted - target).mean())
        # The shirts show all three.
        assert values[axis]["pearson"] > 0.5
    # Data without dominance are scored by the others.
    without = replace(test, samples=[replace(sample, dominance=None) for sample in test.samples])
    assert "dominance" not in evaluate(model, without).as_dict()

    answer = load(model, finder=None).predict(str(test.samples[0].image))
    assert answer.to_dict()["dominance"] == pytest.approx(answer.scene["dominance"], abs=1e-6)
    assert 1 < answer.scene["dominance"] < 9
    assert {"valence", "arousal", "dominance"} <= set(to_frame(answer).columns)
    assert answer.plot().size[0] > 0
