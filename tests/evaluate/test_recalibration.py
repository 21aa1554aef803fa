"""`uniemox calibrate` and `uniemox evaluate` on ONNX files, without torch."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.tree import put, says
from tests.drawn import draw_image
from tests.evaluate.test_run import labelled_data
from tests.predict.networks import tiny_network
from tests.runs import finetuned, uniemox_here
from uniemox.cli.calibrate import _log_loss_words, calibrate
from uniemox.data.seen import OTHERS, read_seen, seen_file
from uniemox.data.source import open_data
from uniemox.errors import ConfigError, DataError, LabelError
from uniemox.evaluate.calibration import LogLossChange, fit_temperature
from uniemox.evaluate.compare import chance_of
from uniemox.evaluate.evaluation import UNKNOWN_TRAINING
from uniemox.evaluate.evaluation_files import write_evaluation
from uniemox.evaluate.outputs import outputs_of_network
from uniemox.evaluate.recalibration import Recalibration, recalibrate
from uniemox.evaluate.run import evaluate
from uniemox.evaluate.run_records import read_predictions
from uniemox.io.sized_image import SizedImage
from uniemox.labels import MIKELS
from uniemox.predict.confidence import (
    coverage_range,
    familiarity_of,
    likely_labels,
    probabilities_of,
    score_limit,
    set_probabilities_of,
)
from uniemox.predict.network import Network
from uniemox.predict.opening import load

COUNT = 60


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in folders of four of Mikels' labels."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(COUNT):
        path = folder / ("awe", "fear", "anger", "sadness")[i % 4] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        draw_image(i, (48, 48)).save(path)
    return folder


def test_temperature_and_scores_are_those_of_the_images_and_distances_stay(photos: Path, tmp_path: Path) -> None:
    source = tiny_network(tmp_path / "m.onnx", distances=(1.0, 2.0), conformal_scores=(0.5,))
    data = open_data(f"folder:{photos}")
    result = recalibrate(str(source), data, tmp_path / "out" / "mine.onnx")
    network = Network.open(tmp_path / "out" / "mine.onnx")
    outputs = outputs_of_network(Network.open(source), data.samples)
    truth = np.array([network.info.labels.index(data.label_of(sample) or "") for sample in outputs.samples])
    assert result.images == COUNT
    assert outputs.distances is not None
    familiarity = familiarity_of(outputs.distances, (1.0, 2.0))
    assert network.info.temperature == pytest.approx(
        fit_temperature(outputs.values, np.eye(len(network.info.labels))[truth], familiarity), rel=1e-2
    )
    # Distances belong to the network's own training images, so calibration keeps them.
    assert network.info.distances == (1.0, 2.0)
    assert result.ece_after < result.ece_before
    limit = score_limit(network.info.conformal_scores, 0.9)
    answers = [network.answer([network.views_of(SizedImage.of(draw_image(i, (48, 48))), None)]) for i in range(COUNT)]
    labels = [("awe", "fear", "anger", "sadness")[i % 4] for i in range(COUNT)]
    truth = np.array([network.info.labels.index(label) for label in labels])
    sets = [likely_labels(answer.values[0], limit) for answer in answers]
    is_covered = [label in likely for likely, label in zip(sets, truth, strict=True)]
    assert 0.88 <= np.mean(is_covered) <= 0.95
    assert result.coverage_after == pytest.approx(np.mean(is_covered))
    assert result.set_size_after == pytest.approx(np.mean([len(likely) for likely in sets]))
    # One score is too few for 90 %.
    assert (result.coverage_before, result.set_size_before) == (None, None)
    # With two distances, nothing but blank images can be flagged.
    assert result.flagged is None


def test_model_at_chance_is_reported(photos: Path, tmp_path: Path) -> None:
    """Labels that say nothing of the images; then those that the model itself gives."""
    source = tiny_network(tmp_path / "m.onnx", distances=(0.0,) * 99, conformal_scores=(0.5,) * 99)
    words = ("calibrate", "--model", source, "--out", tmp_path / "mine.onnx", "--data")
    printed = " ".join(uniemox_here(*words, f"folder:{photos}").stdout.split())
    assert "chance 12.5%, the commonest class 25.0%" in printed
    assert "labels of the model in a set" in printed
    assert "100% are flagged as unlike the images that the network was trained on" in printed
    assert "no better than chance on these images: fine-tune instead" in printed
    network = Network.open(source)
    for i in range(COUNT):
        image = draw_image(i, (48, 48))
        [answer] = network.answer([network.views_of(SizedImage.of(image), None)]).values
        path = tmp_path / "easy" / network.info.labels[int(answer.argmax())] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    result = recalibrate(str(source), open_data(f"folder:{tmp_path / 'easy'}"), tmp_path / "other.onnx")
    assert result.accuracy == 1.0
    assert result.verdict.startswith("better than chance on these images; the probabilities are")
    assert (result.chance, len(result.scored_labels)) == (1 / 8, 8)


def test_command_prints_the_range_of_coverage_and_the_change_of_log_loss(photos: Path, tmp_path: Path) -> None:
    source = tiny_network(tmp_path / "m.onnx")
    words = ("calibrate", "--model", source, "--data", f"folder:{photos}", "--out")
    printed = " ".join(uniemox_here(*words, tmp_path / "mine.onnx").stdout.split())
    low, high = coverage_range(COUNT, 0.9)
    assert f"sets fitted to {COUNT} images hold the label of {low:.0%} to {high:.0%} (with a probability" in printed
    result = json.loads(uniemox_here(*words, tmp_path / "other.onnx", "--json").stdout)
    assert result["coverage_range"] == [low, high]
    loss = result["log_loss"]
    change = f"{loss['before']:.3f}, with a new temperature {loss['after']:.3f} in cross-validation; change"
    assert f"log loss among all labels of the model {change}" in printed


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((-0.02, 0.01), "within noise, so the temperature stays unchanged"),
        ((-0.3, -0.1), "better than before"),
        ((0.01, 0.02), "worse, so the temperature stays unchanged"),
    ],
)
def test_change_of_the_log_loss_has_a_meaning(interval: tuple[float, float], words: str) -> None:
    assert words in _log_loss_words(LogLossChange(before=1.0, after=1.0 + sum(interval) / 2, interval=interval))


BETTER = LogLossChange(before=1.0, after=0.8, interval=(-0.3, -0.1))
NOISE = LogLossChange(before=1.0, after=1.0, interval=(-0.1, 0.1))
WORSE = LogLossChange(before=1.0, after=1.2, interval=(0.1, 0.3))
KEPT = (
    "better than chance on these images; the probabilities stay unchanged, because a new temperature is no clear gain "
    "for other images; only the likely sets are new"
)


@pytest.mark.parametrize(
    ("low", "log_loss", "verdict"),
    [
        (0.25, BETTER, "no better than chance on these images: fine-tune instead"),
        (0.4, BETTER, "no better than always predicting the most common class of these images: fine-tune instead"),
        (0.41, BETTER, "better than chance on these images; the probabilities are better than before"),
        (0.41, NOISE, KEPT),
        (0.41, None, "all images are one group, so nothing is known of other images: give images of several groups"),
        (0.25, WORSE, "no better than chance on these images: fine-tune instead"),
        (0.41, WORSE, KEPT),
    ],
)
def test_there_is_one_verdict(low: float, log_loss: LogLossChange | None, verdict: str) -> None:
    result = Recalibration(
        images=60,
        split="val",
        temperature=1.0,
        ece_before=0.2,
        ece_after=0.1,
        accuracy=0.5,
        accuracy_before=0.5,
        accuracy_interval=(low, 0.6),
        chance=0.25,
        commonest=0.4,
        coverage_before=None,
        coverage_after=0.9,
        coverage_range=(0.8, 0.95),
        set_size_before=None,
        set_size_after=2.0,
        log_loss=log_loss,
        flagged=None,
        scored_labels=("awe", "fear", "joy", "sadness"),
        unreadable={},
    )
    assert result.verdict == verdict
    if verdict.startswith("better"):
        unchanged = LogLossChange(before=1.0, after=1.0, interval=(0.0, 0.0))
        few = replace(result, images=39, log_loss=unchanged)
        assert few.verdict.endswith(
            "39 images are too few to make the model surer (40 are needed); the likely sets are new"
        )
        less_accurate = replace(result, accuracy_before=0.6).verdict
        assert less_accurate.startswith(f"{verdict}, but the accuracy falls from 60.0% to 50.0%: of your labels, one")
    assert result.keeps_temperature == (log_loss is not BETTER)


def test_the_temperature_stays_if_a_new_one_makes_the_probabilities_worse(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the likely sets are new, so that more images than those of the training still narrow their coverage."""
    monkeypatch.setattr("uniemox.evaluate.recalibration.log_loss_change", lambda *_, **__: WORSE)
    out = tmp_path / "mine.onnx"
    source = tiny_network(tmp_path / "m.onnx", temperature=0.7, distances=(1.0, 2.0), conformal_scores=(0.5,))
    calibrate(data=f"folder:{photos}", model=str(source), out=out)
    printed = capsys.readouterr()
    assert "temperature 0.70 as before" in " ".join(printed.err.split())
    assert "change +0.200 (+0.100 to +0.300): worse, so the temperature stays unchanged" in printed.out
    network = Network.open(out)
    assert network.info.temperature == 0.7
    data = open_data(f"folder:{photos}")
    outputs = outputs_of_network(network, data.samples)
    truth = [network.info.labels.index(data.label_of(sample) or "") for sample in outputs.samples]
    probabilities = set_probabilities_of(network.info, outputs.values, outputs.distances)
    expected = sorted(1 - probabilities[np.arange(COUNT), truth])
    np.testing.assert_allclose(network.info.conformal_scores, expected, atol=1e-5)
    assert network.info.held_out_count == COUNT
    calibrate(data=f"folder:{photos}", model=str(source), out=tmp_path / "other.onnx", as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert (result["temperature"], result["written"]) == (0.7, str(tmp_path / "other.onnx"))
    assert result["ece_before"] == result["ece_after"]


def test_existing_files_are_refused_together_before_anything_is_read(tmp_path: Path) -> None:
    out = tmp_path / "mine.onnx"
    hashes = seen_file(out)
    hashes.write_text("")
    # Hashes without their model are the rest of an interrupted calibration.
    with pytest.raises(DataError, match="no such folder"):
        calibrate(data=f"folder:{tmp_path / 'none'}", out=out)
    out.write_bytes(b"a model")
    with pytest.raises(ConfigError, match=rf"mine\.onnx and .*{hashes.name} are there already; delete them, or choose"):
        calibrate(data=f"folder:{tmp_path / 'none'}", out=out)
    assert out.read_bytes() == b"a model"


def test_a_run_folder_is_calibrated_as_its_file(photos: Path, tmp_path: Path) -> None:
    source = tiny_network(tmp_path / "run" / "model.onnx")
    data = open_data(f"folder:{photos}")
    by_folder = recalibrate(str(source.parent), data, tmp_path / "a.onnx")
    assert by_folder == recalibrate(str(source), data, tmp_path / "b.onnx")


def test_too_few_readable_images_are_refused(photos: Path, tmp_path: Path) -> None:
    """30 images, one of them damaged."""
    folder = tmp_path / "photos"
    for path in sorted(photos.rglob("*.png"))[:30]:
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name)
    data = open_data(f"folder:{folder}?labels=mikels")
    source = str(tiny_network(tmp_path / "m.onnx"))
    assert recalibrate(source, data, tmp_path / "mine.onnx").images == 30
    path = next(folder.rglob("*.png"))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=says("29 of 30", "can be read")):
        recalibrate(source, data, tmp_path / "out.onnx")


def test_images_of_one_group_count_as_one_for_the_range_of_the_coverage(photos: Path, tmp_path: Path) -> None:
    rows = [f"{path.relative_to(photos)},{path.parent.name},{i // 4}" for i, path in enumerate(photos.rglob("*.png"))]
    (tmp_path / "groups.csv").write_text("\n".join(["path,label,group", *rows]))
    data = open_data(f"csv:{tmp_path / 'groups.csv'}?root={photos}&labels=mikels")
    result = recalibrate(str(tiny_network(tmp_path / "m.onnx")), data, tmp_path / "mine.onnx")
    assert (result.images, result.coverage_range) == (COUNT, coverage_range(COUNT // 4, 0.9))


def test_own_labels_calibrate_with_a_map(photos: Path, tmp_path: Path) -> None:
    """The folders of photos under other names, by the map that gives them the model's labels."""
    own = {"awe": "wow", "fear": "scary", "anger": "grr", "sadness": "blue"}
    for name, new in own.items():
        shutil.copytree(photos / name, tmp_path / "own" / new)
    source = str(tiny_network(tmp_path / "m.onnx"))
    expected = recalibrate(source, open_data(f"folder:{photos}"), tmp_path / "a.onnx")
    data = open_data(f"folder:{tmp_path / 'own'}")
    with pytest.raises(LabelError, match=r"--map blue=.* of uniemox evaluate, compare and calibrate"):
        recalibrate(source, data, tmp_path / "b.onnx")
    pairs = {new: (name,) for name, new in own.items()}
    result = recalibrate(source, data, tmp_path / "b.onnx", label_pairs=pairs)
    # Accuracy and chance are among the four labels that the map reaches; the rest is fitted in the model's eight.
    assert (result.temperature, result.coverage_after) == (expected.temperature, expected.coverage_after)
    assert (result.scored_labels, result.chance, result.left_out) == (data.labels.labels, 0.25, 0)
    without = recalibrate(source, data, tmp_path / "c.onnx", label_pairs=pairs | {"blue": ()})
    assert (without.images, without.left_out, without.chance) == (COUNT * 3 // 4, COUNT // 4, 1 / 3)
    with pytest.raises(LabelError, match="the label map lacks blue"):
        recalibrate(source, data, tmp_path / "d.onnx", label_pairs={"wow": ("awe",), "scary": ("fear",), "grr": ()})


def test_each_of_several_labels_that_mean_one_is_right(photos: Path, tmp_path: Path) -> None:
    """The temperature maximises the likelihood of their sum; a set is right if it has one of them."""
    for name, new in (("awe", "fine"), ("fear", "bad"), ("anger", "bad"), ("sadness", "fine")):
        shutil.copytree(photos / name, tmp_path / "two" / new, dirs_exist_ok=True)
    source = tiny_network(tmp_path / "m.onnx")
    data = open_data(f"folder:{tmp_path / 'two'}")
    pairs = {"fine": ("awe", "contentment", "amusement"), "bad": ("fear", "anger")}
    result = recalibrate(str(source), data, tmp_path / "mine.onnx", label_pairs=pairs)
    outputs = outputs_of_network(Network.open(source), data.samples)
    members = np.array(
        [[name in pairs[data.label_of(sample) or ""] for name in MIKELS.labels] for sample in outputs.samples]
    )

    def loss(temperature: float) -> float:
        return float(-np.log((probabilities_of(outputs.values, temperature) * members).sum(axis=1)).mean())

    assert loss(result.temperature) <= min(loss(temperature) for temperature in np.geomspace(0.1, 100, 500)) + 1e-9
    assert result.log_loss is not None
    assert result.log_loss.before == pytest.approx(loss(Network.open(source).info.temperature or 1.0))
    info = Network.open(tmp_path / "mine.onnx").info
    limit = score_limit(info.conformal_scores, 0.9)
    answers = probabilities_of(outputs.values, result.temperature)
    is_right = [row[likely_labels(answer, limit)].any() for answer, row in zip(answers, members, strict=True)]
    assert result.coverage_after == pytest.approx(np.mean(is_right))
    assert result.scored_labels == ("bad", "fine")


def test_command_takes_a_map_and_counts_what_it_leaves_out(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "own")
    for name in ("awe", "fear", "anger", "sadness"):
        (tmp_path / "own" / name).rename(tmp_path / "own" / f"my {name}")
    source = tiny_network(tmp_path / "m.onnx")
    words = ("calibrate", "--model", source, "--data", f"folder:{tmp_path / 'own'}", "--out", tmp_path / "mine.onnx")
    labels = "my awe=awe,my fear=fear+disgust,my anger=anger,my sadness="
    done = uniemox_here(*words, "--map", labels)
    assert done.returncode == 0, done.stderr
    assert f"{COUNT // 4} images were left out" in done.stderr
    done = uniemox_here(*words, "--map", labels, "--ratings")
    assert (done.returncode, "leave out one of them" in " ".join(done.stderr.split())) == (2, True)


def test_calibration_images_are_recorded_as_training_images(photos: Path, tmp_path: Path) -> None:
    source = tiny_network(tmp_path / "m.onnx")
    data = open_data(f"folder:{photos}")
    recalibrate(str(source), data, tmp_path / "mine.onnx")
    assert len(read_seen(tmp_path / "mine.onnx") - {OTHERS}) == 2 * COUNT
    with pytest.raises(DataError, match=says(f"trained on {COUNT} of these {COUNT}")):
        evaluate(tmp_path / "mine.onnx", data)
    with pytest.raises(DataError, match="trained on"):
        recalibrate(str(tmp_path / "mine.onnx"), data, tmp_path / "again.onnx")


def test_a_model_with_unknown_training_images_stays_one(photos: Path, tmp_path: Path) -> None:
    """Its calibration images are known afterwards, and nothing else."""
    source = tiny_network(tmp_path / "m.onnx")
    assert recalibrate(str(source), open_data(f"folder:{photos}"), tmp_path / "mine.onnx").may_be_seen
    others = tmp_path / "others"
    for number, name in enumerate(("awe", "fear", "awe", "fear")):
        (others / name).mkdir(parents=True, exist_ok=True)
        draw_image(900 + number).save(others / name / f"{number}.jpg")
    result = evaluate(tmp_path / "mine.onnx", open_data(f"folder:{others}"))
    assert UNKNOWN_TRAINING in result.notes
    assert result.may_be_seen


def test_calibration_images_are_recognised_in_another_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8))
        image = coarse.resize((160, 120), Image.Resampling.BICUBIC)
        for folder, size in (("first", image.size), ("again", (100, 100))):
            path = tmp_path / folder / ("awe", "fear")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.resize(size).save(path)
    source = tiny_network(tmp_path / "m.onnx")
    recalibrate(str(source), open_data(f"folder:{tmp_path / 'first'}"), tmp_path / "mine.onnx")
    with pytest.raises(DataError, match=f"trained on {COUNT} of these {COUNT}.*in another file"):
        evaluate(tmp_path / "mine.onnx", open_data(f"folder:{tmp_path / 'again'}"))


def test_chance_is_that_of_the_scored_classes(photos: Path, tmp_path: Path) -> None:
    """Five folders named like Mikels' labels, scored with a model of his eight."""
    shutil.copytree(photos, tmp_path / "five")
    put(tmp_path / "five", "disgust/0.jpg")
    model = tiny_network(tmp_path / "m.onnx")
    data = open_data(f"folder:{tmp_path / 'five'}")
    path = write_evaluation(evaluate(model, data), model, data, "all")
    commonest, uniform = chance_of(read_predictions(path.with_suffix(".jsonl"), json.loads(path.read_text())["labels"]))
    assert (commonest, uniform) == (pytest.approx(15 / 61), 1 / 8)


def test_accuracy_is_that_of_the_evaluation(photos: Path, tmp_path: Path) -> None:
    """Answers outside of the four classes of the images are wrong."""
    model = tiny_network(tmp_path / "m.onnx")
    data = open_data(f"folder:{photos}")
    result = recalibrate(str(model), data, tmp_path / "mine.onnx")
    scores = evaluate(model, data)
    assert (result.accuracy, result.accuracy_interval) == (scores.scores.accuracy, scores.scores.accuracy_interval)
    assert result.accuracy_before == result.accuracy
    assert result.scored_labels == scores.scored_labels


def test_accuracy_among_sums_of_labels_is_that_of_the_written_model(tmp_path: Path) -> None:
    """A higher temperature keeps the order of probabilities, but not that of their sums."""
    pairs = {"first": ("amusement", "anger", "awe", "contentment"), "second": ("fear",), "third": ("sadness",)}
    model = tiny_network(tmp_path / "m.onnx")
    network = Network.open(model)
    for i in range(60):
        image = draw_image(i, (48, 48))
        [answer] = network.answer([network.views_of(SizedImage.of(image), None)]).values
        label = ("second", "third")[i % 2] if int(answer.argmax()) > 3 else "first"
        path = tmp_path / "own" / label / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    data = open_data(f"folder:{tmp_path / 'own'}")
    result = recalibrate(str(model), data, tmp_path / "mine.onnx", label_pairs=pairs)
    assert result.accuracy < result.accuracy_before
    for file, accuracy in ((model, result.accuracy_before), (tmp_path / "mine.onnx", result.accuracy)):
        assert evaluate(file, data, label_pairs=pairs, allow_seen=True).scores.accuracy == accuracy


def test_models_and_data_that_cannot_calibrate_are_refused(photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    affect = tiny_network(tmp_path / "a.onnx", task="affect", labels=("valence", "arousal"))
    (few / "awe").mkdir(parents=True)
    draw_image(0).save(few / "awe" / "0.png")
    with pytest.raises(DataError, match="at least 30 are needed"):
        recalibrate(str(tiny_network(tmp_path / "m.onnx")), open_data(f"folder:{few}"), tmp_path / "out.onnx")
    with pytest.raises(ConfigError, match="task affect"):
        recalibrate(str(affect), open_data(f"folder:{photos}"), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_evaluation_measures_likely_sets_and_flags(photos: Path, tmp_path: Path) -> None:
    """They are the predictor's own: sets for 90 %, and images that are flagged as unfamiliar."""
    scores = tuple(np.linspace(0.01, 0.99, 60).round(5))
    source = tiny_network(tmp_path / "m.onnx", distances=tuple(np.linspace(1, 60, 60)), conformal_scores=scores)
    data = open_data(f"folder:{photos}?labels=mikels")
    evaluation = evaluate(source, data)
    answers = load(source, finder=None).predict_many([str(sample.image) for sample in data.samples], coverage=0.9)
    labels = [data.label_of(sample) for sample in data.samples]
    coverage = np.mean([label in answer.likely for label, answer in zip(labels, answers, strict=True)])
    assert evaluation.trust["coverage"] == pytest.approx(coverage)
    assert evaluation.trust["set_size"] == pytest.approx(np.mean([len(answer.likely) for answer in answers]))
    assert evaluation.trust["flagged"] == pytest.approx(np.mean([answer.is_unfamiliar for answer in answers]))
    assert evaluation.as_dict()["set_size"] == evaluation.trust["set_size"]
    plain = tiny_network(tmp_path / "plain.onnx")
    assert evaluate(plain, data).trust == {}


@pytest.mark.thorough
def test_an_onnx_file_has_the_scores_of_its_run() -> None:
    for name in ("both", "knn"):
        run = finetuned(name)
        with_torch, without = (evaluate(path, labelled_data()) for path in (run, run / "model.onnx"))
        for measure in ("accuracy", "ece", "ece_calibrated", "top2_accuracy", "per_class_recall"):
            ours, theirs = (getattr(evaluation.scores, measure) for evaluation in (without, with_torch))
            assert ours == pytest.approx(theirs, abs=1e-4), measure


@pytest.mark.portable
def test_the_commands_need_no_torch(photos: Path, tmp_path: Path) -> None:
    """In a process where torch can't be imported."""
    tiny_network(tmp_path / "m.onnx", distances=(1.0, 2.0))
    guard = "import sys; sys.modules['torch'] = None; from uniemox.cli import main; main()"
    for words in (
        ("calibrate", "--model", "m.onnx", "--data", f"folder:{photos}", "--out", "mine.onnx", "--json"),
        ("evaluate", "--model", "m.onnx", "--data", f"folder:{photos}", "--json"),
    ):
        command = [sys.executable, "-c", guard, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120)
        assert done.returncode == 0, done.stderr
        printed = json.loads(done.stdout)
    assert printed["n"] == COUNT
    assert load(tmp_path / "mine.onnx", finder=None).network.info.calibration_images == "independent"


def test_messages_are_one_line(tmp_path: Path) -> None:
    words = ("--model", "nothing.onnx", "--data", f"folder:{tmp_path}", "--out", tmp_path / "out.onnx")
    done = uniemox_here("calibrate", *words)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
