"""Hashes of pictures, by which a test set is compared with what a model was trained on."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from uniemox.data.sample import Sample
from uniemox.data.scan import CHUNK, usable_cores


def picture_hashes(samples: Sequence[Sample], on_progress: Callable[[int], None] = lambda _: None) -> list[str]:
    """The sha256 of every sample's file, in their order; empty where it can't be read.

    on_progress: called with the number of pictures done.
    """
    hashes: list[str] = []
    chunks = [samples[i : i + CHUNK] for i in range(0, len(samples), CHUNK)]
    for chunk in _map(chunks):
        hashes += chunk
        on_progress(len(hashes))
    return hashes


def _map(chunks: Sequence[Sequence[Sample]]) -> Iterator[list[str]]:
    if len(chunks) < 3:
        yield from map(_hash_all, chunks)
        return
    with ProcessPoolExecutor(usable_cores()) as pool:
        yield from pool.map(_hash_all, chunks)


def _hash_all(samples: Sequence[Sample]) -> list[str]:
    return [_hash(sample) for sample in samples]


def _hash(sample: Sample) -> str:
    try:
        return hashlib.sha256(sample.picture.read()).hexdigest()
    except OSError:
        return ""
