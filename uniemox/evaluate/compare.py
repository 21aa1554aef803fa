"""Comparison of two training settings by runs of several seeds each, on the same images."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.sample import DataSet
from uniemox.errors import CheckpointError, ConfigError, DataError, LabelError
from uniemox.evaluate.evaluation_files import write_evaluation
from uniemox.evaluate.label_pairs import TOO_FEW_LABELS, LabelPairs, labels_by, left_out_by, needs_map
from uniemox.evaluate.places import evaluations_folder, runs_without_torch
from uniemox.evaluate.run import evaluate
from uniemox.evaluate.run_records import Predictions, SavedEvaluation, evaluation_title, read_evaluations, read_run
from uniemox.evaluate.run_settings import check_seeds, differing_settings
from uniemox.evaluate.same_images import check_same_images, refuse_equal_answers
from uniemox.evaluate.shared_labels import among_shared_labels, label_note, map_note, shared_map_note
from uniemox.intervals import (
    Interval,
    PairedDifference,
    clip_to_share,
    few_groups_note,
    interval_over_runs,
    no_spread_note,
    share_difference,
)
from uniemox.io.progress import Progress, silent
from uniemox.io.run_files import EVALUATIONS, WEIGHTS
from uniemox.io.weight_names import IN_PACKAGE, is_in_package
from uniemox.labels import scored_labels
from uniemox.predict.opening import open_network
from uniemox.resampling import Groups, unit_sums


@dataclass(frozen=True, slots=True)
class Comparison:
    """Accuracies of two groups of runs on one evaluation that all of them have."""

    title: str
    """Data and split."""
    pictures: int
    ours: tuple[float, ...]
    """Accuracy of each run."""
    ours_interval: Interval | None
    """Interval of their mean: over images for one run, over seeds and images for three or more, None for two."""
    theirs: tuple[float, ...]
    theirs_interval: Interval | None
    difference: PairedDifference
    """Difference of the means, ours minus theirs."""
    commonest: float
    """Accuracy of always predicting the most common class of the scored images."""
    uniform: float
    """Accuracy of random guessing, 1 / classes."""
    baseline: tuple[float, ...] = ()
    """Accuracy of each run of the trivial baseline; empty without one."""
    baseline_interval: Interval | None = None
    ours_over_baseline: PairedDifference | None = None
    theirs_over_baseline: PairedDifference | None = None
    note: str = ""
    """Says if the runs were scored among different labels, or by different label maps."""
    left_out: int = 0
    """Number of images that are left out because a model can't choose their label, or the label map leaves it out."""
    discordant: int | None = None
    """Number of images on which one of two runs is right and the other wrong; None for several runs."""
    wins_and_losses: tuple[int, int] | None = None
    """Numbers of groups of images (`units`) in which ours, and theirs, is right more often; None for several runs."""
    units: int | None = None
    """Number of groups of images that are resampled together; an image without a group is one of its own."""
    settings: tuple[str, ...] = ()
    """Settings in which the sides differ, but the seed; empty also for models without a record of a run."""
    is_fair: bool = True
    """False if the runs chose among different labels, or by different label maps: the difference says little."""


def compare(
    ours: Sequence[Path],
    theirs: Sequence[Path],
    baseline: Sequence[Path] = (),
    *,
    without: Collection[str] = (),
    allow_mixed: bool = False,
) -> list[Comparison]:
    """Compare two groups of runs on every evaluation that all runs have, as means over their seeds.

    Args:
        ours: Folders of fine-tuning runs, or other folders with evaluations (`evaluate` writes that of embedded to
            ./evaluations/embedded), at least one each.
        theirs: Folders of the other group, likewise at least one.
        baseline: Runs of a trivial baseline, such as method histogram.
        without: Labels whose images are left out; the models don't choose these labels either.
        allow_mixed: Runs of one side may differ in more than the seed.

    Raises:
        ConfigError: For a file in the place of a run's folder, or runs of one side that are not seeds of one setting.
        DataError: If a folder has no run, they have no evaluation in common, or predictions are for different images.
    """
    if not ours or not theirs:
        raise DataError("give at least one run of ours and one of theirs")
    _refuse_files((*ours, *theirs, *baseline))
    _check_sides(ours, theirs, baseline, allow_mixed=allow_mixed)
    runs = {path: _by_title(path) for path in (*ours, *theirs, *baseline)}
    shared = [title for title in next(iter(runs.values()), ()) if all(title in others for others in runs.values())]
    if not shared:
        raise DataError(_nothing_shared(runs))
    groups = (ours, theirs, baseline)
    return [_compare_on_title(title, runs, groups, without, allow_mixed=allow_mixed) for title in shared]


def _compare_on_title(
    title: str,
    runs: Mapping[Path, Mapping[str, Sequence[SavedEvaluation]]],
    groups: Sequence[Sequence[Path]],
    without: Collection[str],
    *,
    allow_mixed: bool,
) -> Comparison:
    """Compare groups of runs on one evaluation.

    Args:
        title: What was scored.
        runs: Evaluations of each run by what was scored, from `_by_title`.
        groups: Runs of ours, of theirs, and of the baseline.
        without: See `compare`.
        allow_mixed: See `compare`.
    """
    evaluation_of = dict[Path, SavedEvaluation]()
    predictions_of = dict[Path, Predictions]()
    for path, evaluations in runs.items():
        if len(evaluations[title]) > 1:
            raise DataError(f"{path} was scored twice on {title}; remove one of the two from its evaluations")
        [evaluation] = evaluations[title]
        if evaluation.predictions is None:
            raise DataError(_no_predictions(path, evaluation))
        evaluation_of[path] = evaluation
        predictions_of[path] = evaluation.predictions
    sides = [[predictions_of[path] for path in group] for group in groups]
    if not allow_mixed:
        for side, group, predictions in zip(("ours", "theirs", "baseline"), groups, sides, strict=True):
            refuse_equal_answers(side, group, predictions)
    comparison = _compare(title, *sides, without=without)
    warning = map_note(evaluation_of)
    notes = (comparison.note, warning or shared_map_note(evaluation_of), _seen_note(evaluation_of))
    note = "; ".join(filter(None, notes))
    ours, theirs, *_ = groups
    settings = differing_settings(ours, theirs)
    return replace(comparison, note=note, settings=settings, is_fair=comparison.is_fair and not warning)


def _seen_note(evaluation_of: Mapping[Path, SavedEvaluation]) -> str:
    """Return a note on runs that may have been trained on some of the images; empty without one."""
    paths = [str(path) for path, evaluation in evaluation_of.items() if evaluation.values.get("may_be_seen")]
    if not paths:
        return ""
    return (
        f"{', '.join(paths)} may have been trained on some of these images (evaluate says why): if so, the scores are "
        "too high"
    )


def _check_sides(ours: Sequence[Path], theirs: Sequence[Path], baseline: Sequence[Path], *, allow_mixed: bool) -> None:
    """Raise ConfigError for a side whose runs are not seeds of one setting."""
    for side, runs in (("ours", ours), ("theirs", theirs), ("baseline", baseline)):
        check_seeds(side, runs, allow_mixed=allow_mixed)


def _nothing_shared(runs: Mapping[Path, Mapping[str, Sequence[SavedEvaluation]]]) -> str:
    """Return the message for runs without an evaluation in common.

    Args:
        runs: Evaluations of each run by what was scored.
    """
    if unscored := [str(path) for path, evaluations in runs.items() if not evaluations]:
        was_not = "was not scored yet" if len(unscored) == 1 else "were not scored yet"
        return f"{', '.join(unscored)} {was_not}; run uniemox evaluate with each run, on the same data, or give --data"
    scored = "; ".join(f"{path} on {', '.join(evaluations)}" for path, evaluations in runs.items())
    return f"these runs were not scored on the same data ({scored}); run uniemox evaluate with each of them"


def _no_predictions(path: Path, evaluation: SavedEvaluation) -> str:
    """Return the message for an evaluation without predictions of one label per image."""
    if evaluation.missing:
        return f"{path}, {evaluation.title}: {evaluation.missing}"
    return (
        f"{path} has {evaluation.measure} for {evaluation.title}, not labels: compare takes models that predict one "
        "label per image (task label); uniemox report shows other scores of runs side by side"
    )


def _refuse_files(paths: Sequence[Path]) -> None:
    """Raise ConfigError for a model file: saved evaluations belong to the folder of a run."""
    for path in paths:
        if path.is_file() or path.suffix == ".onnx":
            raise ConfigError(
                f"{path} is a file: compare takes folders of runs, embedded or small; give the run's folder, or score "
                f"the file alone (uniemox evaluate --model {path})"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """Settings of the evaluations that a comparison makes; see `evaluate`."""

    split: str
    """Name of the split that the data set is, or all."""
    label_pairs: LabelPairs | None = None
    """Labels of a model that mean each label of the data. Models that have the data's labels are scored without them,
    on all images; the comparison alone leaves out the images that the map leaves out."""
    allow_seen: bool = False
    allow_mixed: bool = False
    """Runs of one side may differ in more than the seed."""
    persons: Path | None = None
    """File of people that was used for the data; None: none was."""


def compare_on(
    data: DataSet,
    scoring: Scoring,
    ours: Sequence[Path],
    theirs: Sequence[Path],
    baseline: Sequence[Path] = (),
    *,
    on_progress: Progress = silent,
    report: Callable[[str], None] = print,
) -> Comparison:
    """Score two groups of models on one data set, save the evaluations as `evaluate` does, and compare them.

    Args:
        data: The images to score.
        scoring: How they are scored.
        ours: Runs or models, as for `evaluate`.
        theirs: Those of the other group.
        baseline: Runs of a trivial baseline.
        on_progress: Called after each batch or image.
        report: Called with what `evaluate` notes about labels and images.

    Raises:
        ConfigError: As `compare`.
        DataError: As `compare` and `evaluate`.
        LabelError: If a model's labels can't be mapped to those of the data.
        CheckpointError: If a model can't be opened.
    """
    models = dict.fromkeys((*ours, *theirs, *baseline))
    _refuse_files(tuple(models))
    _check_sides(ours, theirs, baseline, allow_mixed=scoring.allow_mixed)
    for path in models:
        # Scoring takes minutes, so an unfinished run must not be found after it.
        if not is_in_package(path) and not (path / WEIGHTS).is_file():
            raise CheckpointError(f"{path / WEIGHTS} can't be read: there is no such file; give the folder of a run")
    pairs = scoring.label_pairs
    without = left_out_by(pairs or {}, data.labels)
    if without and len(data.labels) - len(without) < 2:
        raise LabelError(TOO_FEW_LABELS)
    pairs_of = {path: _pairs_for(path, data, pairs) for path in models}
    for path in models:
        evaluation = evaluate(
            path, data, label_pairs=pairs_of[path], allow_seen=scoring.allow_seen, on_progress=on_progress
        )
        for note in evaluation.notes:
            report(f"{path}: {note}")
        file = write_evaluation(evaluation, path, data, scoring.split, persons=scoring.persons)
        report(f"{path}: scores and predictions are in {file} and beside it (.jsonl)")
    title = evaluation_title(data.name, scoring.split, scoring.persons)
    runs = {path: _by_title(path) for path in models}
    groups = (ours, theirs, baseline)
    comparison = _compare_on_title(title, runs, groups, without, allow_mixed=scoring.allow_mixed)
    if None in pairs_of.values():
        return comparison
    # No model was scored on the images that the map leaves out.
    left_out = sum(data.label_of(sample) in without for sample in data.samples)
    return replace(comparison, left_out=comparison.left_out + left_out)


def _pairs_for(model: Path, data: DataSet, pairs: LabelPairs | None) -> LabelPairs | None:
    """Return the map by which a model is scored; None for one that can be scored on all images without.

    Raises:
        LabelError: For labels without a map, before the first model is scored, which takes minutes.
    """
    info = _info_of(model)
    if info.task != "label":
        return pairs
    labels = info.find_labels()
    if pairs is not None and not needs_map(labels, data.labels, pairs):
        with suppress(LabelError):
            scored_labels(labels, data.labels)
            return None
    labels_by(labels, data.labels, pairs)
    return pairs


def _info_of(model: Path) -> ClassifierInfo:
    """Return the metadata of a run or model.

    Raises:
        CheckpointError: If it has none.
    """
    if runs_without_torch(model):
        return open_network(model).info
    from uniemox.checkpoints.classifier import read_classifier_info  # noqa: PLC0415 - torch

    info = read_classifier_info(model / WEIGHTS)
    if info is None:
        raise CheckpointError(f"{model / WEIGHTS} is not a uniemox classifier; give a run of uniemox finetune")
    return info


def _by_title(path: Path) -> dict[str, list[SavedEvaluation]]:
    """Return a run's evaluations by scored data."""
    if not evaluations_folder(path).is_dir():
        if is_in_package(path):
            raise DataError(
                f"{path} was not scored in this folder; give --data, or run uniemox evaluate --model {path} first"
            )
        if path.name in IN_PACKAGE and path.absolute().parent.name == EVALUATIONS:
            raise DataError(
                f"{path} is the folder of the scores of {path.name}; give {path.name}, and run the command in "
                f"{path.absolute().parent.parent}"
            )
        # Raises if the folder is not a run either.
        read_run(path)
    by_title = dict[str, list[SavedEvaluation]]()
    for evaluation in read_evaluations(path)[0]:
        by_title.setdefault(evaluation.title, []).append(evaluation)
    return by_title


def chance_of(predictions: Predictions) -> tuple[float, float]:
    """Return two chance levels: accuracy of these images' most common class, and of guessing one of all classes."""
    classes = predictions.probabilities.shape[1]
    counts = np.bincount(predictions.labels, minlength=classes)
    return float(counts.max() / counts.sum()), 1 / classes


def _wins_and_losses(leads: NDArray[np.float64], groups: Groups) -> tuple[int, int]:
    """Return how many groups have a positive, and a negative, sum of leads, (N,)."""
    lead_of_group = unit_sums(leads[:, None], groups)
    return int((lead_of_group > 0).sum()), int((lead_of_group < 0).sum())


def _no_spread(hits: Mapping[str, NDArray[np.float64]], count: int, units: int) -> str:
    """Return a warning for each group of runs that are right on all images, or on none.

    Args:
        hits: (S, N) by name of the group, 1 for a right answer.
        count: N, number of images.
        units: Number of groups of images that are resampled together.
    """
    notes = {name: no_spread_note(float(group.mean()), count, units) for name, group in hits.items()}
    return "; ".join(f"{name}: {note}" for name, note in notes.items() if note)


def _compare(
    title: str,
    ours: Sequence[Predictions],
    theirs: Sequence[Predictions],
    baseline: Sequence[Predictions],
    *,
    without: Collection[str],
) -> Comparison:
    """Compare the answers of two groups of runs, and of a baseline, about the same images; see `compare`."""
    all_predictions = [*ours, *theirs, *baseline]
    check_same_images(title, all_predictions)
    image_count = len({key for predictions in all_predictions for key in predictions.keys})
    all_predictions, note = among_shared_labels(all_predictions, without)
    first = all_predictions[0]
    if any(predictions.keys != first.keys for predictions in all_predictions):
        raise DataError(f"{title}: the models share fewer than two labels, or no image of these; give --map")
    hits = np.array([predictions.is_right for predictions in all_predictions], dtype=np.float64)  # (S, N)
    our_hits, their_hits, baseline_hits = np.split(hits, [len(ours), len(ours) + len(theirs)])
    commonest, uniform = chance_of(first)

    def accuracies(group: NDArray[np.float64]) -> tuple[float, ...]:
        return tuple(group.mean(axis=1).tolist())

    def interval(group: NDArray[np.float64]) -> Interval | None:
        return clip_to_share(interval_over_runs(group, first.groups))

    def over_baseline(group: NDArray[np.float64]) -> PairedDifference | None:
        return share_difference(group, baseline_hits, first.groups) if baseline else None

    is_pair = len(ours) == len(theirs) == 1
    groups = {"ours": our_hits, "theirs": their_hits}
    if baseline:
        groups["baseline"] = baseline_hits
    count = len(first.keys)
    units = len(set(first.groups))
    notes = (note, _no_spread(groups, count, units), few_groups_note(units, count))
    return Comparison(
        title=title,
        pictures=count,
        units=units,
        left_out=image_count - count,
        is_fair=not label_note(all_predictions),
        ours=accuracies(our_hits),
        ours_interval=interval(our_hits),
        theirs=accuracies(their_hits),
        theirs_interval=interval(their_hits),
        difference=share_difference(our_hits, their_hits, first.groups),
        baseline=accuracies(baseline_hits),
        baseline_interval=interval(baseline_hits) if baseline else None,
        ours_over_baseline=over_baseline(our_hits),
        theirs_over_baseline=over_baseline(their_hits),
        commonest=commonest,
        uniform=uniform,
        note="; ".join(filter(None, notes)),
        discordant=int((our_hits != their_hits).sum()) if is_pair else None,
        wins_and_losses=_wins_and_losses(our_hits[0] - their_hits[0], first.groups) if is_pair else None,
    )
