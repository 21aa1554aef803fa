"""Complete evaluations of a classifier whose every answer is known beforehand."""

import hashlib
import io
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, top_k_accuracy_score

from tests.data.tree import says
from tests.drawn import Stored, class_folders
from tests.runs import CPU, SPLITS, colour_sample, colours, data_of, finetuned, uniemox_here
from uniemox.data.readers.shards import read_shards
from uniemox.data.sample import NO_PERSONS, DataSet
from uniemox.data.seen import read_seen
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.errors import CheckpointError, ConfigError, DataError, LabelError
from uniemox.evaluate.evaluation import SEEN_ALLOWED, UNKNOWN_TRAINING, Evaluation
from uniemox.evaluate.evaluation_files import write_evaluation
from uniemox.evaluate.recalibration import write_model
from uniemox.evaluate.run import column_of, evaluate
from uniemox.evaluate.run_records import score_lines
from uniemox.evaluate.scores import ClassScores
from uniemox.evaluate.targets import mapped
from uniemox.io.parallel import PoolConfig
from uniemox.io.run_files import ONNX
from uniemox.io.weight_names import file_in_package
from uniemox.labels import CAER, EKMAN, MIKELS, POLARITY, LabelSet, label_map, scored_labels
from uniemox.plurals import counted
from uniemox.predict.network import Network
from uniemox.predict.opening import load

# (what the image shows, what it is labelled, how often): the classifier answers what it shows.
ANSWERS = (
    ("amusement", "amusement", 3),
    ("amusement", "awe", 1),
    ("awe", "awe", 2),
    ("contentment", "anger", 2),
    ("contentment", "contentment", 1),
    ("excitement", "awe", 1),
)


def labelled_data(answers: Sequence[tuple[str, str | None, int]] = ANSWERS, labels: LabelSet = MIKELS) -> DataSet:
    """Images whose colour the classifier knows, labelled as it is written there."""
    draw = random.Random(7)
    samples = []
    for colour, label, count in answers:
        for _ in range(count):
            index = None if label is None else labels.index(label)
            samples.append(colour_sample(f"{len(samples)}.jpg", colour, draw, label=index))
    return DataSet("known", labels, samples)


def score(data: DataSet, **options: object) -> Evaluation:
    return evaluate(finetuned("knn"), data, hardware=CPU, **options)


def other_notes(evaluation: Evaluation) -> list[str]:
    """Notes apart from those of nearly all small data: about the likely sets of the run, and about absent labels."""
    usual = ("likely sets are fitted to 12 held-out images", "no scored image has these labels")
    return [note for note in evaluation.notes if not note.startswith(usual)]


def test_scores_equal_those_worked_out_by_hand() -> None:
    scores = score(labelled_data()).scores
    assert scores.n == 10
    assert scores.accuracy == pytest.approx(0.6)
    recalls = {"amusement": 1.0, "anger": 0.0, "awe": 0.5, "contentment": 1.0}
    assert scores.per_class_recall == {name: recalls.get(name) for name in MIKELS.labels}
    f1 = {"amusement": 6 / 7, "awe": 4 / 6, "contentment": 2 / 4, "anger": 0.0, "excitement": 0.0}
    assert scores.macro_f1 == pytest.approx(sum(f1.values()) / 5)
    assert scores.polarity_accuracy == pytest.approx(0.8)
    # The classifier is nearly certain of every answer.
    assert scores.ece == pytest.approx(0.4, abs=0.01)
    assert 0.3 < scores.ece_calibrated < 0.5
    low, high = scores.accuracy_interval
    assert 0.2 <= low < 0.6 < high <= 0.9
    confusion = np.array(scores.confusion)
    assert confusion[MIKELS.index("awe"), MIKELS.index("amusement")] == 1
    assert confusion.sum() == 10


def test_every_image_gets_its_line() -> None:
    lines = score(labelled_data((("awe", "fear", 1), ("amusement", "amusement", 1)))).predictions
    assert [(line["key"], line["label"], line["predicted"]) for line in lines] == [
        ("0.jpg", "fear", "awe"),
        ("1.jpg", "amusement", "amusement"),
    ]
    assert sum(lines[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_lines_have_the_hash_of_the_file(tmp_path: Path) -> None:
    data = labelled_data((("awe", "fear", 1), ("amusement", "amusement", 1)))
    first, second = data.samples
    samples = (first, replace(second, source_sha256="ab" * 32))
    lines = score(replace(data, samples=samples)).predictions
    assert [line["sha256"] for line in lines] == [hashlib.sha256(first.image.read()).hexdigest(), "ab" * 32]


def test_an_interval_without_width_is_explained_wherever_it_is_shown() -> None:
    right = score(labelled_data((("awe", "awe", 1), ("amusement", "amusement", 2))))
    assert right.scores.accuracy_interval == (pytest.approx(0.292, abs=1e-3), 1)
    assert "all 3 images are right, so resampling shows no spread; the exact 95 % interval is 29 to 100 %" in (
        right.notes
    )
    assert not [note for note in score(labelled_data()).notes if "no spread" in note]


def test_images_of_one_group_are_resampled_together() -> None:
    data = labelled_data()
    one_group = replace(data, samples=[replace(sample, group="all") for sample in data.samples])
    # One group says nothing about others.
    assert score(one_group).scores.accuracy_interval == (0, 1)
    people = replace(data, samples=[replace(s, key=f"a.jpg#{i + 2}") for i, s in enumerate(data.samples)])
    # All samples are people of one image.
    assert score(people).scores.accuracy_interval == (0, 1)


def test_images_without_a_label_are_counted_beside_mapped_labels() -> None:
    data = labelled_data()
    unlabelled = [replace(sample, key=f"{sample.key}.png", label=None) for sample in data.samples[:2]]
    joined = replace(data, samples=[*data.samples, *unlabelled])
    assert "2 images have no label or rating to compare with" in score(joined).notes
    notes = score(joined, label_pairs={"anger": ()}).notes
    assert any("left out: the label map leaves out anger" in note for note in notes)
    assert "2 images have no label or rating to compare with" in notes


@pytest.mark.parametrize(("groups", "is_noted"), [(1, True), (4, True), (5, False)])
def test_intervals_from_few_groups_are_noted(groups: int, is_noted: bool) -> None:
    data = labelled_data()
    samples = [replace(sample, group=str(i % groups)) for i, sample in enumerate(data.samples)]
    notes = score(replace(data, samples=samples)).notes
    note = f"the 10 images are of {counted(groups, 'group')}, and images of a group are resampled together"
    assert any(text.startswith(note) for text in notes) == is_noted


def test_a_model_without_a_list_of_training_images_is_marked(tmp_path: Path) -> None:
    run = finetuned("knn")
    shutil.copy(run / ONNX, tmp_path)
    assert UNKNOWN_TRAINING in evaluate(tmp_path / ONNX, labelled_data()).notes
    # What a person detector was trained on says nothing of the model.
    with_detector = replace(labelled_data(), detector_seen=frozenset({"0" * 64}))
    assert UNKNOWN_TRAINING in evaluate(tmp_path / ONNX, with_detector).notes
    assert UNKNOWN_TRAINING not in evaluate(run / ONNX, labelled_data()).notes
    allowed = evaluate(run / ONNX, labelled_data(), allow_seen=True)
    assert SEEN_ALLOWED in allowed.notes
    assert allowed.may_be_seen
    assert not evaluate(run / ONNX, labelled_data()).may_be_seen


@pytest.mark.parametrize("may_be_seen", [False, True])
def test_calibration_is_not_advised_by_scores_of_training_images(may_be_seen: bool) -> None:
    evaluation = score(labelled_data())
    assert isinstance(evaluation.scores, ClassScores)
    surer = replace(evaluation.scores, n=10_000, ece=0.1, ece_calibrated=0.3)
    verdict = replace(evaluation, scores=surer, may_be_seen=may_be_seen).verdict
    assert any("uniemox calibrate fits the model" in sentence for sentence in verdict) == (not may_be_seen)


def test_the_command_says_that_it_replaces_earlier_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("evaluate", "--model", "small", "--data", f"folder:{class_folders(tmp_path / 'photos', each=2)}")
    replaces = "in place of earlier scores (--name keeps both)"
    assert replaces not in uniemox_here(*words).stderr.replace("\n", " ")
    assert replaces in uniemox_here(*words).stderr.replace("\n", " ")
    assert replaces not in uniemox_here(*words, "--name", "again").stderr.replace("\n", " ")


def test_training_images_are_refused_with_their_number(tmp_path: Path) -> None:
    train = colours(splits=SPLITS).only("train")
    mixed = replace(train, samples=[*labelled_data().samples, *train.samples[:3]])
    with pytest.raises(DataError, match=says("trained on 3 of these 13 images of colours, amusement/0.jpg among")):
        score(mixed)
    assert score(mixed, allow_seen=True).scores.n == 13
    # Beside a file alone, splits.json may be of something else.
    shutil.copy(finetuned("knn") / ONNX, tmp_path)
    stray = tmp_path / "splits.json"
    stray.write_text("{}")
    with pytest.raises(DataError, match="trained on 3 of these 13 images") as caught:
        evaluate(tmp_path / ONNX, replace(mixed, detector_seen=frozenset(read_seen(finetuned("knn")))))
    assert str(stray) not in str(caught.value)
    assert score(labelled_data()).scores.n == 10


def test_training_images_in_shards_are_refused(tmp_path: Path) -> None:
    train = colours(splits=SPLITS).only("train")
    write_shards(train, tmp_path / "packed", ShardConfig(short_side_px=24, pool=PoolConfig(workers=1)))
    packed = replace(read_shards(str(tmp_path / "packed")), labels=train.labels)
    with pytest.raises(DataError, match="trained on 32 of these 32"):
        score(packed)


def test_weights_without_a_run_have_no_training_record(tmp_path: Path) -> None:
    shutil.copy(finetuned("knn") / "model.safetensors", tmp_path / "model.safetensors")
    evaluation = evaluate(tmp_path / "model.safetensors", colours(splits=SPLITS).only("train"), hardware=CPU)
    assert evaluation.scores.n == 32


def test_labels_of_another_set_are_mapped_and_noted() -> None:
    answers = (("amusement", "joy", 2), ("excitement", "joy", 1), ("contentment", "sadness", 1), ("awe", "surprise", 2))
    evaluation = score(labelled_data(answers, EKMAN))
    assert (evaluation.scores.n, evaluation.scores.accuracy) == (4, 0.75)
    assert tuple(other_notes(evaluation)) == (
        "labels are mapped: mikels -> ekman: amusement + contentment + excitement become joy; dropped: awe; "
        "never reached: surprise",
        "2 images were left out: the model has no label for surprise",
    )
    assert evaluation.as_dict()["mapped_labels"] == evaluation.mapped_labels
    assert evaluation.mapped_labels.startswith("mikels -> ekman: amusement + contentment + excitement become joy")
    assert set(evaluation.predictions[0]["probabilities"]) == set(EKMAN.labels)
    assert evaluation.scored_labels == tuple(label for label in EKMAN.labels if label != "surprise")
    # Sets have labels of the model: three of them mean joy, and one of these is enough.
    assert evaluation.trust["coverage"] == 0.75
    assert 1 <= evaluation.trust["set_size"] < 4


THREE = LabelSet("custom", ("awe", "content", "fear"), "evoked")
ABSENT = "amusement, anger, disgust, excitement, sadness"


def test_classes_that_the_data_lack_count_as_wrong_answers() -> None:
    """Scores equal scikit-learn's on the answers of `predict`, among all labels of the model."""
    answers = (("awe", "awe", 3), ("excitement", "awe", 2), ("contentment", "content", 2), ("amusement", "content", 1))
    data = labelled_data((*answers, ("awe", "fear", 1)), THREE)
    evaluation = score(data, by="label")
    predictor = load(finetuned("knn") / "model.onnx", finder=None)
    images = (Image.open(io.BytesIO(sample.image.read())) for sample in data.samples)
    shares = np.array([[predictor.predict(image).scene[label] for label in MIKELS.labels] for image in images])
    words = ["contentment" if data.label_of(sample) == "content" else data.label_of(sample) for sample in data.samples]
    truth = np.array([MIKELS.labels.index(str(word)) for word in words])
    predicted = shares.argmax(axis=1)
    assert evaluation.scores.accuracy == pytest.approx(accuracy_score(truth, predicted)) == 5 / 9
    assert evaluation.scores.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert evaluation.scores.top2_accuracy == pytest.approx(top_k_accuracy_score(truth, shares, k=2, labels=range(8)))
    assert evaluation.scores.confusion == confusion_matrix(truth, predicted, labels=range(8)).tolist()
    assert evaluation.as_dict()["scored_labels"] == list(MIKELS.labels)
    assert other_notes(evaluation) == [
        f"scored among all 8 labels of the model; the data have no class {ABSENT}",
        "macro F1 counts amusement, excitement as 0: the model answers so for some images, but none has that label",
    ]
    assert evaluation.by is not None
    assert evaluation.by.groups["awe"].accuracy == pytest.approx(3 / 5)
    assert [line["label"] for line in evaluation.predictions] == words
    assert set(evaluation.predictions[0]["probabilities"]) == set(MIKELS.labels)


@pytest.mark.thorough
def test_votes_for_some_labels_are_compared_among_all() -> None:
    votes = LabelSet("custom", ("anger", "fear", "joy"), "evoked")
    data = data_of("probe").only("test")
    samples = []
    for sample in data.samples:
        shares = {word: share for word, share in (sample.distribution or {}).items() if word in votes.labels}
        if sum(shares.values()) > 0:
            samples.append(replace(sample, label=None, distribution=shares))
    few, full = (
        evaluate(finetuned("probe"), replace(data, labels=labels, samples=samples), hardware=CPU)
        for labels in (votes, data.labels)
    )
    assert few.scored_labels == EKMAN.labels
    for name, value in asdict(full.scores).items():
        assert asdict(few.scores)[name] == (value if value is None else pytest.approx(value))


def test_missing_person_boxes_are_noted_if_the_model_reads_the_person() -> None:
    data = labelled_data()
    searched = replace(data, samples=[replace(sample, persons=()) for sample in data.samples])
    both = finetuned("both")
    assert evaluate(both / "model.safetensors", data, hardware=CPU).notes.count(NO_PERSONS) == 1
    assert NO_PERSONS not in evaluate(both / "model.safetensors", searched, hardware=CPU).notes
    assert NO_PERSONS not in score(data).notes


def test_polarity_is_the_sum_over_its_labels() -> None:
    evaluation = score(labelled_data((("awe", "positive", 3), ("amusement", "negative", 1)), POLARITY))
    assert evaluation.scores.accuracy == 0.75
    assert evaluation.predictions[0]["predicted"] == "positive"


def test_evoked_and_felt_labels_are_not_compared() -> None:
    with pytest.raises(LabelError, match="one kind does not determine the other"):
        score(labelled_data((("awe", "happy", 2),), CAER))
    with pytest.raises(LabelError, match="no map from mikels to custom is known"):
        score(labelled_data((("awe", "a", 2),), LabelSet("custom", ("a", "b"), "evoked")))
    with pytest.raises(LabelError):
        score(replace(labelled_data(), labels=replace(MIKELS, kind="felt")))
    with pytest.raises(LabelError, match="the model predicts felt emotions"):
        scored_labels(CAER, POLARITY)


def test_labels_are_mapped_as_the_user_says() -> None:
    own = LabelSet("custom", ("fun", "meh", "wow"), "evoked")
    data = labelled_data(
        (("awe", "wow", 2), ("amusement", "fun", 1), ("contentment", "wow", 1), ("awe", "meh", 2)), own
    )
    pairs = {"fun": ("amusement", "contentment"), "wow": ("awe",), "meh": ()}
    evaluation = score(data, label_pairs=pairs)
    assert (evaluation.scores.n, evaluation.scores.accuracy) == (4, 0.75)
    assert evaluation.scored_labels == ("fun", "wow")
    assert "2 images were left out: the label map leaves out meh" in evaluation.notes
    assert "the label map: fun=amusement+contentment,meh=,wow=awe" in evaluation.notes


def test_a_model_with_the_labels_of_the_data_leaves_out_what_the_map_does() -> None:
    plain = score(labelled_data())
    whole = {label: (f"{label} of another model",) for label in MIKELS.labels}
    again = score(labelled_data(), label_pairs=whole)
    assert again.scores == plain.scores
    assert "the label map is not used: the model has the labels of the data, not those of the map" in again.notes
    for pairs in ({"Anger": ()}, whole | {"anger": ()}):
        evaluation = score(labelled_data(), label_pairs=pairs)
        angry = sum(sample.label == MIKELS.index("anger") for sample in labelled_data().samples)
        assert evaluation.scores.n == plain.scores.n - angry < plain.scores.n
        assert evaluation.scored_labels == tuple(label for label in MIKELS.labels if label != "anger")
        assert "the label map only leaves out anger: the model needs none for the other labels" in evaluation.notes
        assert evaluation.label_map == {}


def test_a_map_may_merge_labels_that_model_and_data_share() -> None:
    data = labelled_data((("excitement", "amusement", 3), ("amusement", "amusement", 1), ("awe", "awe", 2)))
    assert score(data).scores.accuracy == 0.5
    pairs = {"amusement": ("amusement", "excitement"), "excitement": ()}
    evaluation = score(data, label_pairs=pairs)
    assert evaluation.scores.accuracy == 1
    # Labels that the map does not name mean themselves.
    assert evaluation.label_map["awe"] == ("awe",)
    assert evaluation.label_map["amusement"] == ("amusement", "excitement")


def test_a_model_that_cannot_flag_says_so_instead_of_zero(tmp_path: Path) -> None:
    small = file_in_package(Path("small"))
    info = Network.open(small).info
    write_model(small, tmp_path / "few.onnx", replace(info, distances=info.distances[:8]).to_json())
    assert "flagged" in evaluate(Path("small"), labelled_data()).trust
    evaluation = evaluate(tmp_path / "few.onnx", labelled_data())
    assert "flagged" not in evaluation.trust
    assert any("only 8 held-out images" in note and "20 are needed" in note for note in evaluation.notes)


def test_labels_that_no_image_has_are_named() -> None:
    """The model answers amusement for an image of anger; so amusement counts as 0, and the other six don't count."""
    notes = score(labelled_data((("amusement", "anger", 2), ("awe", "awe", 2)))).notes
    assert "macro F1 counts amusement as 0: the model answers so for some images, but none has that label" in notes
    assert (
        "no scored image has these labels, so macro F1 leaves them out: contentment, disgust, excitement, fear, sadness"
        in notes
    )


def test_images_without_label_are_left_out_and_counted() -> None:
    evaluation = score(labelled_data((("awe", "awe", 1), ("awe", None, 2))))
    assert evaluation.scores.n == 1
    assert other_notes(evaluation) == [
        "2 images have no label or rating to compare with",
        "the only image is right, so resampling shows no spread; the exact 95 % interval is 3 to 100 %",
    ]
    for answers in ((("awe", None, 2),), ()):
        with pytest.raises(DataError, match="known has no image to score: none of"):
            score(labelled_data(answers))


def test_broken_images_are_noted() -> None:
    data = labelled_data()
    broken = replace(data, samples=[replace(data.samples[0], image=Stored(b"no image")), *data.samples[1:]])
    evaluation = score(broken)
    assert evaluation.scores.n == 9
    assert len(evaluation.predictions) == 9
    assert evaluation.notes[0].startswith("1 image can't be read: ")
    with pytest.raises(DataError, match="none of 1 images can be read"):
        score(replace(broken, samples=broken.samples[:1]))


def test_scores_by_a_column() -> None:
    data = labelled_data()
    labelled = [
        replace(sample, domain="film" if i < 4 else "art", split="test", annotation={"scene": f"s{i % 2}"})
        for i, sample in enumerate(data.samples)
    ]
    data = replace(data, samples=[replace(labelled[0], domain=None), *labelled[1:]])
    by = score(data, by="domain").by
    assert {name: (group.n, group.accuracy) for name, group in by.groups.items()} == {
        "art": (6, pytest.approx(0.5)),
        "film": (3, pytest.approx(2 / 3)),
        "unknown": (1, 1.0),
    }
    assert set(score(data, by="label").by.groups) == {"amusement", "anger", "awe", "contentment"}
    assert {name: group.n for name, group in score(data, by="scene").by.groups.items()} == {"s0": 5, "s1": 5}
    with pytest.raises(ConfigError, match=says("known has no column 'seen'; it may have domain, split, label, group")):
        score(data, by="seen")
    with pytest.raises(ConfigError, match="no column 'group'"):
        column_of(data.samples, "group", data)


def test_distributions_and_affect_are_scored_by_their_own_measures(tmp_path: Path) -> None:
    votes = evaluate(finetuned("probe"), data_of("probe").only("test"), hardware=CPU)
    assert votes.scores.n == 3
    affect = evaluate(finetuned("affect"), data_of("affect").only("test"), hardware=CPU)
    assert set(affect.predictions[0]) >= {"valence", "arousal"}
    target = np.array([sample.valence for sample in data_of("affect").only("test").samples])
    predicted = np.array([line["valence"] for line in affect.predictions])
    error = affect.scores.valence.mae
    assert error == pytest.approx(np.abs(predicted - target).mean(), rel=1e-5)
    first, second = (
        write_evaluation(evaluation, tmp_path, data_of("affect"), "test").name for evaluation in (votes, affect)
    )
    assert second == first.replace(".json", "-affect.json")
    with pytest.raises(DataError, match="none of 10 has what the model predicts"):
        evaluate(finetuned("affect"), labelled_data(), hardware=CPU)


def test_scores_and_predictions_are_saved_in_the_run(tmp_path: Path) -> None:
    shutil.copytree(finetuned("knn"), tmp_path / "run")
    result = score(labelled_data())
    path = write_evaluation(result, tmp_path / "run", labelled_data(), "test")
    assert path == tmp_path / "run" / "evaluations" / "known-test.json"
    saved = json.loads(path.read_text())
    assert (saved["data"], saved["split"], saved["accuracy"], saved["n"]) == ("known", "test", 0.6, 10)
    lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    assert lines == json.loads(json.dumps(result.predictions))
    file = tmp_path / "run" / "model.safetensors"
    assert write_evaluation(result, file, replace(labelled_data(), name="a:b/../c?d"), "all").name == "a-b-c-d-all.json"
    assert (
        write_evaluation(result, file, replace(labelled_data(), name="folder:照片"), "all").name
        == "folder-照片-all.json"
    )
    assert write_evaluation(result, file, labelled_data(), "all", name="mine").name == "mine.json"
    of_file = write_evaluation(result, tmp_path / "run" / "small.onnx", labelled_data(), "all")
    assert of_file.name == "known-all-small.json"
    with pytest.raises(ConfigError, match="an evaluation's name has letters"):
        write_evaluation(result, file, labelled_data(), "all", name="../mine")


def test_the_card_says_among_how_many_labels_a_run_was_scored(tmp_path: Path) -> None:
    run = tmp_path / "knn"
    shutil.copytree(finetuned("knn"), run)
    write_evaluation(score(labelled_data()), run, labelled_data(), "test")
    [text] = score_lines(run)
    assert text.startswith("- known, split test, 10 images: accuracy 0.600, 95 % interval ")
    assert text.endswith(", among 8 labels")


def test_folder_without_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=says(tmp_path / "model.safetensors")):
        evaluate(tmp_path, labelled_data(), hardware=CPU)


def test_probabilities_of_labels_that_become_one_add_up() -> None:
    draw = np.random.default_rng(0)
    mapping = label_map(MIKELS, EKMAN)
    shares = draw.dirichlet(np.ones(8), size=5)
    expected = np.zeros((5, len(EKMAN)))
    for label in range(8):
        if (target := mapping(label)) is not None:
            expected[:, target] += shares[:, label]
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mapped(shares, mapping), expected, rtol=1e-9, atol=1e-12)
    # The label has no counterpart and is dropped.
    assert mapped(np.eye(8)[[MIKELS.index("awe")]], mapping).tolist() == [[0.0] * len(EKMAN)]


def test_scores_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "evaluations").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link"):
        write_evaluation(Mock(), tmp_path / "run", DataSet("a", MIKELS, []), "test", name="x")
    assert list((tmp_path / "elsewhere").iterdir()) == []
