"""Hashes of images, and near duplicates."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import PersonPolicy
from uniemox.data.processes import map_samples
from uniemox.data.sample import Broken, Sample, decode_sample
from uniemox.errors import BoxError, ImageError
from uniemox.io.images import MinSides
from uniemox.io.parallel import parallel_map
from uniemox.io.progress import Progress, silent
from uniemox.persons.box import choose_person

FREQUENCIES = 8  # in each direction
ALIKE = 0.85  # minimum cosine of two descriptions of the same image; docs/data.md has the measurements
MAX_LEFT = 5.0  # maximum RMS difference after the best small crop, levels of 255
FLAT = 50.0  # descriptions shorter than this mean an image without structure; photographs have above 400
MAX_CROP = 0.05  # of a side
CHECKED_PX = 64  # minimum short side of reduced JPEGs that are only checked
# processed at a time
ROWS = 1024
COLUMNS = 4096
PAIRS = 2048
MIRROR = np.tile((-1.0) ** np.arange(FREQUENCIES), FREQUENCIES).astype(np.float32)


def near_groups(thumbs: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Group images that differ only in encoding, size, mirroring and slight cropping.

    Takes time with the square of N; docs/performance.md has figures.

    Args:
        thumbs: (N, 32, 32, 3) small images.

    Returns:
        (N,) numbers: all images of a group, even if linked through others, have the number of its first.
    """
    parent = np.arange(len(thumbs))
    for pairs in _candidates(thumbs):
        first, second = pairs
        while len(first):
            a = first[:PAIRS]
            b = second[:PAIRS]
            same = _are_same(thumbs[a], thumbs[b])
            for i, j in zip(a[same].tolist(), b[same].tolist(), strict=True):
                one = _root(parent, i)
                other = _root(parent, j)
                parent[max(one, other)] = min(one, other)
            first = first[PAIRS:]
            second = second[PAIRS:]
            apart = _roots(parent, first) != _roots(parent, second)  # skips pairs that are already joined
            first = first[apart]
            second = second[apart]
    return _roots(parent, np.arange(len(thumbs)))


def _candidates(thumbs: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield pairs of images with similar descriptions, the lower number first."""
    described, lengths = describe_structure(thumbs)
    is_flat = lengths < FLAT
    # Mirroring changes the sign of odd frequencies: the cosine is even + odd, that of the mirror image even - odd.
    even = described[:, MIRROR > 0]
    odd = described[:, MIRROR < 0]

    def look(start: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        pairs = []
        for after in range(start, len(thumbs), COLUMNS):
            rows, columns = slice(start, start + ROWS), slice(after, after + COLUMNS)
            alike = even[rows] @ even[columns].T
            by_odd = odd[rows] @ odd[columns].T
            alike += np.abs(by_odd, out=by_odd)
            place = np.flatnonzero(alike > ALIKE)
            first = place // alike.shape[1] + start
            second = place % alike.shape[1] + after
            wanted = (first < second) & ~(is_flat[first] & is_flat[second])  # descriptions of flat images are noise
            pairs.append((first[wanted], second[wanted]))
        return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])

    with closing(parallel_map(range(0, len(thumbs), ROWS), look)) as blocks:
        yield from blocks
    flat = np.flatnonzero(is_flat)
    mean = thumbs[flat].mean(axis=(1, 2), dtype=np.float32)  # (F, 3)
    for place, i in enumerate(flat):
        near = np.abs(mean[place + 1 :] - mean[place]).max(axis=1) < MAX_LEFT
        yield np.full(near.sum(), i), flat[place + 1 :][near]


def _root(parent: NDArray[np.intp], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = int(parent[i])
    return i


def _roots(parent: NDArray[np.intp], places: NDArray[np.intp]) -> NDArray[np.intp]:
    roots = parent[places]
    while not np.array_equal(above := parent[roots], roots):
        roots = above
    return roots


def describe_structure(thumbs: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return descriptions of unit length, (N, 64), and their lengths before, (N,), which grow with the contrast."""
    from scipy.fft import dctn  # noqa: PLC0415 - needs the extra data

    grey = thumbs.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)  # (N, 32, 32)
    waves = dctn(grey, axes=(1, 2), norm="ortho")[:, :FREQUENCIES, :FREQUENCIES]
    waves = waves * np.hypot(*np.mgrid[:FREQUENCIES, :FREQUENCIES]).astype(np.float32)  # the mean's weight is 0
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
        (M,) levels of 255, root mean square over 8 x 8 places and three colours.
    """
    return np.minimum(_difference_from(first, second), _difference_from(second, first))


def _are_same(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pairs differ by less than MAX_LEFT, (M,).  Most same pairs need one direction only."""
    same = _difference_from(first, second) < MAX_LEFT
    rest = np.flatnonzero(~same)
    if len(rest):
        same[rest] = _difference_from(second[rest], first[rest]) < MAX_LEFT
    return same


def _difference_from(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the difference if the crop is fitted with the gradient of the first image."""
    a = first.astype(np.float32)
    b = second.astype(np.float32)
    return np.minimum(_left_after_crop(a, b), _left_after_crop(a, b[:, :, ::-1]))


def _left_after_crop(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the residual after the best small shift and stretch, by one step of least squares.

    Both change an image by its gradient, times a constant or times the distance from the centre: Lucas and Kanade's
    linearisation (IJCAI 1981). It is valid because two per cent are less than a px here.
    """
    side = first.shape[1]
    down, right = np.gradient(first, axis=(1, 2))  # (M, S, S, 3)
    x = ((np.arange(side, dtype=np.float32) - (side - 1) / 2) / side)[:, None]  # (S, 1), -½ to ½
    basis = np.stack([right, right * x, down, down * x[:, None]], axis=-1).reshape(len(first), -1, 4)
    change = (second - first).reshape(len(first), -1, 1)  # (M, S·S·3, 1)
    transposed = basis.swapaxes(1, 2)  # (M, 4, S·S·3)
    steps = np.linalg.solve(transposed @ basis + 1e-3 * np.eye(4, dtype=np.float32), transposed @ change)  # (M, 4, 1)
    limit = MAX_CROP * side * np.array([0.5, 1, 0.5, 1], dtype=np.float32)[:, None]  # px of shift and of stretch
    left = (change - basis @ steps.clip(-limit, limit)).reshape(-1, 8, side // 8, 8, side // 8, 3)
    return np.sqrt((left.mean(axis=(2, 4)) ** 2).mean(axis=(1, 2, 3)))  # (M,)


def image_hashes(samples: Sequence[Sample], on_progress: Progress = silent) -> list[str]:
    """Return the sha256 of every sample's file, in order; an empty text for an unreadable file."""
    return map_samples(_hash, samples, "hashing images", on_progress=on_progress)


def known_hashes(samples: Sequence[Sample], on_progress: Progress = silent) -> list[str]:
    """Return the hashes of `decoded_hashes`, but those that an index of shards stores without reading the images.

    Shards hold images that were readable when they were written.
    """
    stored = [getattr(sample.image, "sha256", None) for sample in samples]
    others = [sample for sample, digest in zip(samples, stored, strict=True) if digest is None]
    read = iter(decoded_hashes(others, on_progress)[0])
    return [next(read) if digest is None else str(digest) for digest in stored]


def _hash(sample: Sample) -> str:
    try:
        return hashlib.sha256(sample.image.read()).hexdigest()
    except OSError:
        return ""


def decoded_hashes(
    samples: Sequence[Sample], on_progress: Progress = silent, person: PersonPolicy | None = None
) -> tuple[list[str], list[Broken]]:
    """Return the sha256 of every sample's file, in order, an empty text for one that is no readable image.

    Also returns the unreadable samples with their reasons. JPEGs are decoded at a reduced size.

    Args:
        person: Policy of the person view; a target box outside of the image then counts as unreadable, if the view
            needs it. None: no person view.
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
