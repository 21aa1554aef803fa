"""Folders of drawn images, and the files of their index."""

from pathlib import Path

from tests.drawn import draw_image
from tests.predict.networks import tiny_network
from uniemox.insight.index_file import INDEX, LINES


def draw_photos(folder: Path, count: int) -> None:
    """Write `0.png`, `1.png` and so on into a new folder; those with odd numbers into its folder `inner`."""
    (folder / "inner").mkdir(parents=True)
    for i in range(count):
        draw_image(i).save(folder / ("inner" if i % 2 else ".") / f"{i}.png", compress_level=1)


def few_images_model(folder: Path, held_out: int = 4) -> Path:
    """Write a model of happy and sad with a few held-out images, as `uniemox finetune` does on 40 images."""
    distances = tuple(float(distance) for distance in range(held_out))
    return tiny_network(folder / "few.onnx", labels=("happy", "sad"), label_set="few", distances=distances)


FLAGS_BLANK_ONLY = (
    "the model has only 4 held-out images to compare with, so of unfamiliar images it flags only blank ones"
)


def stored(folder: Path, ending: str = LINES) -> Path:
    """Return the only file of a folder's index with this ending."""
    [file] = (folder / INDEX).glob(f"*{ending}")
    return file
