"""Perceptual hashes: 128 bits recognise copies of an image in another file, size, shape or encoding.

A hash has the signs of the 128 lowest frequencies of the grey levels of an image that is squashed to a square. So the
shape of the image does not count, and the image can't be drawn from it. docs/results.md has the share of copies found.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.data.grouping import groups_by_traits

BITS = 128
SIDE = 32
"""Side of the small images from which hashes are computed, px."""
PREFIX = "p:"
"""Beginning of a perceptual hash among the hashes of files."""
# Maximum number of different bits of the same image: finds 98 % of crops by up to 5 % at each edge. docs/results.md has
# the shares of other alterations, and the false alarms.
MAX_DISTANCE = 20
# Pairs with more different bits than this are not compared as crops of each other.
MAX_CANDIDATE_DISTANCE = 40
# An image may be cropped by this share of a side at either end; what is missing is continued from the edge.
CROP = 0.05
# Minimum deviation of the grey levels; images without structure have no hash, because its bits would be noise.
MIN_DEVIATION = 4.0
# Copies have fewer different bits than this.
COPY_DISTANCE = 8
# An image with more neighbours than this is not distinctive, so that its copies have at most NEAR_DISTANCE. Neighbours
# have more different bits than a copy and at most this many. Of the photographs of FI, 0.2 % have more; of 300 drawn
# pages of text, 42 %.
MAX_NEIGHBOURS = 5
NEIGHBOUR_DISTANCE = 32
# Of images beside 12 variants that were turned by up to 5 degrees and cropped by up to 6 %, 99 % of resized copies have
# at most this distance; of 200 drawn pages of text, none has it to another one.
NEAR_DISTANCE = 4
# Side of the blocks whose mean grey levels are compared, px, and the largest difference of equal images, in levels. Of
# 400 photographs of FI, copies in six other forms differ by at most 8, 99.8 % by at most 5.
BLOCK = 4
MAX_BLOCK_DIFFERENCE = 5.0
# Rows that are compared at a time.
ROWS = 1024
Thumbs = NDArray[np.uint8]
"""Grey levels of squashed images, (N, 32, 32)."""
Bits = NDArray[np.bool_]
"""(N, 128)."""


@cache
def frequencies() -> NDArray[np.intp]:
    """Return the vertical and horizontal frequency of every bit, (128, 2), the lowest first, without the mean."""
    order = sorted(
        ((down, across) for down in range(SIDE) for across in range(SIDE) if down + across),
        key=lambda pair: (sum(pair), pair),
    )
    return np.array(order[:BITS])


@cache
def is_odd() -> Bits:
    """Return True for the bits that mirroring changes, (128,): odd horizontal frequencies."""
    odd: Bits = frequencies()[:, 1] % 2 == 1
    return odd


@cache
def waves(start: float, end: float) -> NDArray[np.float32]:
    """Return cosine waves over an axis that is extended beyond its ends, (F, 32).

    Args:
        start: Share of the side by which the axis is continued before its beginning.
        end: The same after its end.
    """
    count = int(frequencies().max()) + 1
    cosines = np.cos(np.pi * np.outer(np.arange(count), np.arange(SIDE) + 0.5) / SIDE)  # (F, 32)
    positions = ((np.arange(SIDE) + 0.5) / SIDE * (1 + start + end) - start) * SIDE - 0.5
    positions = positions.clip(0, SIDE - 1)
    distances = np.abs(positions[:, None] - np.arange(SIDE))
    # Linear interpolation between pixels.
    resampling = (1 - distances).clip(0)  # (32, 32)
    result: NDArray[np.float32] = (cosines @ resampling).astype(np.float32)
    return result


def small_grey(image: Image.Image) -> Thumbs:
    """Return the grey levels of an image squashed to 32 x 32 px."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return grey_of(np.asarray(small))


def grey_of(small: NDArray[np.uint8]) -> Thumbs:
    """Return the grey levels of small images, (..., 32, 32, 3) -> (..., 32, 32)."""
    levels = small.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return levels.round().astype(np.uint8)


def bits_of(thumbs: Thumbs, rows: tuple[float, float] = (0, 0), columns: tuple[float, float] = (0, 0)) -> Bits:
    """Return the bits of images.

    Args:
        thumbs: (N, 32, 32).
        rows: Shares by which the image is continued above and below.
        columns: The same on the left and on the right.
    """
    levels = thumbs.astype(np.float32)
    amplitudes = waves(*rows) @ levels @ waves(*columns).T  # (N, F, F)
    down, across = frequencies().T
    bits: Bits = amplitudes[:, down, across] > 0
    return bits


def has_structure(thumbs: Thumbs) -> Bits:
    """Return False for images of nearly one grey level, (N,)."""
    structured: Bits = thumbs.std(axis=(1, 2)) >= MIN_DEVIATION
    return structured


def perceptual_hashes(thumbs: Thumbs) -> list[str]:
    """Return the hash of every image; an empty text for images without structure.

    Args:
        thumbs: (N, 32, 32).
    """
    if not len(thumbs):
        return []
    packed = np.packbits(bits_of(thumbs), axis=1)
    pairs = zip(packed, has_structure(thumbs), strict=True)
    return [PREFIX + row.tobytes().hex() if structured else "" for row, structured in pairs]


def distances(first: Bits, second: Bits) -> NDArray[np.float32]:
    """Return the number of different bits of all pairs, or of their mirror images if that is smaller, (N, M)."""
    signs = np.where(second, np.float32(1), np.float32(-1)).T  # (128, M)
    plain = np.where(first, np.float32(1), np.float32(-1)) @ signs
    mirrored = np.where(first ^ is_odd(), np.float32(1), np.float32(-1)) @ signs
    return (BITS - np.maximum(plain, mirrored)) / 2


class Match(NamedTuple):
    """Two images that show the same."""

    query: int
    image: int


class PerceptualIndex:
    """Perceptual hashes of N images, among which copies are looked up.

    Args:
        bits: (N, 128).
    """

    def __init__(self, bits: Bits) -> None:
        self.bits = bits

    @classmethod
    def of(cls, hashes: Iterable[str]) -> Self:
        """Read the perceptual hashes among hashes; equal ones count once."""
        digits = sorted({digest.removeprefix(PREFIX) for digest in hashes if digest.startswith(PREFIX)})
        packed = np.frombuffer(bytes.fromhex("".join(digits)), np.uint8).reshape(len(digits), BITS // 8)
        return cls(np.unpackbits(packed, axis=1).astype(np.bool_))

    def __len__(self) -> int:
        return len(self.bits)

    def are_distinctive(self, rows: NDArray[np.intp]) -> Bits:
        """Return False for images that several others resemble, such as pages of text or objects cut out alike.

        Args:
            rows: Rows of R images.

        Returns:
            (R,).
        """
        neighbours = np.zeros(len(rows), int)
        for start in range(0, len(rows), ROWS):
            part = slice(start, start + ROWS)
            apart = distances(self.bits[rows[part]], self.bits)
            neighbours[part] = ((apart > COPY_DISTANCE) & (apart <= NEIGHBOUR_DISTANCE)).sum(axis=1)
        distinctive: Bits = neighbours <= MAX_NEIGHBOURS
        return distinctive

    def matches(self, thumbs: Thumbs) -> Iterator[Match]:
        """Yield the pairs of a query and an image that show the same; a query may be a small crop of the image.

        Images that are not distinctive match only queries with nearly the same hash.

        Args:
            thumbs: The queries, (Q, 32, 32).
        """
        if not len(self) or not len(thumbs):
            return
        structured = np.flatnonzero(has_structure(thumbs))
        for start in range(0, len(structured), ROWS):
            rows = structured[start : start + ROWS]
            near = distances(bits_of(thumbs[rows]), self.bits)
            queries, images = np.nonzero(near <= MAX_CANDIDATE_DISTANCE)
            if not len(queries):
                continue
            least = near[queries, images]
            for crop in _crops():
                # Only the candidates are compared again.
                cropped = bits_of(thumbs[rows], *crop)[queries]
                others = self.bits[images]
                for form in (cropped, cropped ^ is_odd()):
                    least = np.minimum(least, (form != others).sum(axis=1))
            is_close = least <= MAX_DISTANCE
            queries = queries[is_close]
            images = images[is_close]
            distinct, positions = np.unique(images, return_inverse=True)
            is_match = self.are_distinctive(distinct)[positions] | (near[queries, images] <= NEAR_DISTANCE)
            for query, image in zip(queries[is_match], images[is_match], strict=True):
                yield Match(int(rows[query]), int(image))

    def found(self, thumbs: Thumbs) -> set[int]:
        """Return the rows of the queries that show one of the images."""
        return {match.query for match in self.matches(thumbs)}


def _crops() -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return the combinations of crops at the four edges, but none at all."""
    ends = [(start, end) for start in (0, CROP) for end in (0, CROP)]
    return [(rows, columns) for rows in ends for columns in ends if any(rows) or any(columns)]


def _with_structure(thumbs: Sequence[Thumbs | None]) -> tuple[NDArray[np.intp], Thumbs]:
    """Return the numbers of the images that have structure, (N,), and their thumbs, (N, 32, 32)."""
    numbers = np.array([number for number, thumb in enumerate(thumbs) if thumb is not None], np.intp)
    stack = np.array([thumb for thumb in thumbs if thumb is not None], np.uint8).reshape(-1, SIDE, SIDE)
    structured = has_structure(stack)
    return numbers[structured], stack[structured]


def groups_of_equal_images(thumbs: Sequence[Thumbs | None]) -> dict[int, int]:
    """Return the first image of the group of equal images of every image that has an equal one.

    Equal images differ in size, shape or encoding alone: unlike `groups_of_copies`, the images are compared, and not
    only their hashes, and a crop is another image. So drawings that differ in a detail are not equal.

    Args:
        thumbs: (32, 32) of each image; None for an image that can't be read.
    """
    numbers, stack = _with_structure(thumbs)
    bits = bits_of(stack)
    # Means of 4 x 4 px, (N, 8, 8).
    blocks = stack.reshape(-1, SIDE // BLOCK, BLOCK, SIDE // BLOCK, BLOCK).astype(np.float32).mean(axis=(2, 4))
    signs = np.where(bits, np.float32(1), np.float32(-1))
    links: list[tuple[int, int]] = []
    for start in range(0, len(stack), ROWS):
        # The number of equal bits less that of different ones. Mirror images are other images.
        agreement = signs[start : start + ROWS] @ signs[start:].T
        rows, others = np.nonzero(np.triu(agreement > BITS - 2 * COPY_DISTANCE, k=1))
        for part in range(0, len(rows), ROWS):
            first = start + rows[part : part + ROWS]
            second = start + others[part : part + ROWS]
            apart = np.abs(blocks[first] - blocks[second]).max(axis=(1, 2))
            is_equal = apart <= MAX_BLOCK_DIFFERENCE
            pairs = zip(numbers[first[is_equal]].tolist(), numbers[second[is_equal]].tolist(), strict=True)
            links += ((each, pair[0]) for pair in pairs for each in pair)
    return groups_by_traits(links)


def groups_of_copies(thumbs: Sequence[Thumbs | None]) -> dict[int, int]:
    """Return the first image of the group of copies of every image that has a copy.

    Args:
        thumbs: (32, 32) of each image; None for an image that can't be read.
    """
    numbers, stack = _with_structure(thumbs)
    # Images with an equal hash are compared with the others once.
    hashes, first, hash_of_each = np.unique(bits_of(stack), axis=0, return_index=True, return_inverse=True)
    same_hash = zip(numbers.tolist(), hash_of_each.ravel().tolist(), strict=True)
    matches = PerceptualIndex(hashes).matches(stack[first])
    similar = ((int(numbers[first[match.query]]), match.image) for match in matches)
    group_of = groups_by_traits(chain(same_hash, similar))
    sizes = Counter(group_of.values())
    return {number: group for number, group in group_of.items() if sizes[group] > 1}
