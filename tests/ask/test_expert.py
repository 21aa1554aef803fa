"""The gate between a large model and an expert: its fit against SciPy, and scores on other images."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from tests.ask.photos import draw_splits
from tests.ask.server import Request, Response, error, says, serving
from tests.ask.test_command import ask_here
from tests.drawn import Stored, draw_image, jpeg_of
from tests.runs import finetuned
from uniemox.data.sample import DataSet, Sample
from uniemox.errors import ConfigError, DataError
from uniemox.intervals import paired_bootstrap
from uniemox.labels import EKMAN, MIKELS, LabelSet
from uniemox_ask.choices import LabelChoice
from uniemox_ask.comparison import ModelComparison, compare
from uniemox_ask.config import AskConfig
from uniemox_ask.expert import MIN_VAL, PENALTY, Gate, fit_gate, score_gate
from uniemox_ask.forms import questions_of
from uniemox_ask.our_model import probabilities_of_ours, training_hashes
from uniemox_ask.question import AskedImage, image_url

LABELS = ("awe", "fear", "joy")
EMPTY = Sample(key="x", image=Stored(b""))


def loss(
    weights: NDArray[np.float64], model: NDArray[np.float64], expert: NDArray[np.float64], truth: Sequence[int]
) -> float:
    """The negative log-likelihood of the true labels, with the penalty, as the docstring of `fit_gate` states it."""
    total = PENALTY / 2 * float(weights @ weights)
    for of_model, of_expert, label in zip(model, expert, truth, strict=True):
        share = expit(weights[0] + weights[1] * of_model.max() + weights[2] * of_expert.max())
        total -= float(np.log(share * of_model[label] + (1 - share) * of_expert[label]))
    return total


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(20, 60))
def test_the_fit_equals_that_of_scipy(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    model = rng.dirichlet(np.full(3, 0.5), size=n).clip(1e-3)
    expert = rng.dirichlet(np.full(3, 0.5), size=n).clip(1e-3)
    truth = rng.integers(3, size=n)
    gate = fit_gate(model, expert, truth)
    weights = np.array([gate.constant, gate.model_confidence, gate.expert_confidence])
    best = minimize(loss, weights, args=(model, expert, truth), method="BFGS")
    # Neither finds a better place from where the other ended, and a start elsewhere finds none either.
    assert loss(weights, model, expert, truth) == pytest.approx(best.fun, abs=1e-5)
    elsewhere = minimize(loss, np.zeros(3), args=(model, expert, truth), method="BFGS")
    assert loss(weights, model, expert, truth) <= elsewhere.fun + 1e-4


def test_the_share_of_the_large_model() -> None:
    gate = Gate(constant=-1.0, model_confidence=2.0, expert_confidence=-3.0)
    model = np.array([[0.5, 0.25, 0.25], [1, 0, 0]])
    expert = np.array([[0.2, 0.2, 0.6], [0.4, 0.3, 0.3]])
    assert gate.shares(model, expert) == pytest.approx([expit(-1 + 1 - 1.8), expit(-1 + 2 - 1.2)])


def test_images_that_both_models_exclude_leave_the_weights_finite() -> None:
    model = np.tile([1.0, 0.0, 0.0], (30, 1))
    expert = np.tile([0.0, 1.0, 0.0], (30, 1))
    gate = fit_gate(model, expert, np.full(30, 2))
    assert (gate.constant, gate.model_confidence, gate.expert_confidence) == pytest.approx((0, 0, 0))
    # Where one model is always right, nearly all of the share is its own.
    assert fit_gate(model, expert, np.zeros(30, dtype=np.int64)).shares(model, expert) == pytest.approx(1, abs=0.02)


def drawn(
    n: int, seed: int
) -> tuple[list[AskedImage], dict[str, tuple[LabelChoice, ...]], dict[str, NDArray[np.float64]]]:
    """Return images, choices of a model that is right when it is sure, and an expert that is right otherwise."""
    rng = np.random.default_rng(seed)
    images, choices, expert = [], {}, {}
    for number in range(n):
        truth, other = rng.permutation(3)[:2]
        is_sure = rng.random() < 0.5
        values = np.full(3, 0.05 if is_sure else 0.3)
        values[truth if is_sure else other] = 0.9 if is_sure else 0.4
        of_expert = np.full(3, 0.2)
        of_expert[truth if not is_sure or rng.random() < 0.3 else other] = 0.6
        name = f"{seed} {number}"
        images.append(AskedImage(sample=EMPTY, label=LABELS[truth], sha256=name))
        choices[name] = (LabelChoice((LABELS[int(values.argmax())],), values / values.sum()),)
        expert[name] = of_expert
    return images, choices, expert


def test_the_gate_uses_each_model_where_it_is_right() -> None:
    val, val_choices, val_expert = drawn(60, 1)
    test, test_choices, test_expert = drawn(200, 2)
    result = score_gate(LABELS, val_choices | test_choices, val_expert | test_expert, name="small", val=val, test=test)
    assert result is not None
    assert (result.n_val, result.n, result.expert) == (60, 200, "small")
    # Computed again, image by image.
    weights = (result.gate.constant, result.gate.model_confidence, result.gate.expert_confidence)
    hits: list[list[float]] = [[], [], []]
    for image in test:
        values = test_choices[image.sha256][0].probabilities
        of_expert = test_expert[image.sha256]
        assert values is not None
        share = expit(weights[0] + weights[1] * max(values) + weights[2] * max(of_expert))
        for i, scores in enumerate((share * values + (1 - share) * of_expert, values, of_expert)):
            hits[i].append(float(LABELS[int(np.argmax(scores))] == image.label))
    assert (result.accuracy, result.model_accuracy, result.expert_accuracy) == pytest.approx(
        tuple(np.mean(row) for row in hits)
    )
    assert result.gain_over_model == paired_bootstrap(np.array(hits[0]), np.array(hits[1]))
    assert result.gain_over_expert == paired_bootstrap(np.array(hits[0]), np.array(hits[2]))
    assert result.gain_over_model.is_above_zero
    assert result.gain_over_expert.is_above_zero
    # Labels of scored images change scores, not the gate.
    relabelled = [replace(image, label="awe") for image in test]
    again = score_gate(
        LABELS, val_choices | test_choices, val_expert | test_expert, name="small", val=val, test=relabelled
    )
    assert again is not None
    assert again.gate == result.gate
    assert again.accuracy != result.accuracy


def test_answers_without_a_label_are_wrong_and_leave_the_expert() -> None:
    val, val_choices, val_expert = drawn(60, 1)
    test, _, test_expert = drawn(50, 2)
    no_label = {image.sha256: (LabelChoice((), None),) for image in test}
    result = score_gate(LABELS, val_choices | no_label, val_expert | test_expert, name="small", val=val, test=test)
    assert result is not None
    assert result.model_accuracy == 0
    assert result.accuracy == result.expert_accuracy


def test_too_few_val_images_give_no_gate() -> None:
    val, val_choices, val_expert = drawn(MIN_VAL - 1, 1)
    test, test_choices, test_expert = drawn(10, 2)
    assert (
        score_gate(LABELS, val_choices | test_choices, val_expert | test_expert, name="small", val=val, test=test)
        is None
    )
    assert score_gate(LABELS, val_choices, val_expert, name="small", val=val * 2, test=test) is None


def data_of(labels: LabelSet, *, n: int, split: str, first: int = 0) -> DataSet:
    """Return drawn images with labels in turn."""
    samples = []
    for number in range(first, first + n):
        image = Stored(jpeg_of(draw_image(number, (32, 24))))
        samples.append(Sample(key=f"{number}.jpg", image=image, label=number % len(labels), split=split))
    return DataSet(f"own:{labels.name}", labels, samples)


def comparison_of(url: str, expert: Path, val: DataSet, test: DataSet, images: int = 24) -> ModelComparison:
    config = AskConfig(endpoint=url, models=("m",), images=images, first_wait_s=0.01, attempts=1)
    questions = questions_of(test.labels)
    return ModelComparison(config=config, questions=questions, data=test, split="test", expert=expert, val=val)


@pytest.mark.thorough
def test_models_are_asked_about_val_and_test_images(tmp_path: Path) -> None:
    val = data_of(MIKELS, n=24, split="val")
    # Image 23 is in both splits; it is scored, and the gate is not fitted to it.
    test = data_of(MIKELS, n=25, split="test", first=23)
    messages: list[str] = []
    with serving(lambda request, number: says("Awe")) as endpoint:
        comparison = comparison_of(endpoint.url, Path("embedded"), val, test, images=25)
        results, failed = compare(comparison, tmp_path, say=messages.append)
    assert (failed, len(endpoint.requests)) == (0, 48)
    assert messages[:3] == [
        "for the gate, models are asked about 23 images of split val, too",
        "split val: 24 of 25 images: there are no more",
        "split val: 1 copy of a scored image skipped",
    ]
    assert messages[3].startswith("48 images x m: sending 48 questions")
    [gate] = results.gates.values()
    assert (gate.n_val, gate.n, gate.expert) == (23, 25, "embedded")
    assert len(results.images) == results.models[0].n == 25
    probabilities = probabilities_of_ours(Path("embedded"), results.images, MIKELS)
    hits = [MIKELS.labels[int(probabilities[image.sha256].argmax())] == image.label for image in results.images]
    assert gate.expert_accuracy == pytest.approx(np.mean(hits))
    assert results.as_dict()["models"][0]["gate"]["expert_accuracy"] == gate.expert_accuracy


def test_too_many_questions_are_refused_before_the_expert_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the expert predicts")

    monkeypatch.setattr("uniemox_ask.comparison.probabilities_of_ours", never)
    val = data_of(MIKELS, n=24, split="val")
    test = data_of(MIKELS, n=24, split="test", first=100)
    comparison = comparison_of("http://127.0.0.1:9", Path("embedded"), val, test)
    comparison = replace(comparison, config=replace(comparison.config, max_questions=47))
    with pytest.raises(ConfigError, match="48 images x 1 model: 48 questions"):
        compare(comparison, tmp_path)


@pytest.mark.thorough
def test_failed_questions_about_val_images_count(tmp_path: Path) -> None:
    val = data_of(MIKELS, n=20, split="val")
    test = data_of(MIKELS, n=20, split="test", first=100)
    broken = image_url(val.samples[0])

    def behave(request: Request, number: int) -> Response:
        return error(400, "odd") if request.image == broken else says("Awe")

    with serving(behave) as endpoint:
        comparison = comparison_of(endpoint.url, Path("embedded"), val, test)
        results, failed = compare(comparison, tmp_path)
    assert (failed, results.models[0].failed) == (1, 0)
    # 19 answers are too few for a gate.
    assert not results.gates
    assert results.notes[-1] == "m has answers about too few images for a gate; it needs 20 of val, 1 of test"


def test_experts_trained_on_scored_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Knowing val images is only reported. The hashes of the embedded model are read from the package."""
    assert len(training_hashes(Path("embedded"))) > 1000
    assert training_hashes(finetuned("probe")) == training_hashes(finetuned("probe") / "model.onnx") != set()
    val = data_of(EKMAN, n=20, split="val")
    test = data_of(EKMAN, n=20, split="test", first=100)
    known: set[str] = set()
    monkeypatch.setattr("uniemox_ask.comparison.training_hashes", lambda model: known)
    with serving(lambda request, number: says("Fear")) as endpoint:
        comparison = comparison_of(endpoint.url, finetuned("probe"), val, test)
        messages: list[str] = []
        results, _ = compare(comparison, tmp_path, say=messages.append)
        known.add(results.images[0].sha256)
        before = len(endpoint.requests)
        with pytest.raises(DataError, match="trained on 1 of these 20 images"):
            compare(comparison, tmp_path)
        assert len(endpoint.requests) == before
        known.clear()
        known |= {hashlib.sha256(sample.image.read()).hexdigest() for sample in val.samples[:3]}
        compare(comparison, tmp_path, say=messages.append)
    assert "probe was trained on 3 of the 20 val images, so the gate may trust it too much" in messages


def test_command_needs_both_splits(tmp_path: Path) -> None:
    root = tmp_path / "set"
    draw_splits(root, ("train", "val"), 1)
    arguments = [
        "--data",
        f"folder:{root}",
        "--endpoint",
        "http://127.0.0.1:9",
        "--model",
        "m",
        "--out",
        tmp_path / "o",
    ]
    code, _, err = ask_here(*arguments, "--expert", "embedded")
    assert code == 1
    assert "--expert fits a gate to images of split val and scores it on split test, not val" in err


@pytest.mark.thorough
def test_command_shows_the_gain(tmp_path: Path) -> None:
    root = tmp_path / "set"
    draw_splits(root, ("val", "test"), 3)
    with serving(lambda request, number: says("Awe")) as endpoint:
        arguments = ["--data", f"folder:{root}", "--endpoint", endpoint.url, "--model", "m", "--out", tmp_path / "out"]
        code, out, err = ask_here(*arguments, "--images", 24, "--expert", "embedded")
    assert code == 0, err
    assert "gain over" in out
    result = json.loads((tmp_path / "out" / "result.json").read_text("utf-8"))
    assert (result["models"][0]["gate"]["n_val"], result["models"][0]["gate"]["n"]) == (24, 24)
    assert "With an expert" in (tmp_path / "out" / "page.html").read_text("utf-8")
