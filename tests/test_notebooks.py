"""HTML of predictions, data sets and runs in a notebook; data frames; pickled predictors."""

import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import uniemox
from tests.drawn import draw_image
from tests.runs import pretrained
from uniemox.errors import MissingPackageError
from uniemox.evaluate.evaluation import Evaluation
from uniemox.evaluate.run_records import read_run
from uniemox.evaluate.scores import score_classes
from uniemox.labels import MIKELS
from uniemox.predict import tables


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[uniemox.Prediction | uniemox.Failure]:
    folder = tmp_path_factory.mktemp("notebook")
    for i in range(2):
        draw_image(i).save(folder / f"{i} <b>.png")
    (folder / "z.png").write_bytes(b"broken")
    return uniemox.load("small").predict_folder(folder, coverage=0.3)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.found.append(tag)


def tags(html: str) -> list[str]:
    parser = Tags()
    parser.feed(html)
    return parser.found


def test_prediction_is_shown_as_an_image_and_without_its_file_as_text(answers: list[uniemox.Prediction]) -> None:
    assert tags(answers[0]._repr_html_()) == ["img"]
    unnamed = uniemox.load("small", finder=None).predict(draw_image(1))
    assert tags(unnamed._repr_html_()) == ["img"]
    answer = replace(answers[0])
    Path(str(answer.path)).rename(f"{answer.path}.away")
    assert tags(answer._repr_html_()) == ["pre"]
    Path(f"{answer.path}.away").rename(str(answer.path))


def test_results_are_printed_in_a_short_line(answers: list[uniemox.Prediction]) -> None:
    answer = replace(answers[0], persons=[], familiarity=0.01)
    label, probability = answer.top(1)[0]
    line = repr(answer)
    assert line.startswith(f"<Prediction of {answer.path}: evoked {label} {probability:.0%}, ")
    assert line.endswith(f", valence {answer.valence:.1f}, arousal {answer.arousal:.1f}, 0 people, a guess>")
    assert repr(replace(answer, path=None, scene={"valence": 5.0, "arousal": 1.0}, persons=None, familiarity=None)) == (
        "<Prediction of an image: evoked valence 5.0, arousal 1.0>"
    )

    data = uniemox.open_data("synthetic:8")
    splits = [replace(sample, split="test" if number % 4 else "train") for number, sample in enumerate(data.samples)]
    name = f"{len(data.labels)} labels of {data.labels.name} (evoked)"
    assert repr(replace(data, samples=splits)) == f"<DataSet synthetic:8: 8 samples, {name}, train 2, test 6>"

    scores = score_classes(np.eye(8)[[0, 1, 2, 2]], np.array([0, 1, 2, 3]), MIKELS)
    evaluation = Evaluation(scores, None, ("a note",), ())
    assert repr(evaluation) == "<Evaluation of 4 images: accuracy 0.750 (0.250 to 1.000), 1 note>"


def test_likely_labels_are_darker(answers: list[uniemox.Prediction]) -> None:
    def colours(answer: uniemox.Prediction) -> set[tuple[int, ...]]:
        return {colour for _, colour in answer.plot().getcolors(1 << 24)}  # type: ignore[misc]

    dark = (0x2F, 0x6F, 0x9F)
    pale = (0xA9, 0xC6, 0xDB)
    assert {dark, pale} <= colours(answers[0])
    plain = uniemox.load("small", finder=None).predict(draw_image(1))
    assert dark in colours(plain)
    assert pale not in colours(plain)


def test_data_sets_and_runs_are_shown() -> None:
    html = uniemox.open_data("synthetic:64")._repr_html_()
    assert tags(html).count("img") == 8
    assert "64 samples, mikels (evoked)" in html
    run = read_run(pretrained())._repr_html_()
    assert tags(run)[:2] == ["p", "b"]
    assert "scene_reconstruction" in run


def test_frame_has_one_row_per_image(answers: list[uniemox.Prediction]) -> None:
    frame = uniemox.to_frame(answers)
    assert list(frame["top"][:2]) == [answer.top(1)[0][0] for answer in answers[:2]]
    assert np.allclose(frame["awe"][:2].astype(float), [answer.scene["awe"] for answer in answers[:2]], atol=1e-6)
    assert "cut off or corrupt" in frame["error"][2] or "no image" in frame["error"][2] or frame["error"][2]
    assert len(uniemox.to_frame(answers[0])) == 1
    assert list(uniemox.to_frame([]).columns) == tables.headings((), of_film=False)


def test_frame_with_unreadable_images_can_be_filtered(answers: list[uniemox.Prediction]) -> None:
    frame = uniemox.to_frame(answers)
    assert frame["is_unfamiliar"].isna().tolist() == [False, False, True]
    assert str(frame["is_unfamiliar"].dtype) == "boolean"
    assert str(frame["people"].dtype) == str(frame["width_px"].dtype) == "Int64"
    expected = [answer.path for answer in answers[:2] if answer.is_unfamiliar]
    assert list(frame[frame["is_unfamiliar"]]["path"]) == expected


def test_to_frame_without_pandas_names_the_package(
    answers: list[uniemox.Prediction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "FRAMES", ("no_such_pandas",))
    with pytest.raises(MissingPackageError, match="pip install pandas"):
        uniemox.to_frame(answers)


def test_predictor_has_a_repr_and_predicts_the_same_after_pickling(tmp_path: Path) -> None:
    predictor = uniemox.load("small", faces="find")
    assert repr(predictor) == "<Predictor: small says what is evoked (mikels), finds people, reads faces>"
    draw_image(3).save(tmp_path / "a.png")
    (tmp_path / "p.pickle").write_bytes(pickle.dumps(predictor))
    code = "import pickle; print(pickle.load(open('p.pickle', 'rb')).predict('a.png').to_dict())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = predictor.predict(Image.open(tmp_path / "a.png")).to_dict() | {"path": "a.png"}
    assert done.stdout.strip() == str(expected)


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    hostile_text = "\"'><img src=x onerror=alert(1)><script>{{ 7 * 7 }}"
    folder = tmp_path / hostile_text
    run = tmp_path / "run <script>"
    for i in range(40):
        path = folder / f"{'ab'[i % 2]}{hostile_text}" / f"{i}{hostile_text}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_image(i, (40, 40)).save(path)
    run.mkdir()
    (run / "config.json").write_text(
        json.dumps({"kind": "finetune", "config": {"data": {"source": f"folder:{hostile_text}"}}})
    )
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, hostile_text: 0.5}) + "\n")
    data = uniemox.open_data(f"folder:{folder}")
    pages = [data._repr_html_(), read_run(run)._repr_html_()]
    answer = uniemox.load("small", finder=None).predict(data.samples[0].image.path)  # type: ignore[attr-defined]
    changed = replace(answer, model=hostile_text, label_set=hostile_text, path=hostile_text, scene={hostile_text: 1.0})
    pages += [answer._repr_html_(), changed._repr_html_()]
    for html in pages:
        assert not {"script", "iframe", "a"} & set(tags(html))
        assert "<img src=x" not in html
        assert "49" not in re.findall(r"script&gt;(\d+)", html)
    assert tags(pages[0]).count("img") == 2
