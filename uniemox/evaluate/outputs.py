"""Outputs of an ONNX network over a data set."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.classifier_info import from_affect
from uniemox.data.sample import Broken, Sample, decode_sample
from uniemox.errors import DataError, ImageError
from uniemox.io.borders import image_border
from uniemox.io.parallel import parallel_map
from uniemox.io.progress import Progress, silent
from uniemox.io.sized_image import SizedImage
from uniemox.predict.colour import is_colourless
from uniemox.predict.network import DISTANCE, FEATURES, LOGITS, Array, Network

COLOURLESS = "colourless"


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs for the M readable samples."""

    values: NDArray[np.float32]  # (M, E) logits, or (M, 2) valence and arousal
    distances: NDArray[np.float32] | None  # (M,) from the training images; None: the classifier has no distance
    samples: tuple[Sample, ...]  # M
    broken: tuple[Broken, ...]
    is_colourless: NDArray[np.bool_] | None = None  # (M,); None: not known


@dataclass(frozen=True, slots=True)
class EncodedSamples:
    """Features of an encoder for the M readable samples."""

    values: NDArray[np.float32]  # (M, V, D) for V views
    samples: tuple[Sample, ...]  # M
    broken: tuple[Broken, ...]


def outputs_of_network(
    network: Network,
    samples: Sequence[Sample],
    on_progress: Progress = silent,
    *,
    work: str = "evaluating",
    rated: bool = False,
) -> Outputs:
    """Return logits of all samples, seen as in a prediction, with the people in the data set.

    Args:
        network: The network.
        samples: Samples whose images the network reads.
        on_progress: Called after each image.
        work: Name of the work, for on_progress.
        rated: Return valence and arousal of the rating head instead, in the form of a task-affect network
            (`from_affect`).

    Raises:
        DataError: If no image can be read.
    """
    head = network.rating_head if rated else None
    more = [] if head is None else [FEATURES]
    outputs, read, broken = run_each(network, samples, more, work, on_progress)
    values = outputs[LOGITS]
    if head is not None:
        values = from_affect(head.rate(outputs[FEATURES], values)).astype(np.float32)
    return Outputs(values, outputs.get(DISTANCE), tuple(read), tuple(broken), outputs[COLOURLESS].astype(bool))


def run_each(
    network: Network,
    samples: Sequence[Sample],
    more: Sequence[str],
    work: str,
    on_progress: Progress,
    change: Callable[[Image.Image], Image.Image] | None = None,
) -> tuple[dict[str, Array], list[Sample], list[Broken]]:
    """Run a network on all samples.

    Args:
        network: The network.
        samples: Samples whose images the network reads.
        more: Names of outputs besides logits and distance.
        work: Name of the work, for on_progress.
        on_progress: Called after each image.
        change: Function that changes an image to one of the same size; None: images stay unchanged.

    Returns:
        Outputs by name, (M, ...) each, and the readable and the unreadable samples. "colourless", (M,) of bool, is one
        of the outputs, see `is_colourless`.

    Raises:
        DataError: If no image can be read.
    """

    def run(sample: Sample) -> dict[str, Array] | Broken:
        try:
            with image_border(str(sample.image)):
                sized = decode_sample(sample)
                if change is not None:
                    sized = SizedImage(change(sized.image), sized.full_size)
                flags = {COLOURLESS: np.array([is_colourless(sized.image)])}
                look = network.image_views(sized, sample.persons, sample.target_box)
                return network.run_image(look, more) | flags
        except ImageError as error:
            return Broken(sample.key, str(error))

    outputs = list[dict[str, Array]]()
    read = list[Sample]()
    broken = list[Broken]()
    with closing(parallel_map(samples, run)) as results:
        for done, (sample, result) in enumerate(zip(samples, results, strict=True), start=1):
            if isinstance(result, Broken):
                broken.append(result)
            else:
                outputs.append(result)
                read.append(sample)
            on_progress(work, done, len(samples))
    if not outputs:
        raise nothing_read(broken)
    joined = {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}
    return joined, read, broken


def nothing_read(broken: Sequence[Broken]) -> DataError:
    """Return the error for a data set without a readable image."""
    return DataError(f"none of {len(broken)} images can be read: {broken[0].reason if broken else 'there is none'}")
