"""What a notebook shows of answers, data sets and runs; data frames; predictors that travel to other processes."""

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
from uniemox.evaluate.run_records import read_run
from uniemox.predict import tables


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[uniemox.Prediction | uniemox.Failure]:
    folder = tmp_path_factory.mktemp("notebook")
    for i in range(2):
        draw_image(i).save(folder / f"{i} <b>.png")
    (folder / "z.png").write_bytes(b"broken")
    return uniemox.load("small").predict(folder, coverage=0.3)


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


def test_an_answer_is_shown_as_an_image_and_without_its_file_as_text(answers: list[uniemox.Prediction]) -> None:
    assert tags(answers[0]._repr_html_()) == ["img"]
    gone = uniemox.load("small", finder=None).predict(draw_image(1))
    assert tags(gone._repr_html_()) == ["img"]
    shown = replace(answers[0])
    Path(str(shown.path)).rename(f"{shown.path}.away")
    assert tags(shown._repr_html_()) == ["pre"]
    Path(f"{shown.path}.away").rename(str(shown.path))


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
    shown = uniemox.open_data("synthetic:64")._repr_html_()
    assert tags(shown).count("img") == 8
    assert "64 samples, mikels (evoked)" in shown
    run = read_run(pretrained())._repr_html_()
    assert tags(run)[:2] == ["p", "b"]
    assert "scene_reconstruction" in run


def test_a_frame_has_a_row_for_each_image(answers: list[uniemox.Prediction]) -> None:
    frame = uniemox.to_frame(answers)
    assert list(frame["top"][:2]) == [answer.top(1)[0][0] for answer in answers[:2]]
    assert np.allclose(frame["awe"][:2].astype(float), [answer.scene["awe"] for answer in answers[:2]], atol=1e-6)
    assert "cut off or corrupt" in frame["error"][2] or "no image" in frame["error"][2] or frame["error"][2]
    assert len(uniemox.to_frame(answers[0])) == 1
    assert list(uniemox.to_frame([]).columns) == tables.headings((), of_film=False)


def test_without_a_library_of_frames_it_says_what_to_install(
    answers: list[uniemox.Prediction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "FRAMES", ("no_such_pandas",))
    with pytest.raises(MissingPackageError, match="pip install pandas"):
        uniemox.to_frame(answers)


def test_a_predictor_says_what_it_does_and_answers_the_same_in_another_process(tmp_path: Path) -> None:
    predictor = uniemox.load("small", faces="find")
    assert repr(predictor) == "<Predictor: small says what is evoked (mikels), finds people, reads faces>"
    draw_image(3).save(tmp_path / "a.png")
    (tmp_path / "p.pickle").write_bytes(pickle.dumps(predictor))
    code = "import pickle; print(pickle.load(open('p.pickle', 'rb')).predict('a.png').to_dict())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = predictor.predict(Image.open(tmp_path / "a.png")).to_dict() | {"path": "a.png"}
    assert done.stdout.strip() == str(expected)


def test_names_of_strangers_are_only_words(tmp_path: Path) -> None:
    evil = "\"'><img src=x onerror=alert(1)><script>{{ 7 * 7 }}"
    folder = tmp_path / evil
    run = tmp_path / "run <script>"
    for i in range(40):
        path = folder / f"{'ab'[i % 2]}{evil}" / f"{i}{evil}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_image(i, (40, 40)).save(path)
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"kind": "finetune", "config": {"data": {"source": f"folder:{evil}"}}}))
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, evil: 0.5}) + "\n")
    data = uniemox.open_data(f"folder:{folder}")
    shown = [data._repr_html_(), read_run(run)._repr_html_()]
    answer = uniemox.load("small", finder=None).predict(data.samples[0].image.path)  # type: ignore[attr-defined]
    changed = replace(answer, model=evil, label_set=evil, path=evil, scene={evil: 1.0})
    shown += [answer._repr_html_(), changed._repr_html_()]
    for html in shown:
        assert not {"script", "iframe", "a"} & set(tags(html))
        assert "<img src=x" not in html
        assert "49" not in re.findall(r"script&gt;(\d+)", html)
    assert tags(shown[0]).count("img") == 2
