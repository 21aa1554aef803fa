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
from numpy.typing import NDArray

from uniemox.data import FILES, parse_source, public_name
from uniemox.errors import ConfigError, DataError
from uniemox.evaluate import Predictions, read_evaluation
from uniemox.intervals import Interval, interval_over_runs, paired_bootstrap
from uniemox.io import EVALUATIONS, read_json

CONFIG = "config.json"
# Settings that change no result, or only by chance.
WITHOUT = ("seed", "hardware", "save")
# Kinds of data whose name says nothing about the images.
LOCAL_KINDS = ("folder", "csv", "shards", "synthetic")
# Start of a note of `evaluate` about the map from a model's labels to those of the data.
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
class ScoredRun:
    """A finished run with its saved predictions."""

    path: Path
    settings: Mapping[str, str]
    """Settings that decide the result, by dotted name."""
    training: TrainingData
    seed: int
    predictions: Mapping[Column, Predictions]
    maps: Mapping[Column, str]
    """Map from the model's labels to those of the data, in words."""

    @property
    def name(self) -> str:
        """Method and initial weights."""
        parts = [self.settings.get("method", "finetune"), self.settings.get("init", "")]
        return " of ".join(filter(None, parts))

    @property
    def row_key(self) -> tuple[object, ...]:
        """Identity of the run but for its seed."""
        # Samples with the same hash are the same on every machine, in whatever folder they are.
        data = self.training.sha256 or self.training.source
        return (tuple(sorted(self.settings.items())), data)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedTest:
    """Difference of two rows on a column, on the images that both were scored on."""

    first: str
    second: str
    column: Column
    n: int
    """Number of these images."""
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
    accuracy: float
    """Mean over runs, 0 to 1."""
    interval: Interval | None
    """95 % interval over images for one run, over seeds and images for three or more; None for two."""
    chance: float
    """Share of the most common class of these images."""
    label_map: str
    """Map from the model's labels to those of the data; empty if they are the same."""
    is_best: bool
    """True for the row with the highest accuracy of the column."""
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
    """Mean accuracy over all columns; None if one has no score."""


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
        predictions: dict[Column, Predictions] = {}
        maps: dict[Column, str] = {}
        for file in sorted((path / EVALUATIONS).glob("*.json")):
            self._read_evaluation(file, predictions, maps)
        if not predictions:
            self.notes.append(f"left out: {path} has no predictions of labels; run uniemox evaluate --model {path}")
            return None
        settings = _flat({name: value for name, value in record.config.items() if name not in WITHOUT})
        settings["init"] = public_name(settings.get("init", ""))
        return ScoredRun(
            path=path,
            settings=settings,
            training=record.data,
            seed=int(record.config.get("seed", 0)),
            predictions=predictions,
            maps=maps,
        )

    def _read_evaluation(self, file: Path, predictions: dict[Column, Predictions], maps: dict[Column, str]) -> None:
        """Add the predictions of an evaluation, or a note."""
        try:
            evaluation = read_evaluation(file)
        except DataError as error:
            self.notes.append(f"left out: {error}")
            return
        if evaluation.predictions is None:
            reason = evaluation.missing or "it has distributions or ratings, not labels"
            self.notes.append(f"left out: {file}: {reason}")
            return
        column = (dataset_name(evaluation.data), evaluation.split or "all")
        if column in predictions:
            self.notes.append(
                f"left out: {file}: the run was scored on {title_of(column)} twice; remove one of the two"
            )
            return
        predictions[column] = evaluation.predictions
        maps[column] = "; ".join(
            note.removeprefix(MAPPED) for note in evaluation.values.get("notes", ()) if note.startswith(MAPPED)
        )


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
            reader.notes.append(f"left out: {run.path} has the settings, data and seed of {other}")
            continue
        by_seed[run.seed] = run
    members = [[by_seed[seed] for seed in sorted(by_seed)] for by_seed in groups.values()]
    names = _row_names(members)
    columns = tuple(sorted({column for run in runs for column in run.predictions}))
    hits = {name: _hits_by_column(group) for name, group in zip(names, members, strict=True)}
    tests, conflicts = _paired_tests(hits, columns)
    rows = []
    for name, group in zip(names, members, strict=True):
        cells = _cells(name, group, hits, tests)
        row = BoardRow(
            name=name,
            trained_on=dataset_name(group[0].training.source),
            seeds=tuple(run.seed for run in group),
            cells=cells,
            mean=_mean(cells, columns),
        )
        rows.append(row)
    return Scoreboard(columns=columns, rows=tuple(rows), tests=tests, notes=(*reader.notes, *conflicts))


def _mean(cells: Mapping[Column, BoardCell], columns: Sequence[Column]) -> float | None:
    if any(column not in cells for column in columns):
        return None
    return float(np.mean([cells[column].accuracy for column in columns]))


@dataclass(frozen=True, slots=True)
class _Hits:
    """Right and wrong predictions of a row on a column."""

    hits: NDArray[np.float64]  # (S, N), a row per seed
    groups: tuple[str, ...]  # N
    keys: tuple[str, ...]  # N
    words: tuple[str, ...]  # N, true labels
    labels: frozenset[str]
    """Labels among which the predictions were scored."""

    def of(self, keys: Sequence[str]) -> NDArray[np.float64]:
        """Return the hits of these images, (S, K)."""
        place = {key: i for i, key in enumerate(self.keys)}
        return self.hits[:, [place[key] for key in keys]]


def _hits_by_column(runs: Sequence[ScoredRun]) -> dict[Column, _Hits]:
    """Return the predictions of a row's runs on the images that all of them were scored on, by column.

    A column that one of the runs lacks is that of the others.
    """
    result = {}
    for column in sorted({column for run in runs for column in run.predictions}):
        predictions = [run.predictions[column] for run in runs if column in run.predictions]
        keys = sorted(set.intersection(*(set(item.keys) for item in predictions)))
        if not keys:
            continue
        rows = []
        for item in predictions:
            place = {key: i for i, key in enumerate(item.keys)}
            rows.append(item.is_right[[place[key] for key in keys]])
        first = predictions[0]
        place = {key: i for i, key in enumerate(first.keys)}
        result[column] = _Hits(
            hits=np.array(rows, dtype=np.float64),
            groups=tuple(first.groups[place[key]] for key in keys),
            keys=tuple(keys),
            words=tuple(first.words[place[key]] for key in keys),
            labels=frozenset(first.scored_labels),
        )
    return result


def _paired_tests(
    hits: Mapping[str, Mapping[Column, _Hits]], columns: Sequence[Column]
) -> tuple[tuple[PairedTest, ...], list[str]]:
    """Return the difference of each pair of rows on each column, and a note for each pair without one."""
    tests = []
    notes = []
    for column in columns:
        rows = [name for name in hits if column in hits[name]]
        for first, second in itertools.combinations(rows, 2):
            ours = hits[first][column]
            theirs = hits[second][column]
            keys = sorted(set(ours.keys) & set(theirs.keys))
            fault = _conflict(ours, theirs, keys)
            if fault:
                notes.append(f"{first} and {second} on {title_of(column)}: {fault}, so they are not compared")
                continue
            group_of = dict(zip(ours.keys, ours.groups, strict=True))
            difference = paired_bootstrap(ours.of(keys), theirs.of(keys), [group_of[key] for key in keys])
            tests.append(
                PairedTest(
                    first=first,
                    second=second,
                    column=column,
                    n=len(keys),
                    difference=difference.difference,
                    interval=difference.interval,
                )
            )
    return tuple(tests), notes


def _conflict(ours: _Hits, theirs: _Hits, keys: Sequence[str]) -> str:
    """Return why two rows can't be compared on these images; empty if they can."""
    if not keys:
        return "they were scored on different images"
    if ours.labels != theirs.labels:
        return ""
    our_words = dict(zip(ours.keys, ours.words, strict=True))
    their_words = dict(zip(theirs.keys, theirs.words, strict=True))
    other = [key for key in keys if our_words[key] != their_words[key]]
    if other:
        return f"{len(other)} images have another label, {other[0]} among them"
    return ""


def _cells(
    name: str, runs: Sequence[ScoredRun], hits: Mapping[str, Mapping[Column, _Hits]], tests: Sequence[PairedTest]
) -> dict[Column, BoardCell]:
    """Return the cells of a row."""
    cells = {}
    for column, own_hits in hits[name].items():
        counts = np.unique(own_hits.words, return_counts=True)[1]
        means = {row: float(by_column[column].hits.mean()) for row, by_column in hits.items() if column in by_column}
        best = max(means, key=means.__getitem__)
        cells[column] = BoardCell(
            runs=len(own_hits.hits),
            n=len(own_hits.keys),
            accuracy=means[name],
            interval=_clipped(interval_over_runs(own_hits.hits, own_hits.groups)),
            chance=float(counts.max() / counts.sum()),
            label_map="; ".join(sorted({run.maps[column] for run in runs if run.maps.get(column)})),
            is_best=name == best,
            below_best=_find_test(tests, name, best, column),
        )
    return cells


def _clipped(interval: Interval | None) -> Interval | None:
    """Cut the interval of an accuracy off at 0 and 1."""
    if interval is None:
        return None
    return max(0.0, interval[0]), min(1.0, interval[1])


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
    try:
        kind, _, options = parse_source(source)
    except ConfigError:
        return public_name(source)
    if kind in LOCAL_KINDS or ":" in kind:
        return public_name(source)
    words = "&".join(f"{name}={value}" for name, value in sorted(options.items()) if name not in FILES)
    return f"{kind}?{words}" if words else kind


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
