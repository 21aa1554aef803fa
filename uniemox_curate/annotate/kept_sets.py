"""Fingerprint of the images that a rule keeps, with their labels: it tells whether a split or a release is stale."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from uniemox_curate.annotate.verdicts import Verdict

# Fingerprints are sums modulo this number, so that images can be added and subtracted in any order.
MODULUS = 2**63


@dataclass(frozen=True, slots=True)
class KeptSet:
    """Number and fingerprint of kept images; equal fingerprints mean the same images with the same labels."""

    images: int = 0
    fingerprint: int = 0

    def plus(self, images: int, fingerprint: int) -> "KeptSet":
        """Return the set with more images; negative numbers remove some."""
        return KeptSet(self.images + images, (self.fingerprint + fingerprint) % MODULUS)


def term_of(image: int, label: str) -> int:
    """Return the part of an image in the fingerprint.

    Args:
        image: Number of the image.
        label: Label under which it is kept.
    """
    return int.from_bytes(blake2b(f"{image} {label}".encode(), digest_size=8).digest())


def kept_set(verdicts: Mapping[int, Verdict]) -> KeptSet:
    """Return the set of the images that have a label."""
    labels = {image: verdict.label for image, verdict in verdicts.items() if verdict.label is not None}
    return KeptSet().plus(len(labels), sum(term_of(image, label) for image, label in labels.items()))
