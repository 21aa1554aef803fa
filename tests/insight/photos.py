"""Folders of drawn images, and the files of their index."""

from pathlib import Path

from tests.drawn import draw_image
from uniemox.insight.index_file import INDEX, LINES


def draw_photos(folder: Path, count: int) -> None:
    """Write `0.png`, `1.png` and so on into a new folder; those with odd numbers into its folder `inner`."""
    (folder / "inner").mkdir(parents=True)
    for i in range(count):
        draw_image(i).save(folder / ("inner" if i % 2 else ".") / f"{i}.png")


def stored(folder: Path, ending: str = LINES) -> Path:
    """Return the only file of a folder's index with this ending."""
    [file] = (folder / INDEX).glob(f"*{ending}")
    return file
