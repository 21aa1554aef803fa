"""Hashes of image files, and of what they show, by which copies and training images are found."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from uniemox.classifier_info import PersonPolicy
from uniemox.data.perceptual import Thumbs, groups_of_copies, groups_of_equal_images, perceptual_hashes, small_grey
from uniemox.data.processes import map_samples
from uniemox.data.sample import Broken, Sample, decode_sample
from uniemox.data.synthetic_scenes import SyntheticImage
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


class Fingerprint(NamedTuple):
    """Hash of an image file, and a small copy of the image, by which copies in another file are recognised."""

    sha256: str
    """Hash of its file; empty for an unreadable image."""
    thumb: Thumbs | None
    """Its small grey copy, (32, 32), see data/perceptual.py; None for an unreadable or drawn image."""

    @property
    def hashes(self) -> set[str]:
        """Hash of the file, and perceptual hash."""
        perceptual = [] if self.thumb is None else perceptual_hashes(self.thumb[None])
        return {self.sha256, *perceptual} - {""}


def decoded_hashes(
    samples: Sequence[Sample], on_progress: Progress = silent, person: PersonPolicy | None = None
) -> tuple[list[str], list[Broken]]:
    """Return the sha256 of every image file, and the unreadable samples; see `fingerprints`."""
    hashed, broken = fingerprints(samples, on_progress, person)
    return [fingerprint.sha256 for fingerprint in hashed], broken


def fingerprints(
    samples: Sequence[Sample], on_progress: Progress = silent, person: PersonPolicy | None = None
) -> tuple[list[Fingerprint], list[Broken]]:
    """Hash every sample that is a readable image. JPEGs are decoded at a reduced size.

    Args:
        person: Policy of the person view; a target box outside of the image then counts as unreadable, if the view
            needs it. None: no person view.

    Returns:
        The fingerprint of every sample, in order, and the unreadable samples with their reasons.
    """
    results = map_samples(partial(_fingerprint, person), samples, "hashing images", on_progress=on_progress)
    broken = [Broken(sample.key, reason) for sample, (_, reason) in zip(samples, results, strict=True) if reason]
    return [fingerprint for fingerprint, _ in results], broken


def hashes_of_copies(images: Sequence[Fingerprint]) -> list[str]:
    """Return the sha256 of every image, and for a copy in another file that of the first image of its group."""
    first = groups_of_copies([image.thumb for image in images])
    return [images[first.get(number, number)].sha256 for number in range(len(images))]


def hashes_of_equal_images(images: Sequence[Fingerprint]) -> list[str]:
    """Return the sha256 of every image, and for an equal one in another file that of the first image of its group."""
    first = groups_of_equal_images([image.thumb for image in images])
    return [images[first.get(number, number)].sha256 for number in range(len(images))]


def small_images(samples: Sequence[Sample], on_progress: Progress = silent) -> list[Thumbs | None]:
    """Return the small grey copy of every sample's image, see `Fingerprint.thumb`."""
    return [fingerprint.thumb for fingerprint in fingerprints(samples, on_progress)[0]]


def _fingerprint(person: PersonPolicy | None, sample: Sample) -> tuple[Fingerprint, str]:
    """Return the fingerprint of a sample and no reason, or an empty one and the reason why it can't be read."""
    try:
        image, size = decode_sample(sample, MinSides(short_px=CHECKED_PX))
        if person is not None:
            choose_person(sample.persons, sample.target_box, size, person)
    except ImageError as error:
        return Fingerprint("", None), str(error)
    except BoxError as error:
        return Fingerprint("", None), f"{sample.image}: {error}"
    # Drawn scenes are never copies of each other, however much they resemble each other.
    thumb = None if isinstance(sample.image, SyntheticImage) else small_grey(image)
    return Fingerprint(_hash(sample), thumb), ""
