"""Scores of a fine-tuned classifier on a data set."""

from collections.abc import Callable, Collection, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.hashes import Fingerprint, fingerprints
from uniemox.data.overlaps import JoinedCopies
from uniemox.data.perceptual import PREFIX
from uniemox.data.sample import NO_PERSONS, DataSet, Sample
from uniemox.data.seen import OTHERS, SEEN, read_seen, refuse_seen
from uniemox.data.unreadable import listing_of, lost_by_class, reasons_of
from uniemox.errors import CheckpointError, ConfigError, LabelError
from uniemox.evaluate.evaluation import SEEN_ALLOWED, UNKNOWN_TRAINING, Evaluation
from uniemox.evaluate.label_pairs import LabelPairs, format_label_pairs, labels_by, left_out_by, needs_map, pairs_in
from uniemox.evaluate.outputs import Outputs, outputs_of_network
from uniemox.evaluate.places import runs_without_torch
from uniemox.evaluate.scorer import Scorer
from uniemox.evaluate.scores import ClassScores, Scores, score_groups
from uniemox.evaluate.targets import mapped_labels, samples_to_score
from uniemox.intervals import few_groups_note, no_spread_note
from uniemox.io.progress import Progress, silent
from uniemox.io.run_files import SPLITS, WEIGHTS
from uniemox.io.run_record import find_field
from uniemox.io.weight_names import file_in_package
from uniemox.labels import AFFECT, LabelSet, ScoredLabels, identity_map, quoted
from uniemox.plurals import counted
from uniemox.predict.confidence import COVERAGE, flag_note, set_note
from uniemox.predict.opening import open_network
from uniemox.predict.ratings import HASH_DIGITS, RatingHead

if TYPE_CHECKING:
    from uniemox.training.config import HardwareConfig

COLUMNS = ("domain", "split", "label", "group")


@dataclass(frozen=True, kw_only=True, slots=True)
class _OpenedModel:
    """A model that is ready to be scored."""

    info: ClassifierInfo
    """With a rating head, the info of a model of valence and arousal."""
    outputs_of: Callable[[Sequence[Sample], Progress], Outputs]
    rating_head: RatingHead | None = None
    """Head whose ratings are scored instead of the classifier's labels."""


def evaluate(
    model: Path,
    data: DataSet,
    *,
    by: str | None = None,
    task: Literal["affect"] | None = None,
    allow_seen: bool = False,
    label_pairs: LabelPairs | None = None,
    hardware: "HardwareConfig | None" = None,
    on_progress: Progress = silent,
) -> Evaluation:
    """Score a classifier on all samples of a data set that have a target for it.

    A data set with some of the model's labels is scored in the model's label set. If it has other labels, the model's
    are mapped to them (`scored_labels`), and samples without a counterpart are left out. Intervals resample images;
    images of one group are resampled together.

    Args:
        model: A fine-tuning run or its model.safetensors, with torch; or an ONNX file, a hub folder, embedded or
            small, without.
        data: The data set.
        by: A column (domain, split, label, group, or a field of the annotation) whose values are also scored
            separately.
        task: affect: score the valence and arousal head of an ONNX classifier instead of its labels.
        allow_seen: Also score images that the model, or its parts, were trained on.
        label_pairs: Labels of the model that mean each label of the data, see `score_by_pairs`; None: the known map.
            For a model with the labels of the data, only the labels count that the map leaves out.
        hardware: Device, precision and workers of a torch model; None: the defaults.
        on_progress: Called after each batch or image.

    Raises:
        DataError: If images are training images (`uniemox.data.seen`), or if none is left to score.
        LabelError: If there is no label map, or if `label_pairs` does not fit the labels.
        ConfigError: If no sample has the column, or if the model does not fit the task.
        CheckpointError: If the model can't be opened.
    """
    if runs_without_torch(model):
        opened = _open_onnx(model, task)
    else:
        opened = _open_run(model, task, hardware)
    info = opened.info
    scored = _scored_labels(info, data.labels, label_pairs)
    without = left_out_by(label_pairs or {}, data.labels)
    samples, notes = samples_to_score(data, info, scored, without)
    if by is not None:
        # An unknown column is refused before the images are read.
        column_of(samples, by, data)
    images, _ = fingerprints(samples, on_progress)
    may_be_seen = allow_seen or not _refuse_seen(model, data, samples, images, opened.rating_head)
    if may_be_seen:
        notes.append(SEEN_ALLOWED if allow_seen else UNKNOWN_TRAINING)
    joined = JoinedCopies.of(samples, images)
    if joined.note:
        notes.append(joined.note)

    outputs = opened.outputs_of(joined.samples, on_progress)
    unreadable = reasons_of(outputs.broken)
    if unreadable:
        notes.append(f"{counted(len(unreadable), 'image')} can't be read: {listing_of(unreadable)}")
        notes += lost_by_class(samples, unreadable, data.labels, "the scored part")
    label_map: LabelPairs = {}
    if label_pairs is not None and scored is not None:
        if needs_map(info.find_labels(), data.labels, label_pairs):
            label_map = pairs_in(scored)
        notes.append(_note_on_map(label_map, without))
    notes += _notes_on_model(info, data)

    scorer = Scorer.of(info, scored, outputs, opened.rating_head)
    all_rows = np.arange(len(outputs.samples))
    scores = scorer.score(all_rows)
    notes += _interval_notes(scores, scorer.answered.units)
    if isinstance(scores, ClassScores):
        notes += _notes_on_absent_labels(scores, () if scored is None else scored.absent)
    trust = scorer.trust()
    if "coverage" in trust and (note := set_note(info, COVERAGE)):
        notes.append(note)
    groups = None
    if by is not None:
        sample_of = {sample.key: sample for sample in samples}
        values = column_of([sample_of[sample.key] for sample in outputs.samples], by, data)
        groups = score_groups(values, scorer.score)
    return Evaluation(
        scores,
        groups,
        tuple(notes),
        tuple(scorer.predictions()),
        unreadable=unreadable,
        trust=trust,
        scored_labels=() if scored is None else scored.choices,
        label_map=label_map,
        mapped_labels=mapped_labels(scored),
        may_be_seen=may_be_seen,
    )


def _note_on_map(label_map: LabelPairs, without: Set[str]) -> str:
    """Return a sentence about the user's label map.

    Args:
        label_map: Pairs by which the model is scored; empty: it needs none.
        without: Labels of the data that the map leaves out.
    """
    if label_map:
        return f"the label map: {format_label_pairs(label_map)}"
    if not without:
        return "the label map is not used: the model has the labels of the data, not those of the map"
    names = ", ".join(map(quoted, sorted(without)))
    return f"the label map only leaves out {names}: the model needs none for the other labels"


def _notes_on_model(info: ClassifierInfo, data: DataSet) -> list[str]:
    """Return warnings about what the model lacks, or the data for it."""
    notes = []
    if info.calibration_images == "selection":
        notes.append("the images that chose the epoch also calibrated the model (few images, or --select accuracy)")
    if note := flag_note(info):
        notes.append(note)
    if info.needs_person and info.person != "second_crop" and data.lacks_persons:
        notes.append(NO_PERSONS)
    return notes


def _interval_notes(scores: Scores, units: Sequence[str]) -> list[str]:
    """Return warnings about intervals that are too narrow.

    Args:
        scores: Scores of N samples.
        units: (N,), see `units_of`.
    """
    notes = []
    if isinstance(scores, ClassScores) and (note := no_spread_note(scores.accuracy, scores.n, len(set(units)))):
        notes.append(note)
    if note := few_groups_note(len(set(units)), len(units)):
        notes.append(note)
    return notes


def _notes_on_absent_labels(scores: ClassScores, known: Collection[str]) -> Iterator[str]:
    """Yield how macro F1 counts the labels that no image has.

    Args:
        scores: The scores.
        known: Labels that the data set does not have, of which another note tells.
    """
    answers = np.sum(scores.confusion, axis=0)
    images = np.sum(scores.confusion, axis=1)
    rows = zip(scores.labels, answers, images, strict=True)
    absent = [(label, answer_count) for label, answer_count, image_count in rows if image_count == 0]
    if wrong := [quoted(label) for label, count in absent if count]:
        yield (
            f"macro F1 counts {', '.join(wrong)} as 0: the model answers so for some images, but none has that label"
        )
    if left_out := [quoted(label) for label, count in absent if not count and label not in known]:
        yield f"no scored image has these labels, so macro F1 leaves them out: {', '.join(left_out)}"


def _scored_labels(info: ClassifierInfo, data: LabelSet, pairs: LabelPairs | None) -> ScoredLabels | None:
    """Return the labels in which a classifier is scored; None for valence and arousal."""
    if info.task == "affect":
        if pairs is not None:
            raise ConfigError("a label map has no meaning for valence and arousal; leave it out")
        return None
    if info.task == "multilabel":
        return _same_labels(info, data, pairs)
    return labels_by(info.find_labels(), data, pairs)


def _same_labels(info: ClassifierInfo, data: LabelSet, pairs: LabelPairs | None) -> ScoredLabels:
    """Return the labels in which a classifier of several labels is scored: its own, which the data must have.

    Raises:
        ConfigError: For a label map.
        LabelError: If the data have other labels, or labels of another kind.
    """
    if pairs is not None:
        raise ConfigError("a label map has no meaning for a model that gives several labels; leave it out")
    if (data.labels, data.kind) != (info.labels, info.kind):
        raise LabelError(
            f"the model gives several of {len(info.labels)} {info.kind} labels of {info.label_set}, and can only be "
            f"scored on data with the same labels; these have {data.name} ({data.kind})"
        )
    identity = identity_map(data)
    return ScoredLabels(identity, identity)


def _open_onnx(model: Path, task: str | None) -> _OpenedModel:
    network = open_network(model)

    def outputs_of(samples: Sequence[Sample], on_progress: Progress) -> Outputs:
        return outputs_of_network(network, samples, on_progress, rated=task == "affect")

    if task is None or network.info.task == "affect":
        return _OpenedModel(info=network.info, outputs_of=outputs_of)
    if network.rating_head is None:
        raise ConfigError(f"{model} has no head for valence and arousal; uniemox calibrate --ratings fits one")
    rated_network = replace(network.info.network, labels=AFFECT)
    rated_info = replace(network.info, task="affect", network=rated_network)
    return _OpenedModel(info=rated_info, outputs_of=outputs_of, rating_head=network.rating_head)


def _open_run(model: Path, task: str | None, hardware: "HardwareConfig | None") -> _OpenedModel:
    weights = model / WEIGHTS if model.is_dir() else model
    # A missing file is reported before torch is imported, which takes seconds.
    if not weights.is_file():
        raise CheckpointError(f"{weights} can't be read: there is no such file")
    from uniemox.evaluate.classifier_outputs import open_classifier  # noqa: PLC0415 - torch

    info, outputs_of = open_classifier(weights, hardware)
    if task == "affect" and info.task != "affect":
        raise ConfigError(f"{model} predicts labels; make a model for ratings with uniemox calibrate --ratings")
    return _OpenedModel(info=info, outputs_of=outputs_of)


def _refuse_seen(
    model: Path, data: DataSet, samples: Sequence[Sample], images: Sequence[Fingerprint], head: RatingHead | None
) -> bool:
    """Raise DataError for samples that the model, its rating head or the person detector was trained on.

    Args:
        model: See `evaluate`.
        data: The data set.
        samples: N samples to score.
        images: Fingerprint of each sample's image.
        head: Rating head that is scored.

    Returns:
        False if not all of the model's training images are known.
    """
    model_hashes = read_seen(file_in_package(model))
    training_hashes = model_hashes | data.detector_seen
    if training_hashes or head is not None:
        hashes = [image.sha256 for image in images]
        if head is not None:
            training_hashes |= {digest for digest in hashes if digest[:HASH_DIGITS] in head.seen}
            training_hashes |= {PREFIX + digits for digits in head.perceptual}
        folder = model if model.is_dir() else model.parent
        # Beside another file, splits.json may be of something else.
        has_splits = (folder / SEEN).is_file() and (folder / SPLITS).is_file()
        refuse_seen(
            samples,
            hashes,
            training_hashes,
            data.name,
            thumbs=[image.thumb for image in images],
            override="--allow-seen (allow_seen=True in Python)",
            splits=folder / SPLITS if has_splits else None,
            start=_init_of_run(folder),
        )
    return bool(model_hashes) and OTHERS not in model_hashes


def _init_of_run(folder: Path) -> str:
    """Return the initial weights of a fine-tuning run in a folder; empty if there are none, or no readable record."""
    try:
        init = find_field(folder, "config", "init")
    except ConfigError:
        return ""
    return init if isinstance(init, str) else ""


def column_of(samples: Sequence[Sample], name: str, data: DataSet) -> list[str | None]:
    """Return a column's value for every sample; None for a sample without it.

    Raises:
        ConfigError: If no sample has the column; lists the columns.
    """
    if name == "label":
        return [data.label_of(sample) for sample in samples]
    if name == "part" and data.parts:
        return [data.part_of(sample) for sample in samples]
    values = [getattr(sample, name) if name in COLUMNS else (sample.annotation or {}).get(name) for sample in samples]
    if all(value is None for value in values):
        fields = sorted({key for sample in samples for key in sample.annotation or {}})
        raise ConfigError(f"{data.name} has no column {name!r}; it may have {', '.join([*COLUMNS, *fields])}")
    return [None if value is None else str(value) for value in values]
