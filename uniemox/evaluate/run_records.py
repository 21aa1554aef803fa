"""Read a finished run: record, journal, evaluations, predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import DataError
from uniemox.evaluate.label_pairs import LabelPairs, format_label_pairs
from uniemox.evaluate.metrics import Array
from uniemox.evaluate.places import evaluations_folder
from uniemox.intervals import no_spread_note
from uniemox.io.html import render
from uniemox.io.run_files import CONFIG, METRICS, WEIGHTS
from uniemox.io.typed import Count, Share, check_json, read_json, read_json_lines
from uniemox.plurals import counted
from uniemox.training.journal import IMAGES, read_metrics

REMEDY = "run uniemox evaluate again"
KINDS = {"pretrain": "pre-training", "finetune": "fine-tuning"}
MEASURES = {"confusion": "accuracy", "kl": "kl", "ccc": "ccc", "mean_average_precision": "mean_average_precision"}
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
    hashes: tuple[str, ...] = ()  # N, sha256 of the images' files; empty if they are not known

    @property
    def words(self) -> list[str]:
        """Label of every image."""
        return [self.scored_labels[i] for i in self.labels]

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """(N,), True for right predictions."""
        return self.labels == self.predicted

    def among(self, labels: Sequence[str], keys: Sequence[str]) -> "Predictions":
        """Return the predictions for some images if the model chooses among some of its labels.

        A prediction that is one of these labels stays; any other becomes the most probable of them.

        Args:
            labels: At least one of `scored_labels`, among them the true labels of the images.
            keys: K images.
        """
        columns = [self.scored_labels.index(label) for label in labels]
        new_index = np.full(len(self.scored_labels), -1)
        new_index[columns] = np.arange(len(columns))
        row_of = {key: i for i, key in enumerate(self.keys)}
        rows = np.array([row_of[key] for key in keys], dtype=np.int64)
        probabilities = self.probabilities[rows][:, columns]  # (K, labels)
        predicted = new_index[self.predicted[rows]]
        return Predictions(
            keys=tuple(keys),
            groups=tuple(self.groups[row] for row in rows),
            labels=new_index[self.labels[rows]],
            predicted=np.where(predicted >= 0, predicted, probabilities.argmax(axis=1)),
            probabilities=probabilities,
            scored_labels=tuple(labels),
            hashes=tuple(self.hashes[row] for row in rows) if self.hashes else (),
        )


def evaluation_title(data: str, split: str | None, persons: object) -> str:
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

    name: str
    """Name of its file, without the ending."""
    data: str
    split: str | None
    values: Mapping[str, Any]
    predictions: Predictions | None
    """None for distributions and affect, or if they can't be read; then `missing` has the reason."""
    missing: str | None
    label_map: LabelPairs = field(default_factory=dict)
    """The user's label map; empty if none was used."""

    @property
    def title(self) -> str:
        """Name of the scored data."""
        return evaluation_title(self.data, self.split, self.values.get("persons"))

    @property
    def label_map_text(self) -> str:
        """The user's label map, as --map has it; empty if none was used."""
        return format_label_pairs(self.label_map)

    @property
    def measure(self) -> str:
        """Score that is compared first: accuracy, kl, ccc or mean_average_precision."""
        return next(measure for name, measure in MEASURES.items() if name in self.values)

    @property
    def measure_of_report(self) -> str:
        """Score of a report's tables: accuracy where there is one, because it can be compared with chance."""
        return "accuracy" if "accuracy" in self.values else self.measure


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
    reconstructions: tuple[Path, ...]
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
                f"{evaluation.values[evaluation.measure]:.3f} of {counted(evaluation.values['n'], 'image')}",
            )
            for evaluation in self.evaluations
        ]
        return render("uniemox/evaluate/run.html", run=self, kind=KINDS[self.kind], rows=[*rows, *scored])

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
        count = evaluation.values["n"]
        line = f"- {evaluation.title}, {counted(count, 'image')}: {evaluation.measure} {value:.3f}"
        interval = evaluation.values.get(f"{evaluation.measure}_interval")
        if interval:
            line += ", 95 % interval {:.3f} to {:.3f}".format(*interval)
        # With fewer labels, an answer is right more often.
        if labels := evaluation.values.get("scored_labels"):
            line += f", among {counted(len(labels), 'label')}"
        # Earlier versions saved the interval of a bootstrap, which has no width if all images are right.
        has_width = interval is not None and interval[0] < interval[1]
        if evaluation.measure == "accuracy" and not has_width and (note := no_spread_note(value, count)):
            line += f" ({note})"
        lines.append(line)
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
    record = read_json(path / CONFIG, dict[str, Any], remedy="copy the run's folder again")
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
    for file in sorted(evaluations_folder(path).glob("*.json")):
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
            if name != "step":
                points.setdefault(name, []).append((int(line["step"]), value))
    curves = {name: tuple(zip(*pairs, strict=True)) for name, pairs in points.items()}
    return {name: (np.array(steps), np.array(values, np.float64)) for name, (steps, values) in curves.items()}


@dataclass(frozen=True, slots=True)
class ScoreFile:
    """Fields of EVALUATIONS/NAME.json that are read by name; scores differ by task."""

    data: str
    n: Count
    """Number of images."""
    split: str | None = None
    labels: list[str] = field(default_factory=list)
    """Rows of `confusion`."""
    scored_labels: list[str] = field(default_factory=list)
    """Labels among which the model chose; empty in old files."""
    confusion: list[list[int]] | None = None
    """Number of images by label and predicted label."""
    label_map: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PredictionLine:
    """Prediction of a classifier for an image of an evaluation."""

    key: str
    group: str
    label: str
    predicted: str
    probabilities: dict[str, Share]
    sha256: str = ""
    """Hash of the image's file; empty if it is not known."""


def read_evaluation(file: Path) -> SavedEvaluation:
    """Read the scores of EVALUATIONS/NAME.json and its predictions.

    Raises:
        DataError: If the file can't be read, has no scores, or has a confusion matrix that does not match its labels.
    """
    values = read_json(file, dict[str, Any], remedy=REMEDY)
    scores = check_json(values, ScoreFile, str(file), remedy=REMEDY)
    if not MEASURES.keys() & values:
        raise DataError(f"{file} has no scores; {REMEDY}")
    predictions = None
    missing = None
    if scores.confusion is not None:
        if {len(scores.confusion), *map(len, scores.confusion)} != {len(scores.labels)}:
            raise DataError(f"{file}: its confusion matrix does not match its labels; {REMEDY}")
        try:
            predictions = read_predictions(file.with_suffix(".jsonl"), scores.scored_labels or scores.labels)
        except DataError as error:
            missing = f"The images' predictions can't be read: {error}"
    return SavedEvaluation(file.stem, scores.data, scores.split, values, predictions, missing, scores.label_map)


def read_predictions(file: Path, labels: list[str]) -> Predictions:
    """Read a classifier's predictions, sorted by key.

    Raises:
        DataError: If the file can't be read, is empty or is malformed; names the line.
    """
    index_of = {label: i for i, label in enumerate(labels)}
    rows = []
    for where, line in read_json_lines(file, PredictionLine, remedy=REMEDY):
        try:
            shares = np.array([line.probabilities[label] for label in labels], dtype=np.float64)
            answer = (index_of[line.label], index_of[line.predicted], shares)
            rows.append((line.key, line.group, line.sha256, *answer))
        except KeyError as error:
            raise DataError(
                f"{where}: label {error} is not one of the evaluation's, or has no probability; {REMEDY}"
            ) from error
    if not rows:
        raise DataError(f"{file} is empty; {REMEDY}")
    keys, groups, hashes, truths, predictions, probabilities = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
    return Predictions(
        keys=keys,
        groups=groups,
        labels=np.array(truths),
        predicted=np.array(predictions),
        probabilities=np.stack(probabilities),
        scored_labels=tuple(labels),
        hashes=hashes,
    )
