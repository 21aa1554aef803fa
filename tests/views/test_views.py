"""Patches and masks: patches are undone, masks hide the requested share, impossible ones are refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.functional import normalize

from uniemox.errors import ConfigError, ShapeError
from uniemox.views.config import MaskConfig
from uniemox.views.patches import IMAGENET, PixelStats, mask_noise, normalise, patchify, random_mask, unpatchify


@given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 14, 16]))
def test_unpatchify_is_the_inverse(count: int, rows: int, columns: int, patch: int) -> None:
    images = torch.randn(count, 3, rows * patch, columns * patch)
    patches = patchify(images, patch)
    assert patches.shape == (count, rows * columns, patch**2 * 3)
    assert torch.equal(unpatchify(patches, patch, (rows, columns)), images)


def test_pixels_of_a_patch_run_by_row_column_channel() -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    # The lower right patch of the second image.
    patch = patchify(images, 2)[1, 3].reshape(2, 2, 3)
    for row in range(2):
        for column in range(2):
            assert torch.equal(patch[row, column], images[1, :, 2 + row, 2 + column])


@pytest.mark.parametrize("shape", [(2, 3, 30, 32), (2, 3, 32, 33)])
def test_sizes_that_the_patch_does_not_divide_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"patches of 16 px.*32 px"):
        patchify(torch.zeros(shape), 16)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 4, 32, 32)])
def test_other_shapes_than_rgb_batches_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(N, 3, H, W\)"):
        patchify(torch.zeros(shape), 16)


def test_patches_of_another_grid_are_refused() -> None:
    with pytest.raises(ShapeError, match="2 x 2 grid"):
        unpatchify(torch.zeros(1, 5, 12), 2, (2, 2))


@given(st.integers(2, 200), st.floats(0.01, 0.99), st.integers(0, 5))
def test_mask_hides_the_requested_share(length: int, ratio: float, count: int) -> None:
    keep = int(length * (1 - ratio))
    noise = torch.rand(count, length)
    if not 0 < keep < length:
        with pytest.raises(ConfigError, match="at least 1"):
            random_mask(noise, ratio)
        return
    mask = random_mask(noise, ratio)
    assert mask.visible.shape == (count, keep)
    assert torch.equal(mask.hidden.sum(1), torch.full((count,), float(length - keep)))
    assert (mask.hidden.gather(1, mask.visible) == 0).all()


def test_mask_depends_only_on_the_noise_of_its_image() -> None:
    noise = torch.rand(64, 196)
    first = random_mask(noise, 0.75)
    second = random_mask(noise, 0.75)
    assert torch.equal(first.visible, second.visible)
    assert torch.equal(random_mask(noise[3:4], 0.75).hidden, first.hidden[3:4])
    assert len(torch.unique(first.hidden, dim=0)) == 64
    # Equal noise: the first patches are visible.
    assert torch.equal(random_mask(torch.zeros(1, 8), 0.5).visible, torch.arange(4)[None])


def test_noise_depends_on_seed_epoch_stream_and_key_alone() -> None:
    draw = {"seed": 3, "epoch": 1, "stream": "scene"}
    noise = mask_noise(["a.jpg", "b.jpg", "bad\udcff.jpg"], 16, **draw)
    assert (noise.shape, noise.dtype) == ((3, 16), torch.float32)
    assert torch.equal(mask_noise(["b.jpg", "a.jpg"], 16, **draw), noise[[1, 0]])
    others = [
        mask_noise(["a.jpg"], 16, **draw | change) for change in ({"seed": 4}, {"epoch": 2}, {"stream": "person"})
    ]
    assert len(torch.unique(torch.cat([noise, *others]), dim=0)) == 6
    many = mask_noise([str(i) for i in range(200)], 100, **draw)
    assert many.min() >= 0
    assert many.max() < 1
    assert many.mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("stats", [IMAGENET, PixelStats((0.5, 0.4, 0.3), (0.2, 0.25, 0.5))])
def test_pixels_are_normalised_as_torchvision_does(stats: PixelStats) -> None:
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    before = images.clone()
    expected = normalize(images / 255, stats.mean, stats.std)
    torch.testing.assert_close(normalise(images, torch.device("cpu"), stats), expected)
    assert torch.equal(images, before)
    with pytest.raises(ShapeError, match="as uint8, 0 to 255, got float32"):
        normalise(images.float(), torch.device("cpu"), stats)


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_ratios_out_of_range_are_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="strictly between 0 and 1"):
        MaskConfig(ratio=ratio)
    with pytest.raises(ConfigError, match="strictly between 0 and 1"):
        random_mask(torch.rand(1, 16), ratio)
