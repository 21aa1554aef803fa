"""Draw an image for the docs: scenes, and those whose features are nearest.

Run: python -m recipes.neighbours docs/images/neighbours.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from uniemox import load
from uniemox.data.sample import decode_sample
from uniemox.data.synthetic_scenes import synthetic

SCENES = 400
ROWS = 4
NEAREST = 4
SIDE_PX = 112
GAP_PX = 8


def main(out: Path) -> None:
    """Draw rows of a scene and its four nearest."""
    images = [decode_sample(sample)[0] for sample in synthetic(SCENES).samples]
    features = load(finder=None).embed(images)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    step = SIDE_PX + GAP_PX
    page = Image.new("RGB", ((NEAREST + 1) * step + GAP_PX, ROWS * step - GAP_PX), "white")
    for row in range(ROWS):
        # The scene itself is nearest and comes first.
        order = np.argsort(-units @ units[row], kind="stable")
        for column, index in enumerate(order[: NEAREST + 1]):
            # A wider gap separates the scene from its neighbours.
            x = column * step + (GAP_PX if column else 0)
            page.paste(images[index].resize((SIDE_PX, SIDE_PX)), (x, row * step))
    page.save(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
