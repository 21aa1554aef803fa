"""Hashes of images, by which a test set is compared with what a model was trained on."""

import hashlib
from collections.abc import Callable, Sequence

from uniemox.data.processes import map_samples
from uniemox.data.sample import Sample


def image_hashes(samples: Sequence[Sample], on_progress: Callable[[int], None] = lambda _: None) -> list[str]:
    """The sha256 of every sample's file, in their order; empty where it can't be read.

    on_progress: called with the number of images done.
    """
    return map_samples(_hash_all, samples, on_progress=on_progress)


def _hash_all(samples: Sequence[Sample]) -> list[str]:
    return [_hash(sample) for sample in samples]


def _hash(sample: Sample) -> str:
    try:
        return hashlib.sha256(sample.image.read()).hexdigest()
    except OSError:
        return ""
