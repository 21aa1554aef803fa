"""Predictions of a model of ours for the images that large models are asked about."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemox.data import decode_sample, read_seen, refuse_seen, seen_by
from uniemox.errors import ConfigError, DataError, LabelError
from uniemox.io import ONNX, Progress, silent
from uniemox.labels import LabelMap, LabelSet, identity_map, label_map
from uniemox.predict import Failure, Predictor, load, open_finder
from uniemox_ask.question import AskedImage

# A map to a single label would give it probability 1 for every image.
MIN_REACHED = 2


def labels_of_ours(
    model: Path, images: Sequence[AskedImage], labels: LabelSet, on_progress: Progress = silent
) -> dict[str, str]:
    """Return the most probable label of every image by our model, by the image's sha256; see `probabilities_of_ours`.

    Raises:
        DataError: If the model was trained on one of the images.
    """
    samples = [image.sample for image in images]
    refuse_seen(samples, [image.sha256 for image in images], training_hashes(model), str(model))
    probabilities = probabilities_of_ours(model, images, labels, on_progress)
    return {image: labels.labels[int(values.argmax())] for image, values in probabilities.items()}


def training_hashes(model: Path) -> set[str]:
    """Return the hashes of the images that our model was trained on, as far as known.

    Args:
        model: As for `probabilities_of_ours`.
    """
    file = _file_of(model)
    if file.exists():
        return read_seen(file)
    # The name of a model in the package.
    return seen_by(str(model))


def probabilities_of_ours(
    model: Path, images: Sequence[AskedImage], labels: LabelSet, on_progress: Progress = silent
) -> dict[str, NDArray[np.float64]]:
    """Return the (E,) probabilities of the labels by our model for every image, by the image's sha256.

    A model that reads person boxes gets those of the data set, as in its evaluation; without boxes the embedded
    detector is run.

    Args:
        model: A fine-tuning run, its model.onnx, or the name of a model in the package, such as embedded.
        images: The images that models are asked about.
        labels: The data set's E labels; other labels of the model are mapped to them.
        on_progress: Called after each image.

    Raises:
        DataError: If an image can't be read.
        ConfigError: If the model predicts ratings or several labels instead of one label.
        LabelError: If model and data set differ in kind, felt or evoked, or there is no map between their labels.
    """
    predictor = load(_file_of(model), finder=None)
    if predictor.kind != labels.kind:
        raise LabelError(f"{model} predicts {predictor.kind}, {labels.name} has {labels.kind} emotions: not comparable")
    network = predictor.network
    if not network.info.has_shares:
        raise ConfigError(f"{model} predicts ratings or several labels; give a classifier of one label per image")
    to_data = _map_to(labels, network.info.find_labels())
    probabilities = dict[str, NDArray[np.float64]]()

    def save(image: AskedImage, values: Sequence[float]) -> None:
        named = to_data.named(values)
        probabilities[image.sha256] = np.array([named.get(label, 0.0) for label in labels.labels])
        on_progress("asking ours", len(probabilities), len(images))

    without_boxes = []
    for image in images:
        sample = image.sample
        if not network.info.needs_person or (sample.persons is None and not sample.target_box):
            without_boxes.append(image)
            continue
        # The network's input is that of its evaluation.
        views = network.image_views(decode_sample(sample), sample.persons, sample.target_box)
        save(image, network.answer_image(views).values[0].tolist())
    if without_boxes and network.info.needs_person:
        predictor = Predictor(network, open_finder("embedded"))
    answers = predictor.predict_each(image.sample.image.read() for image in without_boxes)
    for image, answer in zip(without_boxes, answers, strict=True):
        if isinstance(answer, Failure):
            raise DataError(f"{image.sample.key}: {answer.error}")
        save(image, [answer.scene[label] for label in to_data.source.labels])
    return probabilities


def _file_of(model: Path) -> Path:
    """Return the file of a run's network; other paths and names unchanged."""
    return model / ONNX if model.is_dir() else model


def _map_to(labels: LabelSet, source: LabelSet) -> LabelMap:
    """Return the map from a model's labels to the data set's.

    Raises:
        LabelError: Without a map, or if it reaches only one label.
    """
    if set(source.labels) == set(labels.labels):
        return identity_map(source)
    to_data = label_map(source, labels)
    if len(to_data.reached) < MIN_REACHED:
        raise LabelError(
            f"of {', '.join(labels.labels)}, only {len(to_data.reached)} is reached by {', '.join(source.labels)}; "
            "give a model with more of these labels"
        )
    return to_data
