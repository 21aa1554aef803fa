"""Where explanations are written, and how: whole or not at all, because a file that is there counts as done."""

import os
from contextlib import suppress
from pathlib import Path

from PIL import Image

from uniemox.errors import DataError


def map_path(folder: Path, image: Path, model: str) -> Path:
    """Where the map of an image lies; as `uniemox predict --save-images` has it, with the model's name.

    >>> map_path(Path("maps"), Path("photos/awe/1.jpg"), "fi (1)").as_posix()
    'maps/photos/awe/1.jpg.fi (1).png'
    """
    parts = [part for part in image.parts if part not in (image.anchor, "..")]
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.{model.replace('/', '-')}.png")


def write_whole(path: Path, content: Image.Image | str) -> None:
    """Write an image as a PNG, or a page; folders that are missing are made.

    Raises DataError if that can't be done; what was there before stays then.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            partial.write_text(content, "utf-8", "backslashreplace")
        else:
            content.save(partial, "PNG")
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"{path} can't be written ({error.strerror}); choose another --out") from error
    finally:
        with suppress(OSError):  # it has taken its place, or never was
            partial.unlink()
