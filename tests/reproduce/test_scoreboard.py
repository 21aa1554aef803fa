"""The scoreboard of finished runs: merged machines, seeds, label maps and paired differences, in evaluate's format."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runs import uniemox_here
from uniemox.errors import DataError
from uniemox.intervals import interval_over_runs, paired_bootstrap
from uniemox_paper.scoreboard import Scoreboard, dataset_name, read_scoreboard
from uniemox_paper.scoreboard_page import CSV_FIELDS, write_scoreboard

FI = "fi:/data/ada/photos/FI"
ARTPHOTO = "artphoto:art"


def write_run(path: Path, *, data: str = FI, sha256: str = "a", kind: str = "finetune", **settings: Any) -> Path:
    """Write the record of a run.

    Args:
        path: The run's folder.
        data: Training data.
        sha256: Hash of its samples.
        kind: Kind of the run.
        settings: Settings that differ from those of a probe.
    """
    path.mkdir(parents=True)
    config = {"method": "probe", "init": "embedded", "seed": 0, "hardware": {"device": str(path)}, **settings}
    record = {"kind": kind, "config": config, "data": {"source": data, "sha256": sha256}, "versions": {}}
    (path / "config.json").write_text(json.dumps(record))
    return path


def score(
    run: Path,
    hits: Mapping[str, bool],
    *,
    data: str = FI,
    split: str = "test",
    labels: Sequence[str] = ("awe", "fear"),
    name: str = "scores",
    notes: Sequence[str] = (),
    label_map: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write an evaluation; images with an even number have the first label.

    Args:
        run: The run's folder.
        hits: Whether the prediction is right, by image number.
        data: The scored data.
        split: The scored split.
        labels: Two labels.
        name: Name of the files.
        notes: Notes of the evaluation.
        label_map: The user's label map; None: there is none.
    """
    (run / "evaluations").mkdir(exist_ok=True)
    lines = []
    confusion = np.zeros((2, 2), dtype=int)
    for key, is_hit in hits.items():
        truth = int(key) % 2
        answer = truth if is_hit else 1 - truth
        confusion[truth, answer] += 1
        probabilities = {labels[answer]: 0.9, labels[1 - answer]: 0.1}
        line = {"key": key, "group": key, "label": labels[truth], "predicted": labels[answer]}
        lines.append(json.dumps({**line, "probabilities": probabilities}))
    values = {"data": data, "split": split, "confusion": confusion.tolist(), "labels": list(labels)}
    values |= {"n": len(hits), "notes": list(notes), "label_map": dict(label_map or {})}
    (run / "evaluations" / f"{name}.json").write_text(json.dumps(values))
    (run / "evaluations" / f"{name}.jsonl").write_text("\n".join([*lines, ""]))


def drawn(n: int, share: float, seed: int, first: int = 0) -> dict[str, bool]:
    rng = np.random.default_rng(seed)
    return {str(number): bool(rng.random() < share) for number in range(first, first + n)}


def values_of(hits: Mapping[str, bool], keys: Sequence[str] = ()) -> list[float]:
    return [float(hits[key]) for key in sorted(keys or hits)]


def test_runs_of_two_machines_share_rows_and_columns(tmp_path: Path) -> None:
    """Folders of data differ between machines, and so do the settings of the hardware."""
    hits = [drawn(40, 0.7, seed) for seed in range(3)]
    for seed in (0, 1):
        run = write_run(tmp_path / "a" / str(seed), seed=seed)
        score(run, hits[seed])
    run = write_run(tmp_path / "b" / "x", data="fi:D/images", seed=2)
    score(run, hits[2], data="fi:D/images")
    other_hits = drawn(40, 0.4, 9)
    other = write_run(tmp_path / "b" / "y", data="fi:D/images", method="histogram", init="")
    score(other, other_hits, data="fi:D/images")
    board = read_scoreboard([tmp_path / "a" / "0", tmp_path / "a" / "1", run, other])
    assert board.columns == (("fi", "test"),)
    assert [(row.name, row.seeds) for row in board.rows] == [
        ("probe of embedded, trained on fi", (0, 1, 2)),
        ("histogram, trained on fi", (0,)),
    ]
    rows = np.array([values_of(item) for item in hits])
    cell = board.rows[0].cells["fi", "test"]
    assert (cell.runs, cell.n, cell.label_map, cell.is_best) == (3, 40, "", True)
    assert cell.accuracy == pytest.approx(rows.mean())
    assert cell.interval == interval_over_runs(rows, sorted(hits[0]))
    assert cell.chance == 0.5
    [test] = board.tests
    difference = paired_bootstrap(rows, np.array(values_of(other_hits)), sorted(other_hits))
    assert (test.n, test.difference, test.interval) == (40, difference.difference, difference.interval)
    below = board.rows[1].cells["fi", "test"].below_best
    assert below is not None
    assert below.second == board.rows[0].name
    assert below.difference == -difference.difference
    assert difference.interval is not None
    assert below.interval == (-difference.interval[1], -difference.interval[0])
    assert not board.notes


def write_answers(run: Path, truths: Mapping[str, str], values: Mapping[str, Sequence[float]], note: str = "") -> None:
    """Write an evaluation among awe, fear and joy.

    Args:
        run: The run's folder.
        truths: Label by image.
        values: Probabilities of the three labels by image.
        note: A note of the evaluation.
    """
    labels = ("awe", "fear", "joy")
    (run / "evaluations").mkdir()
    lines = []
    for key, truth in truths.items():
        answer = labels[int(np.argmax(values[key]))]
        probabilities = dict(zip(labels, values[key], strict=True))
        line = {"key": key, "group": key, "label": truth, "predicted": answer, "probabilities": probabilities}
        lines.append(json.dumps(line))
    scores = {"data": FI, "split": "test", "confusion": [[0] * 3] * 3, "labels": labels, "n": len(truths)}
    (run / "evaluations" / "x.json").write_text(json.dumps(scores | {"notes": [note]}))
    (run / "evaluations" / "x.jsonl").write_text("\n".join([*lines, ""]))


def test_rows_are_compared_among_the_labels_that_both_can_predict(tmp_path: Path) -> None:
    """A model whose labels are mapped never says joy, and has no images of joy; the map is stated."""
    rng = np.random.default_rng(5)
    truths = {f"{i}": ("awe", "fear", "joy")[i % 3] for i in range(60)}
    ours = {key: rng.dirichlet([1, 1, 1]).tolist() for key in truths}
    theirs = {key: [*rng.dirichlet([1, 1]).tolist(), 0.0] for key in truths}
    fewer = {key: truth for key, truth in truths.items() if truth != "joy"}
    first = write_run(tmp_path / "first")
    write_answers(first, truths, ours)
    second = write_run(tmp_path / "second", data="ube:u", sha256="b")
    write_answers(second, fewer, theirs, "labels are mapped: ube -> mikels: never reached: joy")
    board = read_scoreboard([first, second])
    [test] = board.tests
    assert (test.n, test.labels) == (40, 2)
    is_ours = np.array([(ours[key][0] > ours[key][1]) == (fewer[key] == "awe") for key in sorted(fewer)])
    is_theirs = np.array([(theirs[key][0] > theirs[key][1]) == (fewer[key] == "awe") for key in sorted(fewer)])
    assert test.difference == pytest.approx(is_ours.mean() - is_theirs.mean())
    assert test.interval == paired_bootstrap(is_ours, is_theirs, sorted(fewer)).interval
    cells = [row.cells["fi", "test"] for row in board.rows]
    assert [(cell.n, cell.labels, cell.label_map) for cell in cells] == [
        (60, 3, ""),
        (40, 2, "ube -> mikels: never reached: joy"),
    ]
    # Its own accuracy is among all three labels. The best row is not the one with the easier task.
    hits = [np.argmax(ours[key]) == ("awe", "fear", "joy").index(truth) for key, truth in truths.items()]
    assert cells[0].accuracy == pytest.approx(np.mean(hits))
    assert cells[1].accuracy > cells[0].accuracy
    assert (cells[0].is_best, cells[1].is_best) == (True, False)
    assert cells[1].below_best is not None
    assert cells[1].below_best.difference == -test.difference
    assert [row.mean for row in board.rows] == [cells[0].accuracy, None]


def test_runs_of_a_row_with_other_labels_are_left_out(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first")
    score(first, drawn(20, 0.8, 1))
    second = write_run(tmp_path / "second", seed=1)
    score(second, drawn(20, 0.8, 1), labels=("awe", "joy"))
    board = read_scoreboard([first, second])
    assert not board.rows[0].cells
    assert board.rows[0].mean is None
    assert "its runs were scored on other images or labels" in board.notes[0]


def test_mean_needs_a_score_in_every_column(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first")
    score(first, drawn(20, 0.8, 1))
    score(first, drawn(30, 0.5, 2), data=ARTPHOTO, split="all", name="other")
    second = write_run(tmp_path / "second", method="knn")
    score(second, drawn(20, 0.8, 3))
    board = read_scoreboard([first, second])
    assert board.columns == (("artphoto", "all"), ("fi", "test"))
    cells = board.rows[0].cells
    assert board.rows[0].mean == pytest.approx((cells["artphoto", "all"].accuracy + cells["fi", "test"].accuracy) / 2)
    assert board.rows[1].mean is None


def test_equal_names_show_the_settings_that_differ(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / str(lr), optimizer={"base_lr": lr, "decay": 0.1}) for lr in (0.1, 0.2)]
    for path in paths:
        score(path, drawn(20, 0.8, 1))
    assert [row.name for row in read_scoreboard(paths).rows] == [
        "probe of embedded, trained on fi (optimizer.base_lr 0.1)",
        "probe of embedded, trained on fi (optimizer.base_lr 0.2)",
    ]
    # The same settings on other images: the hash of the samples differs.
    other = write_run(tmp_path / "other", sha256="b", optimizer={"base_lr": 0.1, "decay": 0.1})
    score(other, drawn(20, 0.8, 1))
    assert [row.name for row in read_scoreboard([paths[0], other]).rows] == [
        "probe of embedded, trained on fi [1]",
        "probe of embedded, trained on fi [2]",
    ]


def test_folders_that_count_as_the_same_by_their_names_are_listed(tmp_path: Path) -> None:
    """Their images may differ: one may have the photographs, another the same names in black and white."""
    runs = []
    for number, folder in enumerate(("A", "B")):
        data = f"folder:{folder}/photos"
        runs.append(write_run(tmp_path / folder, data=data, seed=number, init=f"{folder}/runs/pretrain"))
        score(runs[-1], drawn(20, 0.8, number), data=data)
    board = read_scoreboard(runs)
    assert [row.seeds for row in board.rows] == [(0, 1)]
    assert [note.partition(" count")[0] for note in board.notes] == [
        "A/runs/pretrain and B/runs/pretrain",
        "folder:A/photos and folder:B/photos",
    ]


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    """Each folder costs its own scores only."""
    good = write_run(tmp_path / "good")
    score(good, drawn(20, 0.8, 1))
    score(good, drawn(20, 0.8, 1), name="twice")
    copy = write_run(tmp_path / "copy")
    score(copy, drawn(20, 0.8, 1))
    unscored = write_run(tmp_path / "unscored")
    pretraining = write_run(tmp_path / "pretraining", kind="pretrain")
    damaged = write_run(tmp_path / "damaged", seed=1)
    score(damaged, drawn(20, 0.8, 1))
    (damaged / "evaluations" / "scores.json").write_text("{")
    cut = write_run(tmp_path / "cut", seed=2)
    score(cut, drawn(20, 0.8, 1))
    (cut / "evaluations" / "scores.jsonl").write_text('{"key": ')
    board = read_scoreboard([good, copy, unscored, pretraining, damaged, cut, tmp_path / "none"])
    assert [row.seeds for row in board.rows] == [(0,)]
    faults = [
        "good/evaluations/twice.json: the run was scored on fi, split test twice",
        "unscored has no predictions of labels; run uniemox evaluate --model",
        "pretraining is a run of kind pretrain",
        "damaged/evaluations/scores.json: not JSON",
        "damaged has no predictions",
        "cut/evaluations/scores.json: The images' predictions can't be read",
        "cut has no predictions",
        "none/config.json can't be read",
        "and data of the same names and labels",
    ]
    assert len(board.notes) == len(faults)
    for fault, note in zip(faults, board.notes, strict=True):
        assert fault in note
    with pytest.raises(DataError, match=r"no folder has a fine-tuning run with predictions of labels: .*none"):
        read_scoreboard([tmp_path / "none"])


@pytest.mark.parametrize(
    ("hits", "labels", "fault"),
    [
        (drawn(20, 0.8, 1, first=100), ("awe", "fear"), "they were scored on different images"),
        (drawn(20, 0.8, 1), ("fear", "awe"), "20 images have another label, 0 among them"),
    ],
)
def test_rows_of_other_images_or_labels_are_not_compared(
    tmp_path: Path, hits: dict[str, bool], labels: tuple[str, str], fault: str
) -> None:
    first = write_run(tmp_path / "first")
    score(first, drawn(20, 1.0, 1))
    second = write_run(tmp_path / "second", method="knn")
    score(second, hits, labels=labels)
    board = read_scoreboard([first, second])
    assert not board.tests
    assert fault in board.notes[0]
    cell = board.rows[1].cells["fi", "test"]
    assert (cell.below_best, cell.is_best, cell.is_near_best) == (None, False, False)
    write_scoreboard(board, tmp_path / "board.html")
    assert "not comparable with the best" in (tmp_path / "board.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("fi:/data/FI", "fi"),
        ("fi:C?splits=/a/s.json&label=vote", "fi?label=vote"),
        ("folder:/data/mine", "folder:mine"),
        ("mypackage.readers:read:/data/x", "mypackage.readers:read:x"),
        ("not a source", "not a source"),
    ],
)
def test_names_of_data_sets_are_the_same_on_all_machines(source: str, name: str) -> None:
    assert dataset_name(source) == name


def board_of(tmp_path: Path) -> Scoreboard:
    first = write_run(tmp_path / "first")
    score(first, drawn(20, 1.0, 1), notes=("labels are mapped: <a> -> b: x",))
    second = write_run(tmp_path / "second", method="<b>knn</b>")
    score(second, drawn(20, 0.2, 2))
    return read_scoreboard([first, second, tmp_path / "none"])


def test_page_table_and_json_have_the_same_figures(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    write_scoreboard(board, tmp_path / "board.html")
    page = (tmp_path / "board.html").read_text("utf-8")
    assert "&lt;b&gt;knn&lt;/b&gt;" in page
    assert "&lt;a&gt; -&gt; b: x" in page
    assert "none/config.json can&#39;t be read" in page
    assert page.count('class="best"') == 1
    with (tmp_path / "board.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == CSV_FIELDS
    assert [float(row["accuracy"]) for row in rows] == [row.cells["fi", "test"].accuracy for row in board.rows]
    assert float(rows[1]["below_best"]) == pytest.approx(-board.tests[0].difference)
    assert rows[0]["below_best"] == ""
    values = json.loads((tmp_path / "board.json").read_text("utf-8"))
    assert values["tests"][0]["difference"] == board.tests[0].difference
    assert values["rows"][1]["cells"][0]["column"] == "fi, split test"


def test_board_command_writes_the_page_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    board_of(tmp_path)
    out = tmp_path / "board.html"
    done = uniemox_here("reproduce", "board", tmp_path / "first", tmp_path / "second", tmp_path / "none", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "probe of embedded, trained on fi" in " ".join(done.stdout.split())
    assert "left out" in done.stderr
    assert out.exists()
    for words, message in (((), "give at least one folder"), ((tmp_path, "--out", "x.csv"), "ends in .html")):
        done = uniemox_here("reproduce", "board", *words)
        assert (done.returncode, message in done.stderr) == (1, True)


def test_scores_by_different_label_maps_are_not_joined(tmp_path: Path) -> None:
    """Neither the seeds of a row nor two rows; the map decides which answers are right."""
    images = drawn(40, 0.6, 0)
    by_seed = [write_run(tmp_path / f"seed{seed}", seed=seed) for seed in (0, 1)]
    other = write_run(tmp_path / "other", method="lora")
    narrow = {"awe": ["awe"], "fear": ["fear"]}
    wide = {"awe": ["awe", "amusement"], "fear": ["fear"]}
    score(by_seed[0], images, label_map=narrow)
    score(by_seed[1], images, label_map=wide)
    score(other, images, label_map=wide)
    board = read_scoreboard([*by_seed, other])
    assert [len(row.cells) for row in board.rows] == [0, 1]
    assert any("its runs were scored on other images or labels, or by other label maps" in note for note in board.notes)
    board = read_scoreboard([by_seed[0], other])
    assert board.tests == ()
    assert any("by different label maps (awe=awe,fear=fear and awe=awe+amusement,fear=fear)" in n for n in board.notes)
    score(other, images, label_map=narrow)
    [test] = read_scoreboard([by_seed[0], other]).tests
    assert test.difference == 0
