"""Recalibrate a model on the user's labelled images, without torch: `uniemox calibrate`."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.data.near import image_hashes
from uniemox.data.sample import DataSet
from uniemox.data.seen import read_seen, refuse_seen, seen_file, write_hashes
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.evaluate.calibration import calibrated, expected_calibration_error
from uniemox.evaluate.outputs import Outputs, outputs_of_network
from uniemox.evaluate.run import file_of, is_onnx, map_to_data
from uniemox.intervals import Interval, bootstrap_interval
from uniemox.io.files import ONNX, replacing
from uniemox.io.onnx_metadata import with_metadata
from uniemox.io.progress import Progress, silent
from uniemox.predict.confidence import UNFAMILIAR, answers_of, familiarity_of, likely_sets
from uniemox.predict.network import KEY, Network
from uniemox.predict.opening import open_network

MIN_IMAGES, COVERAGE = 30, 0.9


@dataclass(frozen=True, slots=True)
class Recalibration:
    """Fitted values, the number of images, and the scores before and after on these."""

    images: int
    split: str
    temperature: float
    ece_before: float
    ece_after: float
    accuracy: float
    """Among the labels of the images; calibration does not change the order of the answers."""
    accuracy_interval: Interval
    chance: float
    """Accuracy of guessing one of these labels."""
    commonest: float
    """Accuracy of always answering the commonest one."""
    coverage_before: float | None
    """Share of images whose label is in the set for 90 %; None if the model had too few scores."""
    coverage_after: float
    set_size_before: float | None
    """Labels in such a set, mean."""
    set_size_after: float
    flagged: float | None
    """Share of images flagged as unlike those that the network was trained on; None if it can't tell."""

    @property
    def verdict(self) -> str:
        """Return whether the whole interval of the accuracy is above the best guess without an image."""
        if self.accuracy_interval[0] <= self.chance:
            return "no better than chance on these images: fine-tune instead"
        if self.accuracy_interval[0] <= self.commonest:
            return "no better than always answering the commonest class of these images: fine-tune instead"
        return "better than chance on these images"


def recalibrate(
    model: str,
    data: DataSet,
    out: Path,
    on_progress: Progress = silent,
    *,
    split: str | None = None,
) -> Recalibration:
    """Write an ONNX model again with temperature and conformal scores of labelled images.

    Distances from the training images stay those of the network.

    model: embedded, an ONNX file, or a run that holds one.  data: with labels that the model's can be mapped from one
    to one.  out: the file to write; the hashes of the images are written next to it, so that they are not scored later.
    split: which images are used, or all; None: calibration or val of data with splits, else all.
    Raises DataError for fewer than 30 labelled images, or for some that the model was trained on; ConfigError for a
    model without probabilities, LabelError without a label map, CheckpointError if out can't be written.
    """
    source, network = open_file(model)
    info = network.info
    if info.task != "label":
        raise ConfigError(f"{model} has task {info.task}; labels calibrate a classifier of labels alone")
    mapping = map_to_data(info.find_labels(), data.labels)
    back = {mapping(i): i for i in range(len(info.labels)) if mapping(i) is not None}
    if len(back) < sum(mapping(i) is not None for i in range(len(info.labels))):
        raise ConfigError(f"several labels of {model} become one of {data.labels.name}; give data in its own labels")
    split, data = data.to_calibrate(split)
    samples = [sample for sample in data.samples if sample.label in back]
    if len(samples) < MIN_IMAGES:
        raise DataError(
            f"{data.name_with_split(split)} has {len(samples)} images with a label of {model}; at least "
            f"{MIN_IMAGES} are needed, and a hundred are better"
        )
    hashes = image_hashes(samples, lambda done: on_progress("hashing", done, len(samples)))
    seen = read_seen(source)
    refuse_seen(samples, hashes, seen, data.name)
    found = outputs_of_network(network, samples, on_progress, what="calibrating")
    if len(found.samples) < MIN_IMAGES:
        raise DataError(f"only {len(found.samples)} of {len(samples)} images can be read; {MIN_IMAGES} are needed")
    truth = np.array([back[sample.label] for sample in found.samples])
    fitted = calibrated(info, found.values, found.distances, np.eye(len(info.labels))[truth])
    fitted = replace(fitted, calibration_images="independent", calibrated_on=data.name_with_split(split))
    write_model(source, out, fitted.to_json())
    write_hashes(seen_file(out), {digest for digest in hashes if digest} | seen)
    return _measured(info, fitted, found, truth, split)


def _measured(
    info: ClassifierInfo, fitted: ClassifierInfo, found: Outputs, truth: NDArray[np.integer], split: str
) -> Recalibration:
    """Measure the change from info to fitted on the same outputs.  truth: (N,) places in the model's labels."""
    before, after = (answers_of(one, found.values, found.distances) for one in (info, fitted))
    labels = np.unique(truth)
    is_right = labels[before[:, labels].argmax(axis=1)] == truth
    familiarity = familiarity_of(found.distances, fitted.distances)
    has_sets = len(info.conformal_scores) >= MIN_IMAGES
    sets_before = likely_sets(info.conformal_scores, COVERAGE, before, truth) if has_sets else (None, None)
    sets_after = likely_sets(fitted.conformal_scores, COVERAGE, after, truth)
    return Recalibration(
        images=len(truth),
        split=split,
        temperature=fitted.temperature or 1.0,
        ece_before=expected_calibration_error(before, truth),
        ece_after=expected_calibration_error(after, truth),
        accuracy=float(is_right.mean()),
        accuracy_interval=bootstrap_interval(is_right, [one.group or one.image_key for one in found.samples]),
        chance=1 / len(labels),
        commonest=float(np.bincount(truth).max() / len(truth)),
        coverage_before=sets_before[0],
        coverage_after=sets_after[0],
        set_size_before=sets_before[1],
        set_size_after=sets_after[1],
        flagged=None if familiarity is None else float((familiarity < UNFAMILIAR).mean()),
    )


def open_file(model: str) -> tuple[Path, Network]:
    """Return the ONNX file of a model (embedded, small, the file itself, or in a run), and its network."""
    given = Path(model)
    source = file_of(given) if is_onnx(given) else given / ONNX
    return source, open_network(source)


def write_model(source: Path, out: Path, info: str) -> None:
    """Write an ONNX file of ours again with other metadata. Raises CheckpointError."""
    try:
        content = with_metadata(source.read_bytes(), KEY, info)
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise CheckpointError(f"{out} can't be written ({error.strerror}); choose another name") from error
