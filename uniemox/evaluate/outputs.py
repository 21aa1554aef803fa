"""Outputs of an ONNX network over a data set."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import from_affect
from uniemox.data.sample import Broken, Sample, decode_sample
from uniemox.errors import DataError, ImageError
from uniemox.io.parallel import parallel_map
from uniemox.io.progress import Progress, silent
from uniemox.predict.network import DISTANCE, FEATURES, LOGITS, Array, Network
from uniemox.predict.views import Pixels

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Outputs:
    """Outputs for the M readable samples."""

    values: NDArray[np.float32]  # (M, E) logits, or (M, V, D) features of the encoder
    distances: NDArray[np.float32] | None  # (M,) from the training images; None: the classifier does not know them
    samples: tuple[Sample, ...]  # M
    broken: tuple[Broken, ...]

    @classmethod
    def joined(
        cls, batches: Sequence[tuple[Array, Array | None]], samples: Sequence[Sample], broken: Sequence[Broken]
    ) -> "Outputs":
        """Join values and distances of batches. Raises DataError if there is no batch."""
        if not batches:
            reason = broken[0].reason if broken else "there is none"
            raise DataError(f"none of {len(broken)} images can be read: {reason}")
        distances = [far for _, far in batches if far is not None]
        values = np.concatenate([part for part, _ in batches])
        return cls(values, np.concatenate(distances) if distances else None, tuple(samples), tuple(broken))


def outputs_of_network(
    network: Network,
    samples: Sequence[Sample],
    on_progress: Progress = silent,
    *,
    what: str = "evaluating",
    rated: bool = False,
) -> Outputs:
    """Return logits of all samples in the views of evaluation: the middle, and the people that the data set knows.

    rated: valence and arousal of its head for ratings instead, as a network of task affect gives them (`from_affect`).
    what: name of the work, for on_progress.  Raises DataError if none of the images can be read.
    """
    head = network.rating_head if rated else None

    def measure(views: Mapping[str, Pixels]) -> tuple[Array, Array | None]:
        found = network.run([views], [] if head is None else [FEATURES])
        if head is None:
            return found[LOGITS], found.get(DISTANCE)
        ratings = head.rate(found[FEATURES], found[LOGITS])
        return from_affect(ratings).astype(np.float32), found.get(DISTANCE)

    return Outputs.joined(*measure_each(network, samples, measure, what, on_progress))


def measure_each(
    network: Network,
    samples: Sequence[Sample],
    measure: Callable[[Mapping[str, Pixels]], Item],
    what: str,
    on_progress: Progress,
) -> tuple[list[Item], list[Sample], list[Broken]]:
    """Return what `measure` makes of the network's views of each readable sample, these samples, and the others."""

    def look(sample: Sample) -> Item | Broken:
        try:
            image, full = decode_sample(sample)
        except ImageError as error:
            return Broken(sample.key, str(error))
        return measure(network.look(image, full, sample.persons, sample.target_box))

    found, read, broken = list[Item](), list[Sample](), list[Broken]()
    with closing(parallel_map(samples, look)) as results:
        for done, (sample, one) in enumerate(zip(samples, results, strict=True), start=1):
            if isinstance(one, Broken):
                broken.append(one)
            else:
                found.append(one)
                read.append(sample)
            on_progress(what, done, len(samples))
    return found, read, broken
