"""The report shows what is in the runs' folders, with missing parts and any text in the data."""

import base64
import io
import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.axe import needs_axe, violations_of
from tests.drawn import class_folders
from uniemox.cli.evaluate import report
from uniemox.data.sample import DataSet
from uniemox.data.source import open_data
from uniemox.errors import DataError
from uniemox.evaluate.evaluation import Evaluation
from uniemox.evaluate.evaluation_files import write_evaluation
from uniemox.evaluate.report.page import write_report
from uniemox.evaluate.run_records import read_predictions, read_run
from uniemox.evaluate.scores import score_affect, score_classes, score_distributions, score_groups
from uniemox.intervals import paired_bootstrap
from uniemox.labels import LabelSet
from uniemox.predict.confidence import probabilities_of

EVIL = "<script>alert('1')</script>&\"x\""
VOID = ("meta", "img", "wbr")


class Read(HTMLParser):
    """A page as elements: every tag closed in order, words, images, charts, tables as rows of words."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.charts: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.rows: list[list[str]] = []
        self.words = ""
        self.feed(page.read_text("utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.add(tag)
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "img":
            self.sources.append(attributes["src"])
            self.alts.append(attributes["alt"])
        if tag == "svg":
            self.charts.append(attributes["aria-label"])
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.targets += [attributes["href"]] if "href" in attributes else []
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def write_run(folder: Path, kind: str, *, steps: int = 3, is_finished: bool = True, **config) -> Path:
    """A run as pre-training and fine-tuning leave it, without weights that anybody could load."""
    folder.mkdir(parents=True)
    data = {"source": "folder:photos", "samples": 1234, "labels": {"name": "two", "labels": ["a"], "kind": "evoked"}}
    record = {"kind": kind, "config": {"seed": 7, **config}, "data": data, "versions": {"torch": "9.8.7"}}
    (folder / "config.json").write_text(json.dumps(record))
    if kind == "pretrain":
        names = ("scene_reconstruction", "person_reconstruction", "grad_norm")
    else:
        names = ("loss",)
    lines = [
        {"step": i + 1, **dict.fromkeys(names, 4.0 / (i + 1)), "epoch": (i + 1) / 2, "wait_s": 0.1}
        for i in range(steps)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if is_finished:
        (folder / "model.safetensors").write_bytes(b"")
    return folder


def score(run: Path, data: DataSet, logits: np.ndarray, by: list[str | None] | None = None, notes=()) -> Path:
    """Score answers to all samples of a data set, and keep them as `uniemox evaluate` does."""
    truth = np.array([sample.label for sample in data.samples])
    groups = [sample.image_key for sample in data.samples]
    probabilities = probabilities_of(logits, None)
    scores = score_classes(probabilities, truth, data.labels, groups=groups)

    def part(rows):
        return score_classes(probabilities[rows], truth[rows], data.labels)

    lines = [
        {
            "key": sample.key,
            "group": sample.group or sample.image_key,
            "path": str(sample.image),
            "label": data.label_of(sample),
            "predicted": data.labels.labels[int(row.argmax())],
            "probabilities": dict(zip(data.labels.labels, row.round(6).tolist(), strict=True)),
        }
        for sample, row in zip(data.samples, probabilities, strict=True)
    ]
    evaluation = Evaluation(
        scores, None if by is None else score_groups(by, part, min_samples=2), tuple(notes), tuple(lines)
    )
    return write_evaluation(evaluation, run, data, None)


def page_of(tmp_path: Path, *runs: Path) -> Read:
    write_report(runs, tmp_path / "page.html")
    return Read(tmp_path / "page.html")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """Sixteen images of two classes, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return open_data(f"folder:{class_folders(tmp_path / 'photos', each=8)}")


def logits_for(data: DataSet, wrong: set[int]) -> np.ndarray:
    """(N, 2), right but for these places; the surer the later."""
    truth = np.array([sample.label for sample in data.samples])
    answer = np.where(np.isin(np.arange(len(data)), list(wrong)), 1 - truth, truth)
    return (1 + np.arange(len(data)))[:, None] / 4 * np.eye(2)[answer]


def test_labels_with_commas_are_quoted(tmp_path: Path, photos: DataSet) -> None:
    run = write_run(tmp_path / "run", "finetune")
    file = score(run, photos, logits_for(photos, {0}))
    scores = json.loads(file.read_text())
    file.write_text(json.dumps(scores | {"scored_labels": ["awe, warm", "fear"]}))
    assert 'answers scored among 2 labels ("awe, warm", fear)' in page_of(tmp_path, run).words


def test_report_shows_an_evaluation(tmp_path: Path, photos: DataSet) -> None:
    run = write_run(tmp_path / "run", "finetune")
    logits = logits_for(photos, {0, 9, 15})
    file = score(run, photos, logits, by=["x"] * 8 + ["y"] * 8, notes=("a note",))
    scores = json.loads(file.read_text())
    page = page_of(tmp_path, run)
    low, high = scores["accuracy_interval"]
    # 13 of 16.
    assert ["accuracy", "0.812", f"{low:.3f} to {high:.3f}"] in page.rows
    assert [row for row in page.rows if row[0] in ("awe", "fear")][:2] == [["awe", "7", "1"], ["fear", "2", "6"]]
    assert ["fear", "", "0.750", "–", "8"] in page.rows
    assert [row[0] for row in page.rows if row[0].startswith(("x", "y"))] == ["x", "y ◂ worst"]
    assert "Worst group: y, 0.125 from the best group, x" in page.words
    assert "a note" in page.words
    assert "16 images, answers scored among 2 labels (awe, fear)" in page.words
    mean_probability = probabilities_of(logits, None).max(axis=1).mean()
    words = f"mean probability of the answer {mean_probability:.3f}, fraction right 0.812, ECE {scores['ece']:.3f}."
    assert [chart for chart in page.charts if chart.startswith("Reliability")] == [f"Reliability diagram: {words}"]
    examples = [alt for alt in page.alts if "true" in alt]
    assert [alt.split(":")[0] for alt in examples] == [
        *(f"fear/{i}.jpg" for i in (6, 5, 4, 3, 2, 0)),
        *("fear/7.jpg", "fear/1.jpg", "awe/0.jpg"),
    ]
    assert examples[6] == "fear/7.jpg: true fear, predicted awe (98 %)"
    assert examples[8] == "awe/0.jpg: true awe, predicted fear (56 %)"


def test_recalls_of_classes_with_few_images_have_no_interval(tmp_path: Path, photos: DataSet) -> None:
    run = write_run(tmp_path / "run", "finetune")
    file = score(run, photos, logits_for(photos, {0}))
    scores = json.loads(file.read_text())
    file.write_text(json.dumps(scores | {"confusion": [[18, 1], [0, 20]]}))
    low, high = scores["per_class_interval"]["fear"]
    rows = page_of(tmp_path, run).rows
    assert ["awe", "", f"{scores['per_class_recall']['awe']:.3f}", "–", "19"] in rows
    assert ["fear", "", f"{scores['per_class_recall']['fear']:.3f}", f"{low:.3f} to {high:.3f}", "20"] in rows


def test_page_is_self_contained(tmp_path: Path, photos: DataSet) -> None:
    runs = [write_run(tmp_path / name, "finetune") for name in ("one", "two")]
    for run in runs:
        score(run, photos, logits_for(photos, {1}))
    page = page_of(tmp_path, *runs)
    assert not page.tags & {"script", "link", "iframe", "object", "form"}
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert all(page.alts)
    assert all(page.charts)
    assert {target.removeprefix("#") for target in page.targets} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids)) == 3
    text = (tmp_path / "page.html").read_text()
    assert "@import" not in text
    assert "url(" not in text
    write_report(runs, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text


@pytest.mark.thorough
@needs_axe
@pytest.mark.browser
def test_axe_finds_nothing_on_the_page(browser: object, tmp_path: Path, photos: DataSet) -> None:
    runs = [write_run(tmp_path / "pre", "pretrain", steps=30), *(write_run(tmp_path / n, "finetune") for n in "ab")]
    for run in runs[1:]:
        score(run, photos, logits_for(photos, {1, 9}), by=["x"] * 8 + ["y"] * 8, notes=("a note",))
    write_report(runs, tmp_path / "page.html")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert violations_of(page) == []
    is_wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not page.evaluate(is_wide)
    page.close()


def test_text_of_the_data_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evil_file = EVIL.replace("/", "_")
    root = class_folders(tmp_path / evil_file, ("awe", evil_file), each=2)
    (root / "awe" / "0.jpg").rename(root / "awe" / f"{evil_file}.jpg")
    data = open_data(f"folder:{root}")
    run = write_run(tmp_path / f"run {evil_file}", "finetune", init=EVIL, network={"fusion": EVIL})
    for file in (run / "metrics.jsonl", run / "config.json"):
        file.write_text(file.read_text().replace('"loss"', json.dumps(EVIL)).replace("9.8.7", "<script>$"))
    score(run, data, np.eye(2)[[0, 1, 0, 1]], by=[EVIL, None, EVIL, "\ud800"], notes=(EVIL,))
    page = page_of(tmp_path, run)
    assert "script" not in page.tags
    assert page.words.count(EVIL) >= 5
    assert evil_file in page.words
    assert any(alt.startswith(f"awe/{evil_file}.jpg: true awe") for alt in page.alts)


def test_target_person_is_framed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people of one large grey image: each example has its own frame, where the box is."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (1280, 960), (128, 128, 128)).save(tmp_path / "a.png")
    rows = ("a.png,awe,128,96,384,480", "a.png,fear,768,480,1152,864")
    (tmp_path / "people.csv").write_text("\n".join(["path,label,x1,y1,x2,y2", *rows]))
    data = open_data(f"csv:{tmp_path / 'people.csv'}")
    run = write_run(tmp_path / "run", "finetune")
    score(run, data, np.eye(2) * [[3.0], [2.0]])
    page = page_of(tmp_path, run)
    sources = [source for source, alt in zip(page.sources, page.alts, strict=True) if alt.startswith("a.png")]
    for source, corners in zip(sources, ((32, 24, 96, 120), (192, 120, 288, 216)), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))).astype(int)
        is_yellow = (pixels[..., 0] - pixels[..., 2] > 100).nonzero()
        frame = (is_yellow[1].min(), is_yellow[0].min(), is_yellow[1].max(), is_yellow[0].max())
        assert np.abs(np.subtract(frame, corners)).max() <= 2


def test_images_elsewhere_are_shown_if_the_user_names_the_data(
    tmp_path: Path, photos: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's run may name private images."""
    run = write_run(tmp_path / "run", "finetune")
    score(run, photos, logits_for(photos, {15}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    page = page_of(tmp_path, run)
    assert page.alts == []
    assert f"--data {photos.name}" in page.words
    report(run, out=tmp_path / "named.html", data=[photos.name])
    assert len(Read(tmp_path / "named.html").alts) > 1


def test_links_in_a_run_bring_no_image_into_the_page(tmp_path: Path, photos: DataSet) -> None:
    """They are the stranger's; links in the working folder are the user's."""
    linked = write_run(tmp_path / "linked", "finetune")
    (linked / "data").symlink_to(tmp_path / "photos")
    score(linked, open_data(f"folder:{linked / 'data'}"), logits_for(photos, {15}))
    assert page_of(tmp_path, linked).alts == []

    copied = write_run(tmp_path / "copied", "finetune")
    shutil.copytree(tmp_path / "photos", copied / "data")
    score(copied, open_data(f"folder:{copied / 'data'}"), logits_for(photos, {15}))
    assert len(page_of(tmp_path, copied).alts) > 1
    for image in (copied / "data").rglob("*.jpg"):
        image.unlink()
        image.symlink_to(tmp_path / "photos" / image.parent.name / image.name)
    assert page_of(tmp_path, copied).alts == []

    (tmp_path / "mine").symlink_to(tmp_path / "photos")
    mine = write_run(tmp_path / "run", "finetune")
    score(mine, open_data("folder:mine"), logits_for(photos, {15}))
    assert len(page_of(tmp_path, mine).alts) > 1


def test_missing_data_set_is_reported(tmp_path: Path, photos: DataSet) -> None:
    run = write_run(tmp_path / "run", "finetune")
    score(run, photos, logits_for(photos, {15}))
    (tmp_path / "photos" / "fear" / "7.jpg").write_bytes(b"no image")
    (tmp_path / "photos" / "awe" / "0.jpg").unlink()
    page = page_of(tmp_path, run)
    assert [alt for alt in page.alts if "predicted awe" in alt and "true fear" in alt] == []
    assert "1 more can no longer be read." in page.words
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    page = page_of(tmp_path, run)
    assert "No example images: the data can't be opened here" in page.words
    assert "Confusion" in page.words
    assert page.alts == []
    # The curve of the loss, and the reliability diagram.
    assert len(page.charts) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "is empty"),
        ("{", ":1: not JSON"),
        ("[]", ":1: expected an object, got a list"),
        ({"probabilities": None}, ":1: field probabilities: expected an object, got null"),
        ({"label": "c"}, ":1: label 'c' is not one of the evaluation's"),
        ({"label": None}, ":1: field label: expected a text, got null"),
        ({"probabilities": {"a": 1}}, ":1: label 'b' is not one of the evaluation's"),
        ({"probabilities": {"a": 2, "b": 0}}, ":1: field probabilities[...]: expected a number <= 1.0"),
        ({"probabilities": {"a": math.nan, "b": 0}}, ":1: field probabilities[...]: expected a number >= 0.0"),
    ],
)
def test_malformed_predictions_are_reported(tmp_path: Path, line: str | dict[str, object], message: str) -> None:
    good = {"key": "a", "group": "a", "label": "a", "predicted": "b", "probabilities": {"a": 1, "b": 0}}
    text = line if isinstance(line, str) else json.dumps(good | line)
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(DataError, match=re.escape(message)):
        read_predictions(tmp_path / "x.jsonl", ["a", "b"])


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(tmp_path: Path, photos: DataSet) -> None:
    run = write_run(tmp_path / "run", "finetune")
    file = score(run, photos, logits_for(photos, {15}))
    file.with_suffix(".jsonl").write_text("{")
    for name, text in (("broken", "{"), ("other", '{"data": "x", "n": 1}')):
        file.with_name(f"{name}.json").write_text(text)
    wrong = json.loads(file.read_text()) | {"confusion": [[1, 2], [3]]}
    file.with_name("wrong.json").write_text(json.dumps(wrong))
    (run / "metrics.jsonl").write_text('{"step": 1}\n{\n{"step": 3}\n')
    page = page_of(tmp_path, run)
    assert page.words.count("An evaluation can't be read") == 3
    assert "The curves can't be read" in page.words
    assert "The images' predictions can't be read" in page.words
    assert "accuracy" in page.words
    assert "Surest" not in page.words


def test_a_head_that_was_fitted_has_no_curves(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "finetune", method="knn", batch_size=4321)
    (run / "metrics.jsonl").unlink()
    page = page_of(tmp_path, run)
    assert "The head was fitted in one step" in page.words
    assert "batch size" not in page.words
    assert "no losses" not in page.words


def test_report_shows_distributions_and_affect(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    run = write_run(tmp_path / "run", "finetune")
    shares = rng.dirichlet(np.ones(3), 12)
    predicted = probabilities_of(np.log(shares) / 2, None)
    spread = Evaluation(score_distributions(predicted, shares), None, (), ({"key": "a", "label": None},))
    target = rng.uniform(1, 9, (12, 2))
    felt = score_affect(target + rng.normal(size=(12, 2)), target)
    affect = Evaluation(felt, None, (), ())
    for name, scores in (("spread", spread), ("affect", affect)):
        write_evaluation(scores, run, DataSet(name, LabelSet("three", ("a", "b", "c"), "evoked"), []), "test")
    page = page_of(tmp_path, run)
    named = {row[0]: row[1] for row in page.rows}
    assert named["KL divergence"] == f"{spread.scores.kl:.3f}"
    assert named["valence: concordance (CCC)"] == f"{felt.valence.ccc:.3f}"
    assert named["arousal: mean absolute error"] == f"{felt.arousal.mae:.3f}"
    assert "Scored on affect, split test" in page.words
    assert "valence: ratings inside their 90 % intervals" in page.words
    assert "90 % likely sets" not in page.words
    assert "Confusion" not in page.words
    assert "can't be" not in page.words


def test_report_compares_several_runs(tmp_path: Path, photos: DataSet) -> None:
    """The best first, and by how much the others are below it on the same images."""
    wrong = {"middle": {0, 1, 2}, "best": {5}, "worst": set(range(10))}
    runs = {name: write_run(tmp_path / name, "finetune") for name in wrong}
    for name, run in runs.items():
        score(run, photos, logits_for(photos, wrong[name]))
    page = page_of(tmp_path, *runs.values())
    rows = [row for row in page.rows if row[0] in runs]
    right = {name: ~np.isin(np.arange(16), list(indices)) for name, indices in wrong.items()}
    gap = {name: paired_bootstrap(right[name], right["best"]) for name in ("middle", "worst")}
    assert [row[:3] for row in rows] == [["best", "", "0.938"], ["middle", "", "0.812"], ["worst", "", "0.375"]]
    assert [row[4] for row in rows] == [
        "the best",
        *(f"{g.difference:+.3f} ({g.low:+.3f} to {g.high:+.3f})" for g in gap.values()),
    ]
    assert gap["worst"].difference == -9 / 16


def test_each_of_two_evaluations_of_a_run_is_compared(tmp_path: Path, photos: DataSet) -> None:
    """A run may be scored twice on the same images: by two label maps, or also from its ONNX file."""
    runs = [write_run(tmp_path / name, "finetune") for name in ("twice", "once")]
    of_run, _ = (score(run, photos, logits_for(photos, {1, 2})) for run in runs)
    of_file = score(runs[0] / "8bit.onnx", photos, logits_for(photos, set()))
    rows = [row[:3] for row in page_of(tmp_path, *runs).rows if row[0].startswith(("twice", "once"))]
    names = [f"twice ({of_file.stem})", f"twice ({of_run.stem})", "once"]
    assert rows == [[name, "", accuracy] for name, accuracy in zip(names, ["1.000", "0.875", "0.875"], strict=True)]


def test_scores_on_other_images_take_no_comparison_away(tmp_path: Path, photos: DataSet) -> None:
    """Of one run there are also scores on the half of the images that it knows best."""
    runs = [write_run(tmp_path / name, "finetune") for name in ("twice", "once")]
    for run, wrong in zip(runs, ({1, 2}, {1}), strict=True):
        score(run, photos, logits_for(photos, wrong))
    half = replace(photos, samples=photos.samples[8:])
    score(runs[0] / "half.onnx", half, logits_for(half, set()))
    leads = {row[0]: row[4] for row in page_of(tmp_path, *runs).rows if row[0].startswith(("twice", "once"))}
    assert sorted(leads.values())[1:] == ["the best", "the best on its images"]
    assert leads["once"] == "the best on its images"


def test_runs_without_common_data_are_not_compared(tmp_path: Path, photos: DataSet) -> None:
    runs = [write_run(tmp_path / name, "finetune") for name in ("one", "two")]
    score(runs[0], photos, logits_for(photos, set()))
    assert "No two of these runs were scored on the same data" in page_of(tmp_path, *runs).words
    assert "Comparison" not in page_of(tmp_path, runs[0], write_run(tmp_path / "pre", "pretrain")).words


def test_report_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", "finetune")
    report(run, out=tmp_path / "new" / "page.html")
    assert "Report of a run" in Read(tmp_path / "new" / "page.html").words
    assert "page.html" in capsys.readouterr().err.replace("\n", "")
    with pytest.raises(DataError, match="no run to report"):
        report(out=tmp_path / "page.html")


def test_foreign_run_connects_nowhere_and_its_images_are_reported(
    tmp_path: Path, photos: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", "finetune")
    page = tmp_path / "page.html"
    file = score(run, photos, logits_for(photos, {1}))
    values = json.loads(file.read_text())
    says = f"{page} contains images of {photos.name}"
    report(run, out=page)
    assert says in capsys.readouterr().err.splitlines()
    file.write_text(json.dumps({**values, "data": "shards:http://127.0.0.1:9/x"}))
    report(run, out=page)
    assert "contains images" not in capsys.readouterr().err
    assert "opened only if you type it" in Read(page).words
    assert "Confusion" in Read(page).words


def test_a_run_remembers_its_settings(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", "finetune", network={"fusion": None}))
    assert [run.setting(name) for name in ("config.seed", "config.network.fusion", "config.seed.x", "x.y")] == [
        7,
        None,
        None,
        None,
    ]
    steps, values = run.curves["loss"]
    assert steps.tolist() == [1, 2, 3]
    assert values.tolist() == [4, 2, 4 / 3]


def test_runs_are_compared_with_chance_and_a_histogram(tmp_path: Path, photos: DataSet) -> None:
    wrong = {"good": set(), "even": set(range(1, 10)), "colours": set(range(9))}
    runs = [write_run(tmp_path / name, "finetune", method="histogram" * (name == "colours")) for name in wrong]
    for run, indices in zip(runs, wrong.values(), strict=True):
        score(run, photos, logits_for(photos, indices))
    page = page_of(tmp_path, *runs)
    rows = {row[0]: row for row in page.rows if row and row[0] in wrong and len(row) == 7}
    groups = [str(i) for i in range(16)]
    right = {name: np.array([i not in indices for i in range(16)]) for name, indices in wrong.items()}
    good = paired_bootstrap(right["good"], right["colours"], groups)
    assert rows["good"][5] == f"{good.difference:+.3f} ({good.low:+.3f} to {good.high:+.3f})"
    assert rows["even"][5].startswith("▼ +0.000 (")
    assert rows["colours"][5] == "–"
    assert "Chance: 0.500 for the commonest class, 0.500 for one class of all." in page.words
    assert "▼: does not beat the colour histogram (run colours)" in page.words
    for file in (runs[1] / "evaluations").glob("*.jsonl"):
        # Only scores remain: 7 of 16, whose interval contains the histogram's 7 of 16.
        file.unlink()
    again = {row[0]: row for row in page_of(tmp_path, *runs).rows if row and row[0] == "even" and len(row) == 7}
    assert again["even"][5] == "▼ +0.000, not paired"
    assert "run uniemox finetune --method histogram to compare with" in page_of(tmp_path, *runs[:2]).words
    # A baseline that was trained and not scored is named.
    shutil.rmtree(runs[2] / "evaluations")
    words = page_of(tmp_path, *runs).words
    assert "Not scored on this data: colours; run uniemox evaluate with each of them." in words
