"""Near duplicates of large collections: almost all pairs are found, and copies are not compared with each other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from uniemox.data import near, near_pairs
from uniemox.data.near import MAX_RESIDUAL, BlockMeans, difference, near_groups
from uniemox.data.near_pairs import pairs_of_colour


def smooth_thumbs(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw images without sharp edges, (N, 32, 32, 3)."""
    corners = np.random.default_rng(seed).uniform(0, 255, (count, 8, 8, 3))
    return np.asarray(corners.repeat(4, axis=1).repeat(4, axis=2))


def noisy(thumbs: NDArray[np.float64], seed: int = 1) -> NDArray[np.uint8]:
    """Change every value by a few levels, as encoding does."""
    noise = np.random.default_rng(seed).normal(0, 3, thumbs.shape)
    return (thumbs + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def in_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search cells also in small collections, several passes and blocks each."""
    monkeypatch.setattr(near_pairs, "EXACT_IMAGES", 0)
    monkeypatch.setattr(near_pairs, "QUERIES", 700)
    monkeypatch.setattr(near_pairs, "CELL_ROWS", 64)
    monkeypatch.setattr(near_pairs, "CELL_COLUMNS", 32)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of pairs of images that were compared."""
    counts: list[int] = []
    compare: Callable[..., NDArray[np.bool_]] = near._are_same

    def counting(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
        counts.append(len(first))
        return compare(first, second)

    monkeypatch.setattr(near, "_are_same", counting)
    return counts


def test_cells_find_the_groups_of_every_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    originals = smooth_thumbs(1500)
    mirrored = originals[::2, :, ::-1]
    thumbs = np.concatenate([noisy(originals), noisy(mirrored, seed=2)])
    every_pair = near_groups(thumbs)
    monkeypatch.setattr(near_pairs, "EXACT_IMAGES", 0)
    assert np.array_equal(near_groups(thumbs), every_pair)
    assert len(np.unique(every_pair)) == len(originals)


def test_cells_find_the_groups_of_photographs(shared: Path, in_cells: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs of one data set, and their mirror images, with a margin that leaves most cells out."""
    paths = sorted((shared / "data" / "flickr8k" / "images").glob("*.jpg"))[:300]
    small = [np.asarray(Image.open(path).convert("RGB").resize((32, 32)), np.float64) for path in paths]
    originals = np.stack(small)
    thumbs = np.concatenate([noisy(originals), noisy(originals[:, :, ::-1], seed=2)])
    in_small_cells = near_groups(thumbs)
    monkeypatch.setattr(near_pairs, "EXACT_IMAGES", len(thumbs))
    assert np.array_equal(in_small_cells, near_groups(thumbs))


@pytest.mark.usefixtures("in_cells")
def test_thousands_of_copies_are_not_compared_with_each_other(compared: list[int]) -> None:
    copies = noisy(smooth_thumbs(1).repeat(2000, axis=0))
    others = noisy(smooth_thumbs(500, seed=3))
    groups = near_groups(np.concatenate([copies, others]))
    assert np.array_equal(groups, [*[0] * 2000, *range(2000, 2500)])
    # All pairs of copies would be two million.
    assert sum(compared) < 20_000


def test_a_thousand_flat_images_are_not_compared_with_each_other(compared: list[int]) -> None:
    """Black images differ by a level; a grey one and a photograph are not like them."""
    rng = np.random.default_rng(0)
    black = np.broadcast_to(rng.integers(0, 2, (1000, 1, 1, 1)), (1000, 32, 32, 3)).astype(np.uint8)
    grey = np.full((1, 32, 32, 3), 100, np.uint8)
    groups = near_groups(np.concatenate([black, grey, noisy(smooth_thumbs(1))]))
    assert np.array_equal(groups, [*[0] * 1000, 1000, 1001])
    assert sum(compared) < 10_000


def test_all_similar_colours_are_found() -> None:
    colours = np.random.default_rng(0).uniform(0, 40, (300, 3)).astype(np.float32)
    difference = np.abs(colours[:, None] - colours).max(axis=2)
    expected = np.argwhere(np.triu(difference < 5, 1))
    pairs = np.concatenate([np.stack(pair, axis=1) for pair in pairs_of_colour(colours, 5, lambda n: n)])
    assert np.array_equal(np.unique(pairs, axis=0), expected)
    assert len(expected) > 300


def test_means_of_blocks_rule_out_no_pair_that_is_the_same() -> None:
    """Cropped, mirrored and noisy copies; most different images are ruled out."""
    originals = smooth_thumbs(300)
    shifted = np.concatenate([originals[:150], np.roll(originals[150:], 1, axis=1)])
    thumbs = np.concatenate([noisy(originals), noisy(shifted[:, :, ::-1], seed=2)])
    blocks = BlockMeans.of(thumbs)
    rng = np.random.default_rng(0)
    first = np.concatenate([np.arange(300), rng.integers(600, size=2000)])
    second = np.concatenate([np.arange(300, 600), rng.integers(600, size=2000)])
    is_same = difference(thumbs[first], thumbs[second]) < MAX_RESIDUAL
    may_be_same = blocks.may_be_same(first, second)
    assert is_same.sum() > 100
    assert may_be_same[is_same].all()
    assert may_be_same[~is_same].mean() < 0.2


@pytest.mark.usefixtures("in_cells")
@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_and_flat_ones_alone(count: int) -> None:
    assert np.array_equal(near_groups(np.zeros((count, 32, 32, 3), np.uint8)), [0] * count)
    assert np.array_equal(near_groups(noisy(smooth_thumbs(count))), range(count))
