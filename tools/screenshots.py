"""Screenshots for the documentation, as small files."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

# With the largest palette, dithered, photographs still look right; the files are less than half as large.
COLOURS = 256


def save_screenshot(page: Any, path: Path, **settings: Any) -> None:
    """Save a screenshot of a page of Playwright as a PNG with a palette.

    Args:
        page: The page.
        path: File to write.
        settings: As for `page.screenshot`.
    """
    with Image.open(io.BytesIO(page.screenshot(**settings))) as image:
        full = image.convert("RGB")
    palette = full.quantize(COLOURS, kmeans=2)
    full.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, "PNG", optimize=True)
