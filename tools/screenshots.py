"""Screenshots for the documentation, as small files."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

# With the largest palette, dithered, photographs still look right; the files are less than half as large.
COLOURS = 256
DESK = {"viewport": {"width": 1366, "height": 768}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
VIEWS: dict[str, dict[str, Any]] = {"": DESK, "_phone": PHONE}
"""Settings of a browser's context, by the ending of the screenshot's name."""


@contextmanager
def open_chromium() -> Iterator[Any]:
    """Start Chromium, and end it after the context."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


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
