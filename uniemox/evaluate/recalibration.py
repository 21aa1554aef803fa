"""Calibrate a model with the user's labelled images, without torch: `uniemox calibrate` writes its ONNX file again."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.hashes import fingerprints
from uniemox.data.overlaps import JoinedCopies
from uniemox.data.sample import DataSet, units_of
from uniemox.data.seen import OTHERS, hashes_in, read_seen, refuse_seen, seen_file, write_hashes
from uniemox.data.unreadable import reasons_of
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.evaluate.calibration import (
    MIN_SAMPLES,
    LogLossChange,
    calibrated,
    expected_calibration_error,
    log_loss_change,
    with_likely_sets,
)
from uniemox.evaluate.label_pairs import LabelPairs, labels_by
from uniemox.evaluate.outputs import Outputs, outputs_of_network
from uniemox.evaluate.places import is_onnx
from uniemox.evaluate.scorer import RightAnswers, meanings_of
from uniemox.evaluate.targets import mapped
from uniemox.intervals import Interval, share_interval
from uniemox.io.files import replacing
from uniemox.io.onnx_external import with_metadata
from uniemox.io.progress import Progress, silent
from uniemox.io.run_files import ONNX
from uniemox.io.weight_names import file_in_package, refuse_name_in_package
from uniemox.labels import ScoredLabels
from uniemox.plurals import counted
from uniemox.predict.confidence import (
    COVERAGE,
    MIN_TO_FLAG,
    UNFAMILIAR,
    answers_of,
    coverage_range,
    familiarity_of,
    likely_sets,
    max_coverage,
    set_probabilities_of,
)
from uniemox.predict.network import METADATA_KEY, Network
from uniemox.predict.opening import open_network

MIN_IMAGES = 30


@dataclass(frozen=True, slots=True)
class Recalibration:
    """Fitted values, number of images, and scores on these images before and after."""

    images: int
    split: str
    temperature: float
    ece_before: float
    """Calibration error among all labels of the model; that of `uniemox evaluate` is among scored_labels."""
    ece_after: float
    accuracy: float
    """Accuracy among scored_labels."""
    accuracy_before: float
    """The same before. It differs only where several labels of the model mean one of these: a temperature keeps the
    order of probabilities, but not that of their sums."""
    accuracy_interval: Interval
    chance: float
    """Accuracy of guessing one of scored_labels."""
    commonest: float
    """Accuracy of always predicting the most common label."""
    coverage_before: float | None
    """Share of images whose label is in the 90 % likely set; None if the model had too few scores."""
    coverage_after: float
    coverage_range: Interval
    """Range of the sets' coverage for all images like these, with a probability of 95 %; see `coverage_range`."""
    set_size_before: float | None
    """Mean number of labels per set."""
    set_size_after: float
    log_loss: LogLossChange | None
    """Change of the log loss by a new temperature, of images that it was not fitted to; None if all images are one
    group."""
    flagged: float | None
    """Share of images flagged as unlike the training images; None if the model can't flag them."""
    scored_labels: tuple[str, ...]
    """Labels among which the accuracy was measured, as in `uniemox evaluate`."""
    unreadable: Mapping[str, str]
    """Reasons for images that can't be read, by key."""
    left_out: int = 0
    """Number of images that were not used, because the model has no label for theirs or the map leaves it out."""
    units: int | None = None
    """Number of groups of images that are resampled together; None: each image is one."""
    may_be_seen: bool = False
    """True if the model may have been trained on some of these images."""
    notes: tuple[str, ...] = ()
    """Sentences about copies of one image under several names."""

    @property
    def keeps_temperature(self) -> bool:
        """True if the model's own temperature stays: a new one is no clear gain for images that it is not fitted to."""
        return not _is_gain(self.log_loss)

    @property
    def verdict(self) -> str:
        """Sentence on what to do.

        The lower end of the accuracy's interval is compared with guesses without an image.
        """
        if self.log_loss is None:
            return "all images are one group, so nothing is known of other images: give images of several groups"
        if self.accuracy_interval[0] <= self.chance:
            return "no better than chance on these images: fine-tune instead"
        if self.accuracy_interval[0] <= self.commonest:
            return "no better than always predicting the most common class of these images: fine-tune instead"
        if self.images < MIN_SAMPLES and self.log_loss.interval == (0, 0):
            change = (
                f"the probabilities stay as they were, because {self.images} images are too few to make the model "
                f"surer ({MIN_SAMPLES} are needed); the likely sets are new"
            )
        elif self.keeps_temperature:
            change = (
                "the probabilities stay unchanged, because a new temperature is no clear gain for other images; only "
                "the likely sets are new"
            )
        else:
            change = "the probabilities are better than before"
        if self.accuracy < self.accuracy_before:
            change += (
                f", but the accuracy falls from {self.accuracy_before:.1%} to {self.accuracy:.1%}: of your labels, one "
                "that several labels of the model mean gets a larger sum of less certain probabilities"
            )
        return f"better than chance on these images; {change}"


def recalibrate(
    model: str,
    data: DataSet,
    out: Path,
    on_progress: Progress = silent,
    *,
    split: str | None = None,
    label_pairs: LabelPairs | None = None,
) -> Recalibration:
    """Write an ONNX model again with temperature and conformal scores of labelled images.

    The model's own temperature stays unless a new one is a clear gain for images that it is not fitted to. Then only
    the conformal scores are new.

    Distances from the training images stay those of the network. The probabilities are fitted among all labels of the
    model. If several of them mean one label of the data, each is right: the temperature fits the sum of their
    probabilities, and a likely set is right if it has one of them.

    Args:
        model: embedded, an ONNX file, or a run that contains one.
        data: Labelled images.
        out: File to write; the hashes of the images are written next to it, so that they are not scored later.
        on_progress: Called after each image.
        split: Images to use, or all; None: calibration or val of data with splits, else all.
        label_pairs: Labels of the model that mean each label of the data, see `score_by_pairs`; None: the known map.

    Returns:
        The fitted values and their effect on these images.

    Raises:
        DataError: If there are fewer than 30 labelled images, or training images of the model.
        ConfigError: If the model has no probabilities, or if out has the name of a model in the package.
        LabelError: If there is no label map, or if it does not fit.
        CheckpointError: If out can't be written.
    """
    refuse_name_in_package(out)
    source, network = open_file(model)
    info = network.info
    if info.task != "label":
        raise ConfigError(f"{model} has task {info.task}; labels can only calibrate a classifier with task label")
    scored = labels_by(info.find_labels(), data.labels, label_pairs)
    split, data = data.to_calibrate(split)
    samples = [sample for sample in data.samples if scored.truth(sample.label) is not None]
    if len(samples) < MIN_IMAGES:
        raise DataError(
            f"{data.name_with_split(split)} has {counted(len(samples), 'image')} with a label of {model}; at least "
            f"{MIN_IMAGES} are needed, and a hundred are better: add images, or give a larger split with --split"
        )
    training_hashes = read_seen(source)
    images, broken = fingerprints(samples, on_progress)
    hashes = [image.sha256 for image in images]
    refuse_seen(samples, hashes, training_hashes, data.name, thumbs=[image.thumb for image in images])
    joined = JoinedCopies.of(samples, images)
    count = len(samples) - len(broken) - len(joined.surplus)
    if count < MIN_IMAGES:
        raise DataError(
            f"only {count} of {len(samples)} images can be read and are no copy of another one; {MIN_IMAGES} are needed"
        )
    outputs = outputs_of_network(network, joined.samples, on_progress, work="calibrating")
    answers = RightAnswers.of(outputs, scored)
    target = np.eye(len(info.labels))[answers.truth]
    fitted = calibrated(info, outputs.values, outputs.distances, target, any_of=answers.any_of)
    units = units_of(outputs.samples)
    change = log_loss_change(info, outputs.values, outputs.distances, answers.truth, units, any_of=answers.any_of)
    if not _is_gain(change):
        unchanged = replace(fitted, temperature=info.temperature or 1.0)
        fitted = with_likely_sets(unchanged, outputs.values, outputs.distances, target)
    fitted = replace(
        fitted,
        calibration_images="independent",
        held_out_count=len(set(units)),
        calibrated_on=data.name_with_split(split),
    )
    result = _measure(info, fitted, outputs, answers, scored, change)
    # The hashes first: a model without them could be scored on these images.
    all_hashes = hashes_in(samples, images) | (training_hashes or {OTHERS})
    write_hashes(seen_file(out), all_hashes)
    write_model(source, out, fitted.to_json())
    return replace(
        result,
        split=split,
        left_out=len(data.samples) - len(samples),
        may_be_seen=OTHERS in all_hashes,
        notes=(joined.note,) if joined.note else (),
    )


def _is_gain(change: LogLossChange | None) -> bool:
    """Return True if a new temperature is a clear gain; None: too few groups of images to know."""
    return change is not None and change.is_gain


def _measure(
    info: ClassifierInfo,
    fitted: ClassifierInfo,
    outputs: Outputs,
    answers: RightAnswers,
    scored: ScoredLabels,
    log_loss: LogLossChange | None,
) -> Recalibration:
    """Measure the change from info to fitted on the same outputs.

    Args:
        info: Metadata before calibration.
        fitted: Metadata after calibration.
        outputs: Outputs for N images.
        answers: Their right answers.
        scored: Labels among which the accuracy is measured.
        log_loss: See `Recalibration`.

    Returns:
        All but the split and the number of images that were left out.
    """
    truth = answers.truth
    before, after = (answers_of(metadata, outputs.values, outputs.distances) for metadata in (info, fitted))
    scored_truth = meanings_of(scored)[truth]  # (N,)
    was_right, is_right = (mapped(shares, scored.of_model).argmax(axis=1) == scored_truth for shares in (before, after))
    units = units_of(outputs.samples)
    familiarity = familiarity_of(outputs.distances, fitted.distances)
    flagged: float | None = None
    if familiarity is not None and len(fitted.distances) >= MIN_TO_FLAG:
        flagged = float((familiarity < UNFAMILIAR).mean())

    coverage_before: float | None = None
    set_size_before: float | None = None
    if max_coverage(info.conformal_scores) >= COVERAGE:
        shares_before = set_probabilities_of(info, outputs.values, outputs.distances)
        coverage_before, set_size_before = likely_sets(info.conformal_scores, COVERAGE, shares_before, truth)
    shares_after = set_probabilities_of(fitted, outputs.values, outputs.distances)
    coverage_after, set_size_after = likely_sets(fitted.conformal_scores, COVERAGE, shares_after, truth)
    return Recalibration(
        images=len(truth),
        split="all",
        temperature=fitted.temperature or 1.0,
        ece_before=expected_calibration_error(before, truth),
        ece_after=expected_calibration_error(after, truth),
        accuracy=float(is_right.mean()),
        accuracy_before=float(was_right.mean()),
        accuracy_interval=share_interval(is_right, units),
        chance=1 / len(scored.choices),
        commonest=float(np.bincount(scored_truth).max() / len(truth)),
        coverage_before=coverage_before,
        coverage_after=coverage_after,
        # Images of one group are not independent of each other, so a group counts as one image.
        coverage_range=coverage_range(len(set(units)), COVERAGE),
        set_size_before=set_size_before,
        set_size_after=set_size_after,
        log_loss=log_loss,
        flagged=flagged,
        scored_labels=scored.choices,
        unreadable=reasons_of(outputs.broken),
        units=len(set(units)),
    )


def open_file(model: str) -> tuple[Path, Network]:
    """Return the ONNX file of a model (embedded, small, the file itself, or in a run), and its network."""
    path = Path(model)
    source = file_in_package(path) if is_onnx(path) else path / ONNX
    return source, open_network(source)


def write_model(source: Path, out: Path, info: str) -> None:
    """Write a uniemox ONNX file again with other metadata.

    Raises:
        CheckpointError: If it can't be written.
    """
    with replacing(out, CheckpointError) as partial:
        partial.write_bytes(with_metadata(source.read_bytes(), METADATA_KEY, info))
