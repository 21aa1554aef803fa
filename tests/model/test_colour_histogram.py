"""Colour features against Python's own HSV and torch's own pooling."""

import colorsys

import pytest
import torch
import torch.nn.functional as F

from uniemox.model.colour_histogram import HISTOGRAM_WIDTH, ColourHistogram, hsv_bins
from uniemox.views.patches import normalise

CPU = torch.device("cpu")


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_every_pixel_falls_into_the_bin_of_its_hsv() -> None:
    """8 hues x 4 saturations x 4 values, by colorsys; except pixels on the edge of a bin, where rounding decides."""
    rgb = noise(1, 3, 64, 64).float()
    bins = hsv_bins(rgb)[0].flatten()
    checked = 0
    for pixel, (red, green, blue) in enumerate(rgb[0].flatten(1).T.tolist()):
        hue, saturation, _ = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        if min(hue * 8 % 1, 1 - hue * 8 % 1) < 1e-5 or min(saturation * 4 % 1, 1 - saturation * 4 % 1) < 1e-5:
            continue
        expected = (int(hue * 8) * 4 + int(saturation * 4)) * 4 + int(max(red, green, blue) * 4 // 256)
        assert int(bins[pixel]) == expected
        checked += 1
    assert checked > 3900


@pytest.mark.parametrize(
    ("colour", "bin_index"),
    [
        ((0, 0, 0), 0),
        ((255, 255, 255), 3),
        ((128, 128, 128), 2),
        ((255, 0, 0), 15),
        ((0, 255, 0), (2 * 4 + 3) * 4 + 3),
        ((0, 0, 255), (5 * 4 + 3) * 4 + 3),
        ((255, 0, 1), (7 * 4 + 3) * 4 + 3),
    ],
)
def test_plain_image_fills_the_bin_of_its_colour(colour: tuple[int, int, int], bin_index: int) -> None:
    image = torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 7, 9)
    features = ColourHistogram()(normalise(image, CPU))[0]
    assert features.shape == (HISTOGRAM_WIDTH,)
    assert features[:128].nonzero().flatten().tolist() == [bin_index]
    assert features[bin_index] == 1
    cells = features[128:].view(3, 6, 6)
    torch.testing.assert_close(cells, torch.tensor(colour).view(3, 1, 1).expand(3, 6, 6) / 255)


def test_bin_shares_sum_to_one_and_cells_are_means() -> None:
    images = noise(2, 3, 48, 36)
    features = ColourHistogram()(normalise(images, CPU))
    torch.testing.assert_close(features[:, :128].square().sum(dim=1), torch.ones(2))
    # 48 and 36 are multiples of 6, so that adaptive pooling has the same cells.
    pooled = F.adaptive_avg_pool2d(images.float() / 255, 6)
    torch.testing.assert_close(features[:, 128:], pooled.flatten(1))


def test_cells_that_cut_pixels_keep_the_mean() -> None:
    images = noise(1, 3, 32, 50)
    cells = ColourHistogram()(normalise(images, CPU))[:, 128:].view(1, 3, 6, 6)
    torch.testing.assert_close(cells.mean(dim=(2, 3)), images.float().mean(dim=(2, 3)) / 255)


def test_autocast_changes_nothing() -> None:
    pixels = normalise(noise(1, 3, 32, 32), CPU)
    with torch.autocast("cpu", torch.bfloat16):
        features = ColourHistogram()(pixels)
    assert torch.equal(features, ColourHistogram()(pixels))
