"""Images of drawn people for the tests of the person finder."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from recipes.finder.views import FinderView
from tests.drawn import Stored, jpeg_of
from uniemox.data.sample import Sample
from uniemox.persons.box import Box, Detection


def figure(seed: int, people: int = 1) -> Sample:
    """Return a dark image with bright upright ellipses, the people."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (96, 64), (20, 30, 40))
    draw = ImageDraw.Draw(image)
    people_drawn = []
    for _ in range(people):
        x = rng.integers(5, 60)
        y = rng.integers(5, 20)
        width = rng.integers(15, 30)
        height = rng.integers(25, 40)
        box = Box(float(x), float(y), float(x + width), float(y + height))
        draw.ellipse(box, fill=(240, 200, 180))
        people_drawn.append(Detection(box, 0.9))
    return Sample(key=f"{seed}.jpg", image=Stored(jpeg_of(image)), persons=tuple(people_drawn))


SAMPLES = [figure(i, 1 + i % 2) for i in range(36)]


def view_of(boxes: Sequence[Sequence[float]], confidences: Sequence[float], size: int = 64) -> FinderView:
    pixels = np.zeros((size, size, 3), np.uint8)
    return FinderView(pixels, np.array(boxes, np.float32).reshape(-1, 4), np.array(confidences, np.float32))
