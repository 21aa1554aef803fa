"""The drawings of synthetic scenes, as strokes: places, objects, people and faces."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from uniemox.persons.box import Box

OUTLINE = 1.8  # dark line around a person, in hundredths of its height without the line


class Stroke(NamedTuple):
    """One shape of a drawing; y points up, from the foot of a thing or person, or from the horizon of a backdrop."""

    shape: str  # l line, o oval, b box, p polygon
    paint: str  # a colour, or the name of one that the drawing is given
    width: float  # of a line; else 0
    points: tuple[tuple[float, float], ...]  # corners; of an oval, two of the box around it


class Drawing(NamedTuple):
    """Strokes, those of objects about 100 units high, and where such an object may be."""

    strokes: tuple[Stroke, ...]
    layer: str  # near (on the ground), far (on the horizon) or air (above it); empty for what is no object
    height_px: int


def _strokes(text: str) -> list[Stroke]:
    """Strokes from "shape paint [width] x y ..."; "3x20 " before it makes three 20 apart, "2" adds a mirror image."""
    pattern = r"^(?:(\d+)x(\d+) )?(2?)([lobp]) (\S+)([-.\d ]+)$"
    [(count, step, is_twofold, shape, paint, numbers)] = re.findall(pattern, text)
    values = [float(number) for number in numbers.split()]
    width = values.pop(0) if shape == "l" else 0.0
    signs, shifts = (1, -1) if is_twofold else (1,), [k * float(step or 0) for k in range(int(count or 1))]
    corners = list(zip(values[::2], values[1::2], strict=True))
    return [Stroke(shape, paint, width, tuple((s * x + d, y) for x, y in corners)) for s in signs for d in shifts]


@cache
def drawings() -> Mapping[str, Drawing]:
    """All drawings by name, a line each: "name | layer | height | stroke; stroke" or "name | stroke; stroke"."""
    lines = files("uniemox.data").joinpath("drawings.txt").read_text("utf-8").splitlines()
    drawings = {}
    for name, *place, strokes in (line.split(" | ") for line in lines if not line.startswith("#")):
        layer, height = place or ("", "0")
        parts = tuple(stroke for part in strokes.split("; ") for stroke in _strokes(part))
        drawings[name] = Drawing(parts, layer, int(height))
    return drawings


@cache
def person_extent(action: str, hair: str) -> Box:
    """The box around a person and its outline, in units of its strokes."""
    strokes = drawings()[hair].strokes + drawings()[action].strokes
    reach = [(x, y, stroke.width / 2 + OUTLINE) for stroke in strokes for x, y in stroke.points]
    low_x, low_y = (min(corner[axis] - corner[2] for corner in reach) for axis in (0, 1))
    return Box(low_x, low_y, *(max(corner[axis] + corner[2] for corner in reach) for axis in (0, 1)))
