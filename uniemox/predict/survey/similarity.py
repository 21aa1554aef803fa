"""Map of images: similar images are neighbours, one per cell of a grid."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from uniemox.errors import ImageError, MissingPackageError
from uniemox.io.decoding.pool import Decode
from uniemox.io.images import MinSides
from uniemox.predict.images import ImageLike, map_images, read_any
from uniemox.predict.survey.summary import Place

FEWEST = 12  # images for a map
CELL_PX, EDGE_PX = 44, 3


def draw_map(images: Sequence[Place], colours: Mapping[str, str]) -> tuple[Image.Image, list[tuple[int, int]]]:
    """Draw the map; return it with (column, row) of each image.

    images: at least `FEWEST`.  colours: of the frames, by most probable label.
    Raises MissingPackageError without scikit-learn.
    """
    cells = arrange(np.stack([image.features for image in images]))
    columns, rows = (max(place) + 1 for place in zip(*cells, strict=True))
    page = Image.new("RGB", (columns * CELL_PX, rows * CELL_PX), "white")
    gone = Image.new("RGB", (CELL_PX, CELL_PX), "#888888")
    small = thumbnails([image.path for image in images], CELL_PX)
    for image, thumbnail, (column, row) in zip(images, small, cells, strict=True):
        tile = ImageOps.expand(thumbnail or gone, EDGE_PX, colours[image.top]).resize((CELL_PX, CELL_PX))
        page.paste(tile, (column * CELL_PX, row * CELL_PX))
    return page, cells


def arrange(features: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Assign each image a cell (column, row) of a grid: t-SNE (van der Maaten and Hinton 2008), then the assignment to
    cells with the smallest total displacement. Deterministic on one machine.

    features: (N, D).  Raises MissingPackageError without scikit-learn.
    """
    try:
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - an extra
        from sklearn.manifold import TSNE  # noqa: PLC0415
    except ImportError:
        raise MissingPackageError("a map needs scikit-learn; run: pip install 'uniemox[data]'") from None

    count = len(features)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tsne = TSNE(perplexity=min(30, (count - 1) / 3), metric="cosine", init="random", random_state=0)
    drawn = tsne.fit_transform(features)
    drawn = (drawn - drawn.min(0)) / np.maximum(np.ptp(drawn, axis=0), 1e-9)
    cells = np.array([(column, row) for row in range(rows) for column in range(columns)])
    at = (cells + 0.5) / (columns, rows)
    _, chosen = linear_sum_assignment(((drawn[:, None] - at[None]) ** 2).sum(-1))
    return [(int(column), int(row)) for column, row in cells[chosen]]


def thumbnails(paths: Iterable[str], side_px: int) -> Iterable[Image.Image | None]:
    """Yield the centre square of each image, RGB; None for an image that can no longer be read."""

    def small(source: ImageLike, decode: Decode) -> Image.Image | None:
        try:
            image, _ = read_any(source, MinSides(short_px=side_px), decode_file=decode)
        except ImageError:
            return None
        return ImageOps.fit(image, (side_px, side_px))

    return map_images(paths, small, 16, None)
