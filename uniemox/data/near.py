"""Near duplicates: images that differ only in encoding, size, mirroring and slight cropping."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from uniemox.data.near_pairs import Descriptions, Pairs, Roots, pairs_of_colour, similar_pairs

# Cosine frequencies in each direction that describe an image.
FREQUENCIES = 8
# Minimum cosine of two descriptions of the same image; docs/data.md has the measurements.
MIN_COSINE = 0.85
# Maximum RMS difference of the same image after the best small crop, in levels of 255.
MAX_RESIDUAL = 5.0
# A shorter description means an image without structure; photographs have above 400.
MIN_LENGTH = 50.0
# Maximum share of a side that a crop removes.
MAX_CROP = 0.05
# Blocks in each direction whose means rule most different images out, and tolerance for their rounding, in levels.
BLOCKS = 4
ROUNDING = 0.25
# Images that are described at a time, and pairs that are compared at a time.
DESCRIBED = 4096
PAIRS = 2048
# Sign of each frequency in the mirror image: odd horizontal ones change theirs.
MIRROR_SIGNS = np.tile((-1.0) ** np.arange(FREQUENCIES), FREQUENCIES).astype(np.float32)


def near_groups(thumbs: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Group images that differ only in encoding, size, mirroring and slight cropping.

    Up to 20,000 images every pair is compared. Of more images about one near duplicate in 5,000 is missed, and the time
    grows with N to the power of 1.5; docs/performance.md has figures. Needs about 800 bytes of memory per image.

    Args:
        thumbs: (N, 32, 32, 3) small images; the array may be a file, such as a `numpy.memmap`.

    Returns:
        (N,) numbers: all images of a group, even if linked through others, have the number of its first.
    """
    # Union-find: the root of a group is its smallest number.
    parent = np.arange(len(thumbs))
    blocks = BlockMeans.of(thumbs)
    for first, second in _candidates(thumbs, partial(_roots, parent)):
        _join_same(parent, thumbs, blocks, first, second)
    return _roots(parent, np.arange(len(thumbs)))


def _candidates(thumbs: NDArray[np.uint8], roots: Roots) -> Iterator[Pairs]:
    """Yield pairs of images with similar descriptions, or of flat images with similar colours."""
    count = len(thumbs)
    is_even = MIRROR_SIGNS > 0
    even = np.empty((count, is_even.sum()), np.float32)
    odd = np.empty((count, (~is_even).sum()), np.float32)
    is_flat = np.empty(count, np.bool_)
    for start in range(0, count, DESCRIBED):
        part = slice(start, start + DESCRIBED)
        descriptions, lengths = describe_structure(thumbs[part])
        # Mirroring changes the sign of odd frequencies: the cosine is even + odd, that of the mirror image even - odd.
        even[part] = descriptions[:, is_even]
        odd[part] = descriptions[:, ~is_even]
        is_flat[part] = lengths < MIN_LENGTH
    yield from similar_pairs(Descriptions(even, odd, is_flat), MIN_COSINE, roots)

    # Descriptions of flat images are noise; their mean colours are compared instead.
    flat = np.flatnonzero(is_flat)
    colours = thumbs[flat].mean(axis=(1, 2), dtype=np.float32)  # (F, 3)
    for first, second in pairs_of_colour(colours, MAX_RESIDUAL, lambda numbers: roots(flat[numbers])):
        yield flat[first], flat[second]


class BlockMeans(NamedTuple):
    """Means of images over 4 x 4 blocks, from which a difference can be bounded quickly."""

    means: NDArray[np.float16]
    """(N, 4, 4, 3) levels of 255."""
    slack: NDArray[np.float16]
    """Most by which a crop changes each mean, (N, 4, 4, 3) levels."""

    @classmethod
    def of(cls, thumbs: NDArray[np.uint8]) -> Self:
        """Compute the means of images, (N, 32, 32, 3)."""
        side = thumbs.shape[1]
        mean = np.repeat(np.eye(BLOCKS), side // BLOCKS, axis=1) * BLOCKS / side  # (4, S)
        gradient = np.gradient(np.eye(side), axis=0)  # (S, S)
        offsets = (np.arange(side) - (side - 1) / 2) / side  # (S,) from the middle, in parts of the side
        # Mean, shift and stretch in one direction; see `_residual_after_crop`.
        shift = MAX_CROP * side * 0.5 * mean @ gradient
        stretch = MAX_CROP * side * (mean * offsets) @ gradient
        parts = np.concatenate([mean, shift, stretch]).astype(np.float32)  # (12, S)
        means = np.empty((len(thumbs), BLOCKS, BLOCKS, 3), np.float16)
        slack = np.empty_like(means)
        for start in range(0, len(thumbs), DESCRIBED):
            block = slice(start, start + DESCRIBED)
            down = np.tensordot(thumbs[block].astype(np.float32), parts, (1, 1))  # (M, S, 3, 12)
            across = np.tensordot(down[..., :BLOCKS], parts, (1, 1))  # (M, 3, 4, 12)
            upright = np.tensordot(down[..., BLOCKS:], parts[:BLOCKS], (1, 1))  # (M, 3, 8, 4)
            means[block] = np.moveaxis(across[..., :BLOCKS], 1, 3)
            changes = np.abs(across[..., BLOCKS : 2 * BLOCKS]) + np.abs(across[..., 2 * BLOCKS :])
            changes += np.abs(upright[:, :, :BLOCKS]) + np.abs(upright[:, :, BLOCKS:])
            slack[block] = np.moveaxis(changes, 1, 3)
        return cls(means, slack)

    def may_be_same(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return False for pairs that certainly differ by MAX_RESIDUAL or more, (M,).

        The mean of a block differs by no less than the difference of both means, minus the most that a crop changes.
        """
        least = np.full(len(first), np.inf, np.float32)
        for a, b in ((first, second), (second, first)):
            means = self.means[a].astype(np.float32)
            slack = self.slack[a].astype(np.float32)
            other_means = self.means[b].astype(np.float32)
            for others in (other_means, other_means[:, :, ::-1]):
                excess = np.maximum(np.abs(means - others) - slack, 0)
                least = np.minimum(least, np.sqrt((excess**2).mean(axis=(1, 2, 3))))
        return least < MAX_RESIDUAL + ROUNDING


def _join_same(
    parent: NDArray[np.intp],
    thumbs: NDArray[np.uint8],
    blocks: BlockMeans,
    first: NDArray[np.intp],
    second: NDArray[np.intp],
) -> None:
    """Join the groups of those pairs that show the same image."""
    size = 0
    while len(first):
        # Pairs that are joined by now need no comparison, which is the slow part.
        first_roots = _roots(parent, first)
        second_roots = _roots(parent, second)
        is_apart = first_roots != second_roots
        first = first[is_apart]
        second = second[is_apart]
        if not len(first):
            return
        # One pair of every two groups comes first, because it may join all others.
        keys = first_roots[is_apart] * len(parent) + second_roots[is_apart]
        _, leaders = np.unique(keys, return_index=True)
        is_leader = np.zeros(len(first), np.bool_)
        is_leader[leaders] = True
        order = np.argsort(~is_leader, kind="stable")
        size = min(PAIRS, max(len(leaders), 2 * size))
        now = order[:size]
        later = order[size:]
        same = now[blocks.may_be_same(first[now], second[now])]
        if len(same):
            same = same[_are_same(thumbs[first[same]], thumbs[second[same]])]
        for i, j in zip(first[same].tolist(), second[same].tolist(), strict=True):
            first_root = _root(parent, i)
            second_root = _root(parent, j)
            parent[max(first_root, second_root)] = min(first_root, second_root)
        first = first[later]
        second = second[later]


def _root(parent: NDArray[np.intp], i: int) -> int:
    """Return the root of a number; shortens the path to it."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = int(parent[i])
    return i


def _roots(parent: NDArray[np.intp], numbers: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the roots of several numbers, (M,) -> (M,)."""
    roots = parent[numbers]
    while not np.array_equal(above := parent[roots], roots):
        roots = above
    return roots


def describe_structure(thumbs: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Describe images by the low frequencies of their grey levels, without the mean.

    Args:
        thumbs: (N, 32, 32, 3) small images.

    Returns:
        Descriptions of unit length, (N, 64), and their lengths before the scaling, (N,), which grow with the contrast.
    """
    from scipy.fft import dctn  # noqa: PLC0415 - needs the extra data

    grey = thumbs.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)  # (N, 32, 32)
    waves = dctn(grey, axes=(1, 2), norm="ortho")[:, :FREQUENCIES, :FREQUENCIES]
    # Natural images have amplitudes that fall with the frequency; this evens them out. The mean's weight is 0.
    waves = waves * np.hypot(*np.mgrid[:FREQUENCIES, :FREQUENCIES]).astype(np.float32)
    waves = waves.reshape(len(thumbs), -1)  # (N, 64)
    lengths = np.linalg.norm(waves, axis=1)
    return waves / np.maximum(lengths, 1e-6)[:, None], lengths


def difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the difference of pairs of images after the best crop and mirroring, the same for both orders.

    A crop is fitted with the gradient of one image, which finds it more easily in one direction; the smaller difference
    counts.

    Args:
        first: (M, 32, 32, 3).
        second: (M, 32, 32, 3).

    Returns:
        (M,) levels of 255, root mean square over 8 x 8 blocks and three colours.
    """
    return np.minimum(_difference_from(first, second), _difference_from(second, first))


def _are_same(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return True for each pair that differs by less than MAX_RESIDUAL, (M,)."""
    is_same = _difference_from(first, second) < MAX_RESIDUAL
    # Most pairs of the same image need one direction only.
    remaining = np.flatnonzero(~is_same)
    if len(remaining):
        is_same[remaining] = _difference_from(second[remaining], first[remaining]) < MAX_RESIDUAL
    return is_same


def _difference_from(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the difference if the crop is fitted with the gradient of the first image."""
    a = first.astype(np.float32)
    b = second.astype(np.float32)
    return np.minimum(_residual_after_crop(a, b), _residual_after_crop(a, b[:, :, ::-1]))


def _residual_after_crop(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the residual after the best small shift and stretch, (M,), by one step of least squares.

    Both change an image by its gradient, times a constant or times the distance from the centre: Lucas and Kanade's
    linearisation (IJCAI 1981). It is valid because two per cent are less than a px here.
    """
    side = first.shape[1]
    down, right = np.gradient(first, axis=(1, 2))  # (M, S, S, 3)
    x = ((np.arange(side, dtype=np.float32) - (side - 1) / 2) / side)[:, None]  # (S, 1), -½ to ½
    basis = np.stack([right, right * x, down, down * x[:, None]], axis=-1).reshape(len(first), -1, 4)
    change = (second - first).reshape(len(first), -1, 1)  # (M, S·S·3, 1)
    transposed = basis.swapaxes(1, 2)  # (M, 4, S·S·3)
    # The small diagonal keeps the system solvable for images without gradient.
    steps = np.linalg.solve(transposed @ basis + 1e-3 * np.eye(4, dtype=np.float32), transposed @ change)  # (M, 4, 1)
    limit = MAX_CROP * side * np.array([0.5, 1, 0.5, 1], dtype=np.float32)[:, None]  # px of shift and of stretch
    residual = change - basis @ steps.clip(-limit, limit)
    # Noise and sharpness of the encoding hardly count in the means of 8 x 8 blocks.
    blocks = residual.reshape(-1, 8, side // 8, 8, side // 8, 3).mean(axis=(2, 4))  # (M, 8, 8, 3)
    return np.sqrt((blocks**2).mean(axis=(1, 2, 3)))  # (M,)
