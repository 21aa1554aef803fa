"""Read a finished run: record, journal, evaluations, predictions."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError, DataError
from uniemox.evaluate.metrics import Array
from uniemox.io.files import CONFIG, EVALUATIONS, METRICS, WEIGHTS, open_regular
from uniemox.io.html import render
from uniemox.training.journal import IMAGES, read_metrics
from uniemox.training.run_folder import read_json

KINDS = {"pretrain": "pre-training", "finetune": "fine-tuning"}
MEASURES = {"confusion": "accuracy", "kl": "kl", "ccc": "ccc"}
"""Measure by which evaluations are ranked, by a field that only scores of this kind have."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions of a classifier for the N images of an evaluation, in the order of their keys."""

    keys: tuple[str, ...]
    groups: tuple[str, ...]  # N; samples of one group are resampled together
    labels: NDArray[np.int64]  # (N,), indices in the evaluation's labels
    predicted: NDArray[np.int64]  # (N,)
    probabilities: Array  # (N, E), 0 to 1
    scored_labels: tuple[str, ...]  # E, the labels among which the answers were scored

    @property
    def words(self) -> list[str]:
        """Label of every image."""
        return [self.scored_labels[i] for i in self.labels]

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """(N,), True for right predictions."""
        return self.labels == self.predicted


def title_of(data: str, split: str | None, persons: object) -> str:
    """Return the name of scored data: the data set, its split, and the file of people, if there is one."""
    parts = [data]
    if split:
        parts.append(f"split {split}")
    if persons:
        parts.append(f"people of {persons}")
    return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class SavedEvaluation:
    """Evaluation as read from its file."""

    data: str
    split: str | None
    values: Mapping[str, Any]
    predictions: Predictions | None
    """None for distributions and affect, or if they can't be read; then `missing` has the reason."""
    missing: str | None

    @property
    def title(self) -> str:
        """Name of the scored data."""
        return title_of(self.data, self.split, self.values.get("persons"))

    @property
    def measure(self) -> str:
        """Score that is compared first: accuracy, kl or ccc."""
        return next(measure for name, measure in MEASURES.items() if name in self.values)


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run of pre-training or fine-tuning."""

    path: Path
    kind: str
    """pretrain or finetune."""
    record: Mapping[str, Any]
    """Content of config.json."""
    curves: Mapping[str, tuple[NDArray[np.int64], Array]]
    """Steps, (S,), and values at them, by name."""
    pictures: tuple[Path, ...]
    """Images of reconstructions, the earliest first."""
    evaluations: tuple[SavedEvaluation, ...]
    missing: tuple[str, ...]
    """Missing or unreadable parts, one line each."""

    def _repr_html_(self) -> str:
        """Show the run in a notebook: training data, last value of each curve, scores."""
        rows = [(name, f"{values[-1]:.4g}, step {steps[-1]:,}") for name, (steps, values) in self.curves.items()]
        scored = [
            (
                f"{evaluation.measure} on {evaluation.title}",
                f"{evaluation.values[evaluation.measure]:.3f} of {evaluation.values['n']:,} images",
            )
            for evaluation in self.evaluations
        ]
        return render("evaluate/run.html", run=self, kind=KINDS[self.kind], rows=[*rows, *scored])

    @property
    def kept(self) -> str | None:
        """Step and learning rate whose weights held-out images chose, if a frozen encoder was used; else None."""
        if "kept_lr" not in self.curves:
            return None
        steps, lrs = self.curves["kept_lr"]
        if steps[-1]:
            return f"step {steps[-1]}, rate {lrs[-1]:g}"
        return "start, no step was better"

    def setting(self, name: str) -> Any:
        """Return the record's value under a dotted name; None if there is none."""
        value: Any = self.record
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def score_lines(path: Path) -> list[str]:
    """Return a line of Markdown for each evaluation of a run, with its main score.

    Raises:
        DataError: If there is no run.
    """
    lines = []
    for evaluation in read_run(path).evaluations:
        value = evaluation.values[evaluation.measure]
        lines.append(f"- {evaluation.title}, {evaluation.values['n']:,} images: {evaluation.measure} {value:.3f}")
    return lines


def read_run(path: Path) -> SavedRun:
    """Read everything about a run.

    Raises:
        DataError: If there is no run, or if config.json can't be read; names the folder.
    """
    if not (path / CONFIG).is_file():
        raise DataError(
            f"{path} has no run: there is no {CONFIG}; give a folder that pretrain or finetune wrote (--out)"
        )
    try:
        record = read_json(path / CONFIG)
    except ConfigError as error:
        raise DataError(f"{path} has no readable run: {error}") from error
    if record.get("kind") not in KINDS:
        raise DataError(f"{path} has no run of {' or '.join(KINDS)}: {CONFIG} has kind {record.get('kind')!r}")
    missing = []
    if not (path / WEIGHTS).exists():
        missing.append(f"There is no {WEIGHTS}: the run is not finished.")
    curves: dict[str, tuple[NDArray[np.int64], Array]] = {}
    if (path / METRICS).exists():
        try:
            curves = curves_of(read_metrics(path))
        except DataError as error:
            missing.append(f"The curves can't be read: {error}")
    evaluations, unreadable = read_evaluations(path)
    missing += unreadable
    images = tuple(sorted((path / IMAGES).glob("reconstruction-*.png")))
    return SavedRun(path, record["kind"], record, curves, images, tuple(evaluations), tuple(missing))


def read_evaluations(path: Path) -> tuple[list[SavedEvaluation], list[str]]:
    """Return the evaluations in a folder, and a sentence for each that can't be read."""
    evaluations = []
    missing = []
    for file in sorted((path / EVALUATIONS).glob("*.json")):
        try:
            evaluations.append(read_evaluation(file))
        except DataError as error:
            missing.append(f"An evaluation can't be read: {error}")
    return evaluations, missing


def curves_of(metrics: list[dict[str, float]]) -> dict[str, tuple[NDArray[np.int64], Array]]:
    """Return the steps and values of each logged quantity, by name."""
    points: dict[str, list[tuple[int, float]]] = {}
    for line in metrics:
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                points.setdefault(name, []).append((int(line["step"]), float(value)))
    curves = {name: tuple(zip(*pairs, strict=True)) for name, pairs in points.items()}
    return {name: (np.array(steps), np.array(values, np.float64)) for name, (steps, values) in curves.items()}


def read_evaluation(file: Path) -> SavedEvaluation:
    """Read the scores of EVALUATIONS/NAME.json and its predictions.

    Raises:
        DataError: If the file can't be read, has no scores, or has a confusion matrix that does not match its labels.
    """
    try:
        values = read_json(file)
    except ConfigError as error:
        raise DataError(str(error)) from error
    if not isinstance(values.get("data"), str) or not isinstance(values.get("n"), int) or not MEASURES.keys() & values:
        raise DataError(f"{file} has no scores; run uniemox evaluate again")
    predictions = None
    missing = None
    if "confusion" in values:
        labels = values.get("labels")
        # Rows of unequal length make an array only with dtype object.
        shape = np.shape(np.array(values["confusion"], dtype=object))
        if not isinstance(labels, list) or shape != (len(labels), len(labels)):
            raise DataError(f"{file}: its confusion matrix does not match its labels; run uniemox evaluate again")
        try:
            predictions = read_predictions(file.with_suffix(".jsonl"), labels)
        except DataError as error:
            missing = f"The images' predictions can't be read: {error}"
    return SavedEvaluation(values["data"], values.get("split"), values, predictions, missing)


def read_predictions(file: Path, labels: list[str]) -> Predictions:
    """Read a classifier's predictions, sorted by key.

    Raises:
        DataError: If the file can't be read, is empty or is malformed; names the line.
    """
    index_of = {label: i for i, label in enumerate(labels)}
    rows = []
    for where, line in _lines(file):
        try:
            shares = np.array([line["probabilities"][label] for label in labels], dtype=np.float64)
            truth = index_of[line["label"]]
            predicted = index_of[line["predicted"]]
            rows.append((str(line["key"]), str(line["group"]), truth, predicted, shares))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: {error} is missing or wrong; run uniemox evaluate again") from error
        if not (shares.min() >= 0 and shares.max() <= 1):
            raise DataError(f"{where}: probabilities must lie between 0 and 1; run uniemox evaluate again")
    if not rows:
        raise DataError(f"{file} is empty; run uniemox evaluate again")
    keys, groups, truths, predictions, probabilities = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
    return Predictions(keys, groups, np.array(truths), np.array(predictions), np.stack(probabilities), tuple(labels))


def _lines(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield the file and number of each line, and its JSON value."""
    try:
        with open_regular(file) as lines:
            for number, line in enumerate(lines, start=1):
                yield f"{file}:{number}", json.loads(line)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} can't be read: {error}") from error
