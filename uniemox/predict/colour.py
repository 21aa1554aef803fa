"""Images without colour: grey, sepia, or with any other single tone for each brightness."""

import numpy as np
from PIL import Image

# Cells per side; the mean of a cell has less of the colour noise of JPEG than single pixels.
GRID = 16
# Standard deviation of a channel around the tone of its brightness, in levels of 255. Of about 700 photographs of FI,
# Flickr8k and OASIS that have colour, 1.3 % are below; of their sepia copies, compressed as JPEG, 98 % are.
MAX_SPREAD = 1.6


def is_colourless(image: Image.Image) -> bool:
    """Return True if the colour of an RGB image depends on the brightness alone, as in old photographs.

    >>> is_colourless(Image.new("RGB", (40, 40), (90, 60, 30)))
    True
    """
    # The gap lets Pillow first reduce a large image by a whole factor, which is several times as fast.
    small = image.resize((GRID, GRID), Image.Resampling.BOX, reducing_gap=2.0)
    cells = np.asarray(small, np.float64).reshape(-1, 3)  # (N, 3)
    brightness = cells @ np.array([0.299, 0.587, 0.114]) / 255  # (N,), 0 to 1
    # The tone of each brightness: a curve of second degree for each channel.
    powers = np.stack([np.ones_like(brightness), brightness, brightness**2], axis=1)  # (N, 3)
    curves, *_ = np.linalg.lstsq(powers, cells, rcond=None)
    spread = np.sqrt(np.square(cells - powers @ curves).mean(axis=0))  # (3,)
    return bool(spread.max() < MAX_SPREAD)
