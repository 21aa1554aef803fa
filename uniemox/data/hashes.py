"""Hashes of image files, by which exact copies and training images are found."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

from uniemox.classifier_info import PersonPolicy
from uniemox.data.processes import map_samples
from uniemox.data.sample import Broken, Sample, decode_sample
from uniemox.errors import BoxError, ImageError
from uniemox.io.images import MinSides
from uniemox.io.progress import Progress, silent
from uniemox.persons.box import choose_person

# Minimum short side of reduced JPEGs that are only checked, not compared.
CHECKED_PX = 64


def image_hashes(samples: Sequence[Sample], on_progress: Progress = silent) -> list[str]:
    """Return the sha256 of every sample's file, in order; an empty text for an unreadable file."""
    return map_samples(_hash, samples, "hashing images", on_progress=on_progress)


def stored_or_image_hashes(samples: Sequence[Sample], on_progress: Progress = silent) -> list[str]:
    """Return the hashes of `image_hashes`; those that an index of shards stores are not computed again."""
    return _stored_or(samples, partial(image_hashes, on_progress=on_progress))


def stored_or_decoded_hashes(samples: Sequence[Sample], on_progress: Progress = silent) -> list[str]:
    """Return the hashes of `decoded_hashes`; those that an index of shards stores are not computed again.

    Shards hold images that were readable when they were written.
    """
    return _stored_or(samples, lambda others: decoded_hashes(others, on_progress)[0])


def _stored_or(samples: Sequence[Sample], compute: Callable[[Sequence[Sample]], list[str]]) -> list[str]:
    """Return the stored hash of each sample, or the computed one."""
    stored = [getattr(sample.image, "sha256", None) for sample in samples]
    others = [sample for sample, digest in zip(samples, stored, strict=True) if digest is None]
    computed = iter(compute(others) if others else ())
    return [next(computed) if digest is None else str(digest) for digest in stored]


def _hash(sample: Sample) -> str:
    try:
        return hashlib.sha256(sample.image.read()).hexdigest()
    except OSError:
        return ""


def decoded_hashes(
    samples: Sequence[Sample], on_progress: Progress = silent, person: PersonPolicy | None = None
) -> tuple[list[str], list[Broken]]:
    """Hash the file of every sample that is a readable image. JPEGs are decoded at a reduced size.

    Args:
        person: Policy of the person view; a target box outside of the image then counts as unreadable, if the view
            needs it. None: no person view.

    Returns:
        The sha256 of every sample's file, in order, an empty text for one that is no readable image; and the unreadable
        samples with their reasons.
    """
    results = map_samples(partial(_decoded_hash, person), samples, "hashing images", on_progress=on_progress)
    broken = [Broken(sample.key, reason) for sample, (_, reason) in zip(samples, results, strict=True) if reason]
    return [digest for digest, _ in results], broken


def _decoded_hash(person: PersonPolicy | None, sample: Sample) -> tuple[str, str]:
    """Return the hash of a sample's file and no reason, or no hash and the reason why it can't be read."""
    try:
        _, size = decode_sample(sample, MinSides(short_px=CHECKED_PX))
        if person is not None:
            choose_person(sample.persons, sample.target_box, size, person)
    except ImageError as error:
        return "", str(error)
    except BoxError as error:
        return "", f"{sample.image}: {error}"
    return _hash(sample), ""
