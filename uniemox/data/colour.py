"""Colour statistics of an image: histogram, brightness, colorfulness."""

import numpy as np
from numpy.typing import NDArray

BINS = 16  # bins per channel
# "Extremely colorful" on the scale of Hasler and Süsstrunk.
MAX_COLORFUL = 109.0


def colour_histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the share of pixels by red, green and blue: (H, W, 3) -> (48,), each channel with sum 1."""
    bins = pixels // (256 // BINS)
    counts = [np.bincount(bins[..., channel].reshape(-1), minlength=BINS) for channel in range(3)]
    return (np.concatenate(counts) / (pixels.size // 3)).astype(np.float32)


def brightness(pixels: NDArray[np.uint8]) -> float:
    """Return the mean luma of an image (ITU-R BT.601), 0 black to 1 white, for pixels (H, W, 3).

    EmoSet gives brightness in steps of 0.1 and does not publish how it was measured; this is the usual definition.
    """
    return float((pixels @ np.array([0.299, 0.587, 0.114])).mean() / 255)


def colorfulness(pixels: NDArray[np.uint8]) -> float:
    """Return Hasler and Süsstrunk's M (Human Vision and Electronic Imaging VIII, 2003) over 109, 0 to 1, for (H, W, 3).

    With rg = R - G and yb = (R + G) / 2 - B it is M = √(σ²rg + σ²yb) + 0.3 √(μ²rg + μ²yb); 109 is their value for
    "extremely colorful". EmoSet has steps of 0.1 and does not publish how it measured colorfulness.
    """
    red, green, blue = np.moveaxis(pixels.astype(np.float64), -1, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue])  # (2, H, W)
    spread = opponents.std(axis=(1, 2))
    mean = opponents.mean(axis=(1, 2))
    return min(1.0, float(np.hypot(*spread) + 0.3 * np.hypot(*mean)) / MAX_COLORFUL)
