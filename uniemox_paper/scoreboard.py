"""Scoreboard of finished runs: trained on one data set, scored on all, from any number of machines.

A row is a setting and its training data, with one run per seed. A column is a scored data set and split. The
predictions that `evaluate` saved for each image make the intervals and the paired tests, so a copy of a run's
config.json and evaluations/ is enough.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from uniemox.data import FILES, parse_source, public_name
from uniemox.errors import ConfigError, DataError
from uniemox.evaluate import Predictions, SavedEvaluation, read_evaluation
from uniemox.intervals import Interval, clip_to_share, interval_over_runs
from uniemox.io import CONFIG, EVALUATIONS, read_json
from uniemox_paper.row_answers import RowAnswers, difference_of, join_answers

# Settings that change no result, or only by chance.
WITHOUT = ("seed", "hardware", "save")
# Kinds of data whose name says nothing about the images.
LOCAL_KINDS = ("folder", "csv", "shards", "synthetic")
# Start of a note about the map from a model's labels to those of the data, in evaluations without `mapped_labels`.
MAPPED = "labels are mapped: "

Column = tuple[str, str]
"""Name of a data set without folders, and split."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Training data of a run, as config.json describes them."""

    source: str
    sha256: str = ""
    """Hash of the list of samples."""


@dataclass(frozen=True, slots=True)
class RunFile:
    """Fields of config.json that the scoreboard reads."""

    kind: str
    config: dict[str, Any]
    data: TrainingData


@dataclass(frozen=True, slots=True, kw_only=True)
class RunScores:
    """Saved predictions of a run for one column."""

    predictions: Predictions
    mapping: str
    """Map from the model's labels to those of the data, in words; empty without one."""
    label_map: str
    """The user's label map, as --map has it; empty without one."""
    source: str
    """Data that were scored, with their folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRun:
    """A finished run with its saved predictions."""

    path: Path
    settings: Mapping[str, str]
    """Settings that decide the result, by dotted name."""
    init: str
    """Initial weights, with their folder."""
    training: TrainingData
    seed: int
    scores: Mapping[Column, RunScores]

    @property
    def name(self) -> str:
        """Method and initial weights."""
        parts = [self.settings.get("method", "finetune"), self.settings.get("init", "")]
        return " of ".join(filter(None, parts))

    @property
    def row_key(self) -> tuple[object, ...]:
        """Identity of the run but for its seed."""
        # Samples with the same hash have the same names and labels, in whatever folder of whatever machine they are.
        data = self.training.sha256 or self.training.source
        return (tuple(sorted(self.settings.items())), data)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """Difference of two rows on a column, on the images and among the labels of both."""

    first: str
    second: str
    column: Column
    n: int
    """Number of these images."""
    labels: int
    """Number of these labels."""
    difference: float
    """Accuracy of the first row minus that of the second, -1 to 1."""
    interval: Interval | None
    """95 % interval; None if a row has two seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardCell:
    """Score of a row on a column."""

    runs: int
    """Number of runs with this score, one per seed."""
    n: int
    """Number of images that all of them were scored on."""
    labels: int
    """Number of labels that they can predict."""
    accuracy: float
    """Mean over runs, 0 to 1."""
    interval: Interval | None
    """95 % interval over images for one run, over seeds and images for three or more; None for two."""
    chance: float
    """Share of the most common class of these images."""
    label_map: str
    """Map from the model's labels to those of the data; empty if they are the same."""
    is_best: bool
    """True for the row with the highest accuracy, of those that can predict the most labels."""
    below_best: PairedTest | None
    """Difference to that row; None for the row itself, and if they can't be compared."""

    @property
    def is_near_best(self) -> bool:
        """True for the best row, and if the interval of the difference to it contains 0."""
        if self.below_best is None or self.below_best.interval is None:
            return self.is_best
        return self.below_best.interval[1] >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRow:
    """Runs with the same settings and training data."""

    name: str
    trained_on: str
    seeds: tuple[int, ...]
    cells: Mapping[Column, BoardCell]
    mean: float | None
    """Mean accuracy over all columns; None if one has no score, or one among fewer labels than that of another row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoreboard:
    """Scores of all rows on all columns."""

    columns: tuple[Column, ...]
    rows: tuple[BoardRow, ...]
    tests: tuple[PairedTest, ...]
    notes: tuple[str, ...]
    """Folders and files that were left out, with the reason."""


@dataclass(slots=True)
class _Reader:
    """Reads runs, and collects what was left out."""

    notes: list[str] = field(default_factory=list)

    def read(self, path: Path) -> ScoredRun | None:
        """Return a run with its predictions; None if it has none."""
        try:
            record = read_json(path / CONFIG, RunFile, remedy="copy config.json from the machine of the run")
        except DataError as error:
            self.notes.append(f"left out: {error}")
            return None
        if record.kind != "finetune":
            self.notes.append(f"left out: {path} is a run of kind {record.kind}, which predicts no labels")
            return None
        scores = self._read_scores(path)
        if not scores:
            self.notes.append(f"left out: {path} has no predictions of labels; run uniemox evaluate --model {path}")
            return None
        settings = _flat({name: value for name, value in record.config.items() if name not in WITHOUT})
        init = settings.get("init", "")
        settings["init"] = public_name(init)
        return ScoredRun(
            path=path,
            settings=settings,
            init=init,
            training=record.data,
            seed=int(record.config.get("seed", 0)),
            scores=scores,
        )

    def _read_scores(self, path: Path) -> dict[Column, RunScores]:
        """Return the scores of a run by column; adds a note for each file that is left out."""
        scores: dict[Column, RunScores] = {}
        for file in sorted((path / EVALUATIONS).glob("*.json")):
            evaluation = self._read_evaluation(file)
            if evaluation is None or evaluation.predictions is None:
                continue
            column = (dataset_name(evaluation.data), evaluation.split or "all")
            if column in scores:
                self.notes.append(
                    f"left out: {file}: the run was scored on {title_of(column)} twice; remove one of the two"
                )
                continue
            scores[column] = RunScores(
                predictions=evaluation.predictions,
                mapping=_mapping_of(evaluation),
                label_map=evaluation.label_map_text,
                source=evaluation.data,
            )
        return scores

    def _read_evaluation(self, file: Path) -> SavedEvaluation | None:
        """Return an evaluation with predictions of labels; None for others, with a note."""
        try:
            evaluation = read_evaluation(file)
        except DataError as error:
            self.notes.append(f"left out: {error}")
            return None
        if evaluation.predictions is None:
            reason = evaluation.missing or "it has distributions or ratings, not labels"
            self.notes.append(f"left out: {file}: {reason}")
            return None
        return evaluation


def _mapping_of(evaluation: SavedEvaluation) -> str:
    """Return the map from the model's labels to those of the data, in words; empty without one."""
    mapped_labels = evaluation.values.get("mapped_labels")
    if isinstance(mapped_labels, str):
        return mapped_labels
    notes = evaluation.values.get("notes", ())
    return "; ".join(note.removeprefix(MAPPED) for note in notes if note.startswith(MAPPED))


def read_scoreboard(paths: Sequence[Path]) -> Scoreboard:
    """Return the scoreboard of runs.

    Args:
        paths: Folders of fine-tuning runs; others are left out with a note.

    Raises:
        DataError: If no folder has a run with predictions.
    """
    reader = _Reader()
    runs = [run for path in paths if (run := reader.read(path)) is not None]
    if not runs:
        reasons = "; ".join(reader.notes[:3])
        raise DataError(f"no folder has a fine-tuning run with predictions of labels: {reasons}")
    groups: dict[tuple[object, ...], dict[int, ScoredRun]] = {}
    for run in runs:
        by_seed = groups.setdefault(run.row_key, {})
        if run.seed in by_seed:
            other = by_seed[run.seed].path
            reader.notes.append(
                f"left out: {run.path} has the settings and seed of {other}, and data of the same names and labels"
            )
            continue
        by_seed[run.seed] = run
    members = [[by_seed[seed] for seed in sorted(by_seed)] for by_seed in groups.values()]
    names = _row_names(members)
    columns = tuple(sorted({column for run in runs for column in run.scores}))
    notes = reader.notes
    notes += _joined_by_name(runs)
    answers = {name: _answers_by_column(name, group, notes) for name, group in zip(names, members, strict=True)}
    tests = _paired_tests(answers, columns, notes)
    rows = []
    for name, group in zip(names, members, strict=True):
        cells = _cells(name, group, answers, tests)
        row = BoardRow(
            name=name,
            trained_on=dataset_name(group[0].training.source),
            seeds=tuple(run.seed for run in group),
            cells=cells,
            mean=_mean(cells, columns, answers),
        )
        rows.append(row)
    return Scoreboard(columns=columns, rows=tuple(rows), tests=tests, notes=tuple(notes))


def _joined_by_name(runs: Sequence[ScoredRun]) -> list[str]:
    """Return a line for data or initial weights of several folders that count as the same because of their names.

    Of a run on another machine only the names are known.
    """
    by_name: dict[tuple[str, ...], set[str]] = {}
    for run in runs:
        by_name.setdefault(("initial weights", run.settings["init"]), set()).add(run.init)
        if _is_local(run.training.source):
            data = run.training.sha256 or run.training.source
            by_name.setdefault(("training data", data), set()).add(run.training.source)
        for column, scores in run.scores.items():
            if _is_local(scores.source):
                by_name.setdefault(("scored data", *column), set()).add(scores.source)
    several = sorted({tuple(sorted(names)) for names in by_name.values() if len(names) > 1})
    return [
        f"{' and '.join(names)} count as the same, because their names are; if the images or weights differ, rename one"
        for names in several
    ]


Answers = Mapping[str, Mapping[Column, RowAnswers]]
"""Answers by row and column."""


def _mean(cells: Mapping[Column, BoardCell], columns: Sequence[Column], answers: Answers) -> float | None:
    """Return the mean accuracy; None if a column has no score, or one among fewer labels than that of another row."""
    for column in columns:
        if column not in cells or cells[column].labels < _most_labels(answers, column):
            return None
    return float(np.mean([cells[column].accuracy for column in columns]))


def _most_labels(answers: Answers, column: Column) -> int:
    """Return the highest number of labels that a row can predict."""
    return max(len(by_column[column].predictable) for by_column in answers.values() if column in by_column)


def _answers_by_column(name: str, runs: Sequence[ScoredRun], notes: list[str]) -> dict[Column, RowAnswers]:
    """Return the answers of a row's runs by column, from the runs that were scored on it; adds notes on the others."""
    result = {}
    for column in sorted({column for run in runs for column in run.scores}):
        scores = [run.scores[column] for run in runs if column in run.scores]
        answers = join_answers([item.predictions for item in scores], [item.label_map for item in scores])
        if answers is None:
            notes.append(
                f"left out: {name} on {title_of(column)}: its runs were scored on other images or labels, or by other "
                "label maps"
            )
        else:
            result[column] = answers
    return result


def _paired_tests(answers: Answers, columns: Sequence[Column], notes: list[str]) -> tuple[PairedTest, ...]:
    """Return the difference of each pair of rows on each column; adds a note for each pair without one."""
    tests = []
    for column in columns:
        rows = [name for name in answers if column in answers[name]]
        for first, second in itertools.combinations(rows, 2):
            difference = difference_of(answers[first][column], answers[second][column])
            if isinstance(difference, str):
                notes.append(f"{first} and {second} on {title_of(column)}: {difference}, so they are not compared")
                continue
            test = PairedTest(
                first=first,
                second=second,
                column=column,
                n=difference.n,
                labels=difference.labels,
                difference=difference.paired.difference,
                interval=difference.paired.interval,
            )
            tests.append(test)
    return tuple(tests)


def _best_row(answers: Answers, column: Column) -> str:
    """Return the row with the highest accuracy, of those that can predict the most labels."""
    most_labels = _most_labels(answers, column)
    rows = [name for name in answers if column in answers[name]]
    candidates = [name for name in rows if len(answers[name][column].predictable) == most_labels]
    return max(candidates, key=lambda name: float(answers[name][column].hits.mean()))


def _cells(
    name: str, runs: Sequence[ScoredRun], answers: Answers, tests: Sequence[PairedTest]
) -> dict[Column, BoardCell]:
    """Return the cells of a row."""
    cells = {}
    for column, of_row in answers[name].items():
        counts = np.unique(of_row.truths, return_counts=True)[1]
        mappings = {run.scores[column].mapping for run in runs if column in run.scores}
        best = _best_row(answers, column)
        cells[column] = BoardCell(
            runs=len(of_row.hits),
            n=len(of_row.keys),
            labels=len(of_row.predictable),
            accuracy=float(of_row.hits.mean()),
            interval=clip_to_share(interval_over_runs(of_row.hits, of_row.groups)),
            chance=float(counts.max() / counts.sum()),
            label_map="; ".join(sorted(filter(None, mappings))),
            is_best=name == best,
            below_best=_find_test(tests, name, best, column),
        )
    return cells


def _find_test(tests: Sequence[PairedTest], first: str, second: str, column: Column) -> PairedTest | None:
    """Return the test of a row against another on a column; None if they were not compared."""
    for test in tests:
        if (test.first, test.second, test.column) == (first, second, column):
            return test
        if (test.first, test.second, test.column) == (second, first, column):
            interval = test.interval
            if interval is not None:
                interval = (-interval[1], -interval[0])
            return replace(test, first=first, second=second, difference=-test.difference, interval=interval)
    return None


def dataset_name(source: str) -> str:
    """Return the name of a data set that is the same on all machines: the kind and options of a published one.

    Others keep the last part of their path.

    >>> dataset_name("fi:/data/ada/FI"), dataset_name("folder:/data/ada/mine")
    ('fi', 'folder:mine')
    """
    if _is_local(source):
        return public_name(source)
    kind, _, options = parse_source(source)
    words = "&".join(f"{name}={value}" for name, value in sorted(options.items()) if name not in FILES)
    return f"{kind}?{words}" if words else kind


def _is_local(source: str) -> bool:
    """Return True for data whose kind says nothing about the images."""
    try:
        kind, _, _ = parse_source(source)
    except ConfigError:
        return True
    return kind in LOCAL_KINDS or ":" in kind


def _row_names(members: Sequence[Sequence[ScoredRun]]) -> list[str]:
    """Return a name for each row; rows that share name and training data are told apart by the settings that differ."""
    names = [f"{group[0].name}, trained on {dataset_name(group[0].training.source)}" for group in members]
    result: list[str] = []
    for name, group in zip(names, members, strict=True):
        same = [other[0].settings for other, other_name in zip(members, names, strict=True) if other_name == name]
        settings = group[0].settings
        differing = sorted({key for other in same for key in other if len({item.get(key) for item in same}) > 1})
        words = ", ".join(f"{key} {settings.get(key, 'none')}" for key in differing)
        result.append(f"{name} ({words})" if words else name)
    return [f"{name} [{i}]" if result.count(name) > 1 else name for i, name in enumerate(result, start=1)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings by dotted name, as text."""
    result: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            result |= _flat(value, f"{prefix}{name}.")
        else:
            result[f"{prefix}{name}"] = str(value)
    return result


def title_of(column: Column) -> str:
    """Return the name of a column."""
    data, split = column
    return f"{data}, split {split}"
