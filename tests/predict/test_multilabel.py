"""Answers of models that give several labels: probabilities, labels above thresholds, files, frames and messages."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.drawn import draw_image
from tests.predict.networks import WhiteFinder, as_prediction, make_network, weights
from tests.runs import uniemox_here
from uniemox.classifier_info import read_info
from uniemox.errors import CheckpointError, ConfigError
from uniemox.io.sized_image import SizedImage
from uniemox.predict.confidence import sigmoid
from uniemox.predict.predictor import Predictor
from uniemox.predict.tables import to_frame, write_csv, write_parquet

LABELS = ("anger", "engagement", "pain", "peace")
SEVERAL: dict[str, Any] = {
    "labels": LABELS,
    "label_set": "custom",
    "kind": "felt",
    "task": "multilabel",
    "temperature": 2.0,
    "offsets": (0.5, -0.5, 0.0, 3.0),
    "thresholds": (0.6, 0.2, 1.0, 0.5),
}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(make_network(tmp_path_factory.mktemp("several"), **SEVERAL))


def photo(seed: int = 0) -> Image.Image:
    return draw_image(seed, (32, 32))


def given_by_hand(scene: dict[str, float]) -> tuple[str, ...]:
    limits = dict(zip(LABELS, SEVERAL["thresholds"], strict=True))
    given = [label for label, value in scene.items() if value > limits[label]]
    return tuple(sorted(given, key=lambda label: -scene[label]))


def test_every_label_has_its_own_calibrated_probability(predictor: Predictor) -> None:
    seen = set()
    for seed in range(12):
        answer = as_prediction(predictor.predict(photo(seed)))
        views = predictor.network.image_views(SizedImage.of(photo(seed)), None).views
        pixels = predictor.network.pixels(np.stack([view["scene"] for view in views]))
        means = pixels.reshape(1, 3, 4, 8, 4, 8).mean(axis=(3, 5)).ravel()
        logits = means @ weights(1, 4)
        expected = sigmoid(logits / 2.0 + np.array(SEVERAL["offsets"]))
        assert list(answer.scene) == list(LABELS)
        assert list(answer.scene.values()) == pytest.approx(expected, abs=1e-5)
        assert answer.assigned_labels == given_by_hand(answer.scene)
        assert answer.likely is None
        seen.add(answer.assigned_labels)
    # Some images get several labels, others fewer.
    assert {len(labels) for labels in seen} >= {1, 2}
    assert not any("pain" in labels for labels in seen if labels)


def _sized(image: Image.Image) -> Any:
    from uniemox.io.sized_image import SizedImage

    return SizedImage.of(image)


def test_json_and_tables_list_the_labels(predictor: Predictor, tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    model = _file(predictor)
    expected = as_prediction(predictor.predict(tmp_path / "a.png"))
    [line] = uniemox_here("predict", tmp_path / "a.png", "--model", model, "--json").stdout.splitlines()
    assert json.loads(line)["assigned_labels"] == list(expected.assigned_labels or ())

    for name in ("answers.csv", "answers.parquet"):
        done = uniemox_here("predict", tmp_path / "a.png", "--model", model, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    with (tmp_path / "answers.csv").open() as file:
        [row] = csv.DictReader(file)
    assert row["assigned_labels"] == ";".join(expected.assigned_labels or ())
    assert list(row)[:4] == ["path", "top", "top_value", "anger"]
    [table_row] = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    assert table_row["assigned_labels"] == list(expected.assigned_labels or ())
    felt = Predictor(make_network(tmp_path), WhiteFinder(), make_network(tmp_path, **SEVERAL, streams="person"))
    image = photo()
    image.paste((255, 255, 255), (4, 4, 20, 28))
    answer = as_prediction(felt.predict(image))
    lines = tmp_path / "people.jsonl"
    lines.write_text(json.dumps(answer.to_dict()) + "\n")
    write_parquet(lines, tmp_path / "people.parquet", felt.labels, of_film=False)
    [table_row] = pq.read_table(tmp_path / "people.parquet").to_pylist()
    assert table_row["persons"][0]["assigned_labels"] == list((answer.persons or [])[0].assigned_labels or ())
    assert "assigned_labels" in to_frame(expected).columns


def test_answers_of_one_label_are_as_before(tmp_path: Path) -> None:
    single = Predictor(make_network(tmp_path), WhiteFinder())
    image = photo()
    image.paste((255, 255, 255), (4, 4, 20, 28))
    answer = as_prediction(single.predict(image))
    assert answer.persons
    values = answer.to_dict()
    assert "assigned_labels" not in values
    assert list(values["persons"][0]) == ["box", "confidence", "emotions"]
    assert "assigned_labels" not in to_frame(answer).columns
    lines = tmp_path / "answers.jsonl"
    lines.write_text(json.dumps(values) + "\n")
    write_csv(lines, tmp_path / "answers.csv", single.labels, of_film=False, encoding="utf-8")
    write_parquet(lines, tmp_path / "answers.parquet", single.labels, of_film=False)
    assert "assigned_labels" not in (tmp_path / "answers.csv").read_text()
    assert "assigned_labels" not in str(pq.read_schema(tmp_path / "answers.parquet"))


def test_each_person_has_labels_of_a_person_network(tmp_path: Path) -> None:
    felt = make_network(tmp_path, **SEVERAL, streams="person")
    finder = WhiteFinder()
    image = photo()
    image.paste((255, 255, 255), (4, 4, 20, 28))
    answer = as_prediction(Predictor(make_network(tmp_path), finder, felt).predict(image, labels="polarity"))
    [person] = answer.persons or []
    assert person.emotions is not None
    assert person.assigned_labels == given_by_hand(person.emotions)
    assert answer.assigned_labels is None
    assert answer.to_dict()["persons"][0]["assigned_labels"] == list(person.assigned_labels or ())
    assert list(answer.scene) == ["negative", "positive"]


@pytest.mark.parametrize("options", [{"coverage": 0.9}, {"labels": "polarity"}])
def test_likely_sets_and_other_label_sets_are_refused(predictor: Predictor, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="gives several labels, each with a threshold of its own; leave out coverage"):
        predictor.predict(photo(), **options)


def test_table_on_the_screen_lists_the_given_labels(predictor: Predictor, tmp_path: Path) -> None:
    for seed in range(2):
        photo(seed).save(tmp_path / f"{seed}.png")
    shown = uniemox_here("predict", tmp_path, "--model", _file(predictor)).stdout
    for seed in range(2):
        answer = as_prediction(predictor.predict(photo(seed)))
        assert all(f"{label} {answer.scene[label]:.0%}" in shown for label in answer.assigned_labels or ())


def test_plot_has_a_darker_bar_for_each_given_label(predictor: Predictor) -> None:
    answer = as_prediction(predictor.predict(photo()))
    drawn = np.asarray(answer.plot()).reshape(-1, 3)
    dark = (drawn == (0x2F, 0x6F, 0x9F)).all(axis=1).sum()
    pale = (drawn == (0xA9, 0xC6, 0xDB)).all(axis=1).sum()
    assert dark > 0
    assert pale > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"thresholds": [0.5]},
        {"thresholds": [0.5, 0.5, 0.5, 1.5]},
        {"offsets": [0.0, 0.0, 0.0, None]},
        {"task": "several"},
    ],
)
def test_files_with_wrong_thresholds_or_an_unknown_task_are_refused(wrong: dict[str, Any]) -> None:
    values = {**SEVERAL, "encoder": {}, **wrong}
    with pytest.raises(CheckpointError, match="|".join(wrong)):
        read_info(json.dumps(values))


def _file(predictor: Predictor) -> Path:
    """Return the ONNX file of a predictor."""
    engine: Any = predictor.network.engine
    return engine._path
