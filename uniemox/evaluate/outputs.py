"""Outputs of an ONNX network over a data set."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import from_affect
from uniemox.data.sample import Broken, Sample, decode_sample
from uniemox.errors import DataError, ImageError
from uniemox.io.parallel import parallel_map
from uniemox.predict.network import Network


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs for the M readable samples."""

    values: NDArray[np.float32]  # (M, E) logits, or (M, V, D) features of the encoder
    distances: NDArray[np.float32] | None  # (M,) from the training images; None: the classifier does not know them
    samples: tuple[Sample, ...]  # M
    broken: tuple[Broken, ...]


def outputs_of_network(
    network: Network,
    samples: Sequence[Sample],
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    rated: bool = False,
) -> Outputs:
    """Logits of all samples in the views of evaluation: the middle, and the people that the data set knows.

    rated: valence and arousal of its head for ratings instead, as a network of task affect gives them (`from_affect`).
    on_progress: called with the number of samples done.  Raises DataError if none of the images can be read.
    """
    read, broken = list[Sample](), list[Broken]()

    def measure(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.float32] | None] | Broken:
        try:
            image, full = decode_sample(sample)
        except ImageError as error:
            return Broken(sample.key, str(error))
        views = [network.look(image, full, sample.persons, sample.target_box)]
        logits, distances = network.measure(views)
        if rated and network.rating_head is not None:
            ratings = network.rating_head.rate(*network.features(views))
            return from_affect(ratings).astype(np.float32), distances
        return logits, distances

    found = list[tuple[NDArray[np.float32], NDArray[np.float32] | None]]()
    with closing(parallel_map(samples, measure)) as results:
        for done, (sample, measured) in enumerate(zip(samples, results, strict=True), start=1):
            if isinstance(measured, Broken):
                broken.append(measured)
            else:
                read.append(sample)
                found.append(measured)
            on_progress(done)
    if not found:
        reason = broken[0].reason if broken else "there is none"
        raise DataError(f"none of {len(samples)} images can be read: {reason}")
    values = np.concatenate([logits for logits, _ in found])
    distances = [far for _, far in found if far is not None]
    return Outputs(values, np.concatenate(distances) if distances else None, tuple(read), tuple(broken))
