"""Page about a project's progress and its annotators' agreement, as one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from uniemox.curate.annotate.agree import AgreementStats
from uniemox.io.html import jpeg_url, write_html


def write_status_page(
    path: Path, state: Mapping[str, Any], agreement: AgreementStats | None, plot: Path | None
) -> None:
    """Write the page.

    state: result of `status`.  plot: image of the split, or None. Raises DataError if the file can't be written.
    """
    url = ""
    if plot is not None and plot.exists():
        with Image.open(plot) as image:
            url = jpeg_url(image, max_side_px=1600)
    title = f"Project {state['folder']}"
    write_html(path, "curate/status_page.html", title=title, found=state, agreement=agreement, plot=url)
