"""Models are compared among the labels that all of them can choose, and by one label map."""

# ruff: noqa: F811 - parameters are the imported fixtures

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.test_compare import NO_VERDICT, runs  # noqa: F401 - a fixture
from tests.evaluate.test_report import logits_for, photos, score, write_run  # noqa: F401 - a fixture
from tests.evaluate.test_run import labelled_data
from tests.runs import finetuned
from uniemox.cli.evaluate import compare as cli_compare
from uniemox.errors import DataError, LabelError
from uniemox.evaluate.compare import Scoring, compare, compare_on
from uniemox.evaluate.run_records import Predictions
from uniemox.evaluate.shared_labels import among_shared_labels
from uniemox.io.progress import silent
from uniemox.labels import MIKELS, LabelSet


def add_label(folder: Path, label: str, probability: float) -> None:
    """Score a run among one more label, which no image has, but which gets this probability."""
    [file] = (folder / "evaluations").glob("*.json")
    values = json.loads(file.read_text())
    values["labels"].append(label)
    for row in values["confusion"]:
        row.append(0)
    values["confusion"].append([0] * len(values["labels"]))
    file.write_text(json.dumps(values))
    lines = [json.loads(line) for line in file.with_suffix(".jsonl").read_text().splitlines()]
    for line in lines:
        line["probabilities"] = {name: value * (1 - probability) for name, value in line["probabilities"].items()}
        line["probabilities"][label] = probability
        if probability > 0.5:
            line["predicted"] = label
    file.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_runs_with_more_labels_choose_among_the_shared_ones(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """The label that only one run has would make all its answers wrong."""
    [before] = compare([runs["a0"]], [runs["b0"]])
    assert (before.note, before.is_fair) == ("", True)
    add_label(runs["b0"], "boredom", 0.9)
    [comparison] = compare([runs["a0"]], [runs["b0"]])
    note = "the models have 2 and 3 labels, so all choose among the 2 that they share"
    assert comparison == replace(before, note=note)
    cli_compare(ours=[runs["a0"]], theirs=[runs["b0"]])
    assert note in capsys.readouterr().out


def answers(labels: str, truths: str, probabilities: list[list[float]]) -> Predictions:
    """Answers about images; a letter is a label."""
    return Predictions(
        keys=tuple(f"{i}.jpg" for i in range(len(truths))),
        groups=tuple(f"{i}.jpg" for i in range(len(truths))),
        labels=np.array([labels.index(truth) for truth in truths]),
        predicted=np.argmax(probabilities, axis=1),
        probabilities=np.array(probabilities),
        scored_labels=tuple(labels),
    )


def test_images_without_a_shared_label_are_left_out() -> None:
    """The first model is scored with awe, fear and sadness; the second, after a map, with fear, joy and sadness."""
    first = answers("afs", "fas", [[0.5, 0.4, 0.1], [0.9, 0.1, 0.0], [0.1, 0.5, 0.4]])
    second = answers("fjs", "fjs", [[0.2, 0.7, 0.1], [0.0, 0.9, 0.1], [0.1, 0.6, 0.3]])
    among, note = among_shared_labels([first, second])
    assert note.endswith("all choose among the 2 that they share; 1 image of a left out")
    assert [item.keys for item in among] == [("0.jpg", "2.jpg")] * 2
    assert [item.scored_labels for item in among] == [("f", "s")] * 2
    assert [item.is_right.tolist() for item in among] == [[True, False], [True, True]]
    few = answers("fx", "fff", [[0.5, 0.5]] * 3)
    unchanged, note = among_shared_labels([first, few])
    assert unchanged == [first, few]
    assert note.startswith("not scored among the same labels, but among 3 (a, f, s) and 2 (f, x)")


def test_images_that_one_model_has_no_label_for_are_left_out(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model of b0 can choose awe and fear, not boredom, so its evaluation lacks the image of boredom."""
    for name in ("a0", "b0"):
        add_label(runs[name], "boredom", 0.0)
    [file] = (runs["a0"] / "evaluations").glob("*.jsonl")
    first, *others = file.read_text().splitlines()
    bored = json.loads(first) | {"label": "boredom"}
    file.write_text("\n".join([json.dumps(bored), *others]) + "\n")
    [file] = (runs["b0"] / "evaluations").glob("*.jsonl")
    file.write_text(
        "\n".join(line for line in file.read_text().splitlines() if json.loads(line)["key"] != bored["key"])
    )
    file.write_text(file.read_text() + "\n")
    with pytest.raises(DataError, match="different images"):
        compare([runs["a0"]], [runs["b0"]])
    file = file.with_suffix(".json")
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"scored_labels": [name for name in values["labels"] if name != "boredom"]}))
    [comparison] = compare([runs["a0"]], [runs["b0"]])
    assert comparison.pictures == 15
    assert comparison.is_fair
    assert comparison.left_out == 1
    monkeypatch.chdir(tmp_path)
    Path("evaluations").mkdir()
    (runs["b0"] / "evaluations").rename(tmp_path / "evaluations" / "embedded")
    cli_compare(ours=[runs["a0"]], theirs=[Path("embedded")])
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert verdict.startswith("among the labels that are compared, training gained")
    assert "Left out: 1 image whose label a model can't choose" in verdict
    assert comparison.note == (
        "the models have 2 and 3 labels, so all choose among the 2 that they share; 1 image of boredom left out"
    )


def test_a_prediction_among_the_labels_stays_where_probabilities_are_equal() -> None:
    item = replace(answers("afs", "fs", [[0.4, 0.4, 0.2], [0.8, 0.1, 0.1]]), predicted=np.array([1, 0]))
    assert item.among("fas", item.keys).predicted.tolist() == [0, 1]
    assert item.among("af", ["0.jpg"]).predicted.tolist() == [1]
    # The first of two that are equally probable, after awe.
    assert item.among("sf", ["1.jpg"]).predicted.tolist() == [0]


def test_runs_scored_by_different_label_maps_are_marked(runs: dict[str, Path]) -> None:
    """As if `evaluate --map` had got other pairs for each; a run with the labels of the data needs no map."""

    def add_map(name: str, fear: str) -> None:
        [file] = (runs[name] / "evaluations").glob("*.json")
        values = json.loads(file.read_text()) | {"label_map": {"awe": ["awe", "joy, love"], "fear": [fear]}}
        file.write_text(json.dumps(values))

    add_map("a0", "fear")
    add_map("a1", "fear")
    [comparison] = compare([runs["a0"]], [runs["a1"], runs["b0"]])
    assert comparison.is_fair
    assert comparison.note == f'{runs["a0"]}, {runs["a1"]} scored by the label map awe=awe+"joy, love",fear=fear'
    add_map("a1", "anger")
    [comparison] = compare([runs["a0"]], [runs["a1"], runs["b0"]])
    assert comparison.note == (
        f'not scored by the same label map: {runs["a0"]} by awe=awe+"joy, love",fear=fear and {runs["a1"]} by '
        'awe=awe+"joy, love",fear=anger; score them again with one map'
    )
    assert not comparison.is_fair


def test_runs_scored_by_different_label_maps_get_no_verdict(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, label in (("a0", "fear"), ("b0", "anger")):
        [file] = (runs[name] / "evaluations").glob("*.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"label_map": {"awe": ["awe"], "fear": [label]}}))
    Path("evaluations").mkdir()
    (runs["a0"] / "evaluations").rename(tmp_path / "evaluations" / "embedded")
    cli_compare(ours=[runs["b0"]], theirs=[Path("embedded")])
    assert capsys.readouterr().out.endswith(NO_VERDICT)
    with pytest.raises(DataError, match=r"scores of embedded; give embedded, and run the command in"):
        compare([Path("evaluations/embedded")], [runs["b0"]])


@pytest.mark.thorough
def test_a_comparison_leaves_a_whole_evaluation_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model card and the report show it. The comparison alone leaves out the images of anger, as the map says."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "knn"
    shutil.copytree(finetuned("knn"), run)
    data = labelled_data()
    dropped = {word: () if word == "anger" else (word,) for word in MIKELS.labels}
    said: list[str] = []
    scoring = Scoring(split="all", label_pairs=dropped)
    comparison = compare_on(data, scoring, [run], [run], on_progress=silent, report=said.append)
    angry = sum(sample.label == MIKELS.index("anger") for sample in data.samples)
    assert angry > 0
    assert (comparison.pictures, comparison.left_out) == (len(data) - angry, angry)
    assert f"all choose among the 7 that the map keeps; {angry} image" in comparison.note
    [file] = (run / "evaluations").glob("*.json")
    assert json.loads(file.read_text())["n"] == len(data)
    assert json.loads(file.read_text())["n"] == len(data)
    assert not any("label map" in note for note in said)
    # Nor does a map without pairs choose among the labels of the model.
    comparison = compare_on(
        data, replace(scoring, label_pairs={"anger": ()}), [run], [run], on_progress=silent, report=said.append
    )
    assert (comparison.pictures, comparison.left_out) == (len(data) - angry, angry)
    assert json.loads(file.read_text())["n"] == len(data)
    one = {word: (word,) if word == "awe" else () for word in MIKELS.labels}
    with pytest.raises(LabelError, match="fewer than two labels to choose among"):
        compare_on(data, replace(scoring, label_pairs=one), [run], [run])


def test_images_that_the_map_leaves_out_for_all_models_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    labels = LabelSet("custom", ("fun", "meh", "wow"), "evoked")
    data = labelled_data((("awe", "wow", 3), ("amusement", "fun", 2), ("awe", "meh", 4)), labels)
    scoring = Scoring(split="all", label_pairs={"fun": ("amusement",), "wow": ("awe",), "meh": ()})
    comparison = compare_on(data, scoring, [Path("small")], [Path("small")], report=lambda _: None)
    assert (comparison.pictures, comparison.left_out, comparison.discordant) == (5, 4, 0)
