"""A model's confidence fitted anew on labelled images of one's own, without torch: `uniemox calibrate`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from uniemox.data.hashes import image_hashes
from uniemox.data.sample import DataSet
from uniemox.data.seen import refuse_seen, seen_file, write_hashes
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.evaluate.calibration import calibrated, expected_calibration_error
from uniemox.evaluate.outputs import outputs_of_network
from uniemox.evaluate.run import file_of, is_onnx, map_to_data, seen_by_model
from uniemox.files import ONNX, replacing
from uniemox.onnx_metadata import with_metadata
from uniemox.predict.confidence import answers_of
from uniemox.predict.network import KEY
from uniemox.predict.opening import open_network
from uniemox.weight_names import IN_PACKAGE

MIN_IMAGES = 30


@dataclass(frozen=True, slots=True)
class Recalibration:
    """What was fitted, on how many images, and what it changes on these."""

    images: int
    split: str
    temperature: float
    ece_before: float
    ece_after: float


def recalibrate(
    model: str,
    data: DataSet,
    out: Path,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    *,
    split: str | None = None,
) -> Recalibration:
    """Write an ONNX model again with temperature, conformal scores and known distances of labelled images.

    model: embedded, an ONNX file, or a run that holds one.  data: with labels that the model's can be mapped from one
    to one.  out: the file to write; the hashes of the images lie beside it, so that they are not scored later.
    split: which images are used, or all; None: calibration or val of data with splits, else all.
    Raises DataError for fewer than 30 labelled images, or for some that the model was trained on; ConfigError for a
    model without probabilities, LabelError without a label map, CheckpointError if out can't be written.
    """
    given = Path(model)
    source = file_of(given) if is_onnx(given) else given / ONNX
    network = open_network(source)
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
    seen = seen_by_model(given if str(given) in IN_PACKAGE else source)
    refuse_seen(samples, hashes, seen, data.name)
    found = outputs_of_network(network, samples, lambda done: on_progress("calibrating", done, len(samples)))
    truth = np.array([back[sample.label] for sample in found.samples])
    before = answers_of(info, found.values, found.distances)
    fitted = calibrated(info, found.values, found.distances, np.eye(len(info.labels))[truth])
    fitted = replace(fitted, calibration_images="independent", calibrated_on=data.name_with_split(split))
    after = answers_of(fitted, found.values, found.distances)
    write_model(source, out, fitted.to_json())
    write_hashes(seen_file(out), {digest for digest in hashes if digest} | seen)
    ece = [expected_calibration_error(answers, truth) for answers in (before, after)]
    return Recalibration(len(truth), split, fitted.temperature or 1.0, *ece)


def write_model(source: Path, out: Path, info: str) -> None:
    """Write an ONNX file of ours again with other metadata. Raises CheckpointError."""
    try:
        content = with_metadata(source.read_bytes(), KEY, info)
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise CheckpointError(f"{out} can't be written ({error.strerror}); choose another name") from error
