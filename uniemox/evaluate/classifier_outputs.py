"""Outputs of a torch classifier over a data set."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from uniemox.checkpoints.classifier import load_classifier
from uniemox.classifier_info import ClassifierInfo
from uniemox.data.sample import Broken, Sample
from uniemox.errors import DataError
from uniemox.evaluate.outputs import EncodedSamples, Outputs, nothing_read
from uniemox.io.progress import Progress, silent
from uniemox.model.classifier import Classifier
from uniemox.model.config import Precision
from uniemox.model.eval_mode import eval_mode
from uniemox.network_spec import views_of
from uniemox.persons.box import Box
from uniemox.predict.network import DISTANCE, FEATURES, LOGITS, is_blank, is_tiny, mean_outputs
from uniemox.predict.views import scene_parts
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import autocast, count_workers, setup_device
from uniemox.views.config import ViewConfig
from uniemox.views.loader import ViewBatch, load_batches
from uniemox.views.patches import PixelStats, normalise
from uniemox.views.transforms import EvalViews

BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Settings by which a network reads images, apart from its views."""

    stats: PixelStats
    """Normalisation of the encoder's pixels."""
    precision: Precision = "float32"
    """Precision of the computation."""
    workers: int = 1
    """Number of processes that decode images."""
    on_progress: Progress = silent
    """Called after each batch."""


def outputs_of(classifier: Classifier, samples: Sequence[Sample], view: ViewConfig, reading: Reading) -> Outputs:
    """Return the logits of all samples, seen as in a prediction.

    A classifier that was compiled for training runs eagerly. Its mode is restored afterwards.

    Args:
        classifier: The network.
        samples: Samples whose images the network reads.
        view: Settings of its views. A long image is seen as by rule "blend" of `AnswerRules`.
        reading: How it reads them.

    Raises:
        DataError: If no image can be read.
    """

    def answer(**pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits, distances = classifier.answer(**pixels)
        return {LOGITS: logits} if distances is None else {LOGITS: logits, DISTANCE: distances}

    outputs, read, broken = _collect(partial(_CollectedOutputs, classifier, answer, reading), samples, view)
    return Outputs(outputs[LOGITS], outputs.get(DISTANCE), read, broken)


def encode_samples(
    classifier: Classifier, samples: Sequence[Sample], view: ViewConfig, reading: Reading
) -> EncodedSamples:
    """Return the encoder's features of all samples, of each view. Takes and raises the same as `outputs_of`."""

    def encode(**pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {FEATURES: classifier.encode(**pixels)}

    outputs, read, broken = _collect(partial(_CollectedOutputs, classifier, encode, reading), samples, view)
    return EncodedSamples(outputs[FEATURES], read, broken)


def _collect(
    new_outputs: Callable[[], "_CollectedOutputs"], samples: Sequence[Sample], view: ViewConfig
) -> tuple[dict[str, np.ndarray], tuple[Sample, ...], tuple[Broken, ...]]:
    """Return the outputs for the readable samples by name, these samples, and the others.

    Args:
        new_outputs: Returns an empty collection of outputs.
        samples: As for `outputs_of`.
        view: As for `outputs_of`.

    Raises:
        DataError: If no image can be read.
    """
    collected = new_outputs()
    classifier = collected.classifier
    reading = collected.reading
    read = list[Sample]()
    crops = list[Box]()
    broken = list[Broken]()
    with eval_mode(classifier):
        for batch in load_batches(samples, EvalViews(view), BATCH, workers=reading.workers):
            if batch.samples:
                collected.add(batch)
                read += batch.samples
                crops += batch.crops
            broken += batch.broken
            reading.on_progress("evaluating", len(read) + len(broken), len(samples))
        if not read:
            raise nothing_read(broken)
        outputs = collected.by_name()
        if classifier.streams == "scene" and not view.hide_person:

            def outputs_of_square(square: int, long_samples: Sequence[Sample]) -> dict[str, np.ndarray]:
                of_square = new_outputs()
                of_square.add_all(long_samples, EvalViews(view, square))
                return of_square.by_name()

            # The crop is in the middle of the image, so its ends add up to the image's size.
            sizes = [_size_of_image(crop) for crop in crops]
            _blend_long_images(outputs, read, sizes, outputs_of_square)
    return outputs, tuple(read), tuple(broken)


def _blend_long_images(
    outputs: dict[str, np.ndarray],
    samples: Sequence[Sample],
    sizes: Sequence[tuple[int, int]],
    outputs_of_square: Callable[[int, Sequence[Sample]], dict[str, np.ndarray]],
) -> None:
    """Replace the outputs for long images by the weighted means of the outputs for the squares along them.

    Args:
        outputs: Outputs for N samples by name, changed in place.
        samples: N.
        sizes: (N,), width and height of their images.
        outputs_of_square: Returns the outputs for the square of a number of each of some samples.
    """
    weights = [[weight for _, weight in scene_parts(size)] for size in sizes]
    long_rows = [row for row, row_weights in enumerate(weights) if len(row_weights) > 1]
    long_samples = [samples[row] for row in long_rows]
    most_squares = max((len(weights[row]) for row in long_rows), default=0)
    # An image with fewer squares repeats its last one, which is not used.
    by_square = [outputs_of_square(square, long_samples) for square in range(most_squares)]
    for index, row in enumerate(long_rows):
        squares = by_square[: len(weights[row])]
        outputs_of_image = {name: np.stack([square[name][index] for square in squares]) for name in outputs}
        for name, mean in mean_outputs(outputs_of_image, weights[row]).items():
            outputs[name][row] = mean[0]


class _CollectedOutputs:
    """Outputs of a classifier for batches of views.

    Args:
        classifier: The network.
        compute: Returns outputs by name for normalised views by name.
        reading: How the network reads images.
    """

    def __init__(
        self, classifier: Classifier, compute: Callable[..., dict[str, torch.Tensor]], reading: Reading
    ) -> None:
        self.classifier = classifier
        self.compute = compute
        self.reading = reading
        self.device = next(classifier.parameters()).device
        self._outputs: dict[str, list[np.ndarray]] = {}

    def add(self, batch: ViewBatch) -> None:
        """Compute the outputs for a batch."""
        # Batches of another size, and without gradients, would be compiled again, which takes minutes.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"), autocast(self.device, self.reading.precision):
            views = select_views(self.classifier, batch)
            pixels = {name: normalise(value, self.device, self.reading.stats) for name, value in views.items()}
            outputs = {name: value.float().cpu().numpy() for name, value in self.compute(**pixels).items()}
        if DISTANCE in outputs:
            are_blank = [
                is_blank(*(view[i].numpy() for view in views.values())) or is_tiny(_size_of_image(batch.crops[i]))
                for i in range(len(batch.samples))
            ]
            outputs[DISTANCE] = np.where(are_blank, np.float32(np.inf), outputs[DISTANCE])
        for name, values in outputs.items():
            self._outputs.setdefault(name, []).append(values)

    def add_all(self, samples: Sequence[Sample], views: EvalViews) -> None:
        """Compute the outputs for samples that could be read before.

        Raises:
            DataError: If one of them can't be read any more.
        """
        for batch in load_batches(samples, views, BATCH, workers=self.reading.workers):
            if batch.broken:
                raise DataError(f"{batch.broken[0].reason}; it could be read a moment before")
            self.add(batch)

    def by_name(self) -> dict[str, np.ndarray]:
        """Return the outputs so far, by name."""
        return {name: np.concatenate(values) for name, values in self._outputs.items()}


def _size_of_image(crop: Box) -> tuple[int, int]:
    """Return width and height of an image, px, from the part that its scene view shows, which is in its middle."""
    return round(crop.x1 + crop.x2), round(crop.y1 + crop.y2)


def select_views(classifier: Classifier, batch: ViewBatch) -> dict[str, torch.Tensor]:
    """Return the views that the classifier reads, by name: (N, 3, S, S) uint8 each."""
    views = {"scene": batch.scene, "person": batch.person}
    return {name: view for name, view in views.items() if name in views_of(classifier.streams)}


def open_classifier(
    weights: Path, hardware: HardwareConfig | None
) -> tuple[ClassifierInfo, Callable[[Sequence[Sample], Progress], Outputs]]:
    """Open a classifier: its metadata, and a function that returns its outputs for samples.

    Args:
        weights: The model.safetensors of a fine-tuning run.
        hardware: Device, precision and workers; None: the defaults.

    Raises:
        CheckpointError: If the file can't be read, or is not a classifier's.
    """
    classifier, info = load_classifier(weights)
    hardware = hardware or HardwareConfig()
    device = setup_device(hardware)
    classifier.to(device)
    view = ViewConfig.of(info)
    reading = Reading(stats=PixelStats(info.mean, info.std), workers=count_workers(hardware, device))

    def outputs_of_samples(samples: Sequence[Sample], on_progress: Progress) -> Outputs:
        return outputs_of(classifier, samples, view, replace(reading, on_progress=on_progress))

    return info, outputs_of_samples
