"""Synthetic scenes: plans, drawings and the data set."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files
from random import Random
from typing import NamedTuple

from PIL import Image, ImageColor
from PIL.ImageDraw import Draw, ImageDraw

from uniemox.data.prompts import describe
from uniemox.data.sample import DataSet, Sample
from uniemox.errors import ConfigError
from uniemox.io.images import encode_image
from uniemox.labels import MIKELS
from uniemox.persons.box import Box, Detection

# Width of the dark line around a person, in hundredths of its height without the line.
OUTLINE = 1.8


class Stroke(NamedTuple):
    """One shape of a drawing; y points up, from the foot of an object or person, or from the horizon of a backdrop."""

    shape: str  # l line, o oval, b box, p polygon
    paint: str  # a colour, or the name of one that is set when drawing
    width: float  # width of a line; 0 for other shapes
    points: tuple[tuple[float, float], ...]  # corners; for an oval the two of its bounding box


class Drawing(NamedTuple):
    """Strokes, about 100 units high for objects, and where such an object may be placed."""

    strokes: tuple[Stroke, ...]
    layer: str  # near (on the ground), far (on the horizon) or air (above it); empty if not an object
    height_px: int


def _strokes(text: str) -> list[Stroke]:
    """Parse strokes from "shape paint [width] x y ...".

    The prefix "3x20 " repeats a stroke thrice at steps of 20; the prefix "2" adds its mirror image.
    """
    pattern = r"^(?:(\d+)x(\d+) )?(2?)([lobp]) (\S+)([-.\d ]+)$"
    [(count, step, is_twofold, shape, paint, numbers)] = re.findall(pattern, text)
    values = [float(number) for number in numbers.split()]
    width = values.pop(0) if shape == "l" else 0.0
    signs = (1, -1) if is_twofold else (1,)
    shifts = [k * float(step or 0) for k in range(int(count or 1))]
    corners = list(zip(values[::2], values[1::2], strict=True))
    return [
        Stroke(shape, paint, width, tuple((sign * x + shift, y) for x, y in corners))
        for sign in signs
        for shift in shifts
    ]


@cache
def drawings() -> Mapping[str, Drawing]:
    """Read all drawings by name, one per line: "name | layer | height | stroke; stroke" or "name | stroke; stroke"."""
    lines = files("uniemox.data").joinpath("drawings.txt").read_text("utf-8").splitlines()
    drawings = {}
    for name, *placement, strokes in (line.split(" | ") for line in lines if not line.startswith("#")):
        layer, height = placement or ("", "0")
        parts = tuple(stroke for part in strokes.split("; ") for stroke in _strokes(part))
        drawings[name] = Drawing(parts, layer, int(height))
    return drawings


@cache
def person_extent(action: str, hair: str) -> Box:
    """Return the box around a person and its outline, in units of its strokes."""
    strokes = drawings()[hair].strokes + drawings()[action].strokes
    reach = [(x, y, stroke.width / 2 + OUTLINE) for stroke in strokes for x, y in stroke.points]
    low_x, low_y = (min(corner[axis] - corner[2] for corner in reach) for axis in (0, 1))
    return Box(low_x, low_y, *(max(corner[axis] + corner[2] for corner in reach) for axis in (0, 1)))


# Size of every image, px.
WIDTH = 384
HEIGHT = 288
# Minimum and maximum height of a person.
PERSON_PX = (56, 80)
# Columns of an image; the person has its own, so that it hides no object.
SLOTS = 5
# Successive samples that contain every pair of state and surroundings once.
BLOCK = 64
SKIES = 4
STATES = tuple((face, action) for face in ("happy", "sad", "angry", "surprise") for action in ("dancing", "marching"))
# Classes of MIKELS: one row per state, one column per surroundings. No class occurs twice in a row or column, so that
# neither the person nor the place alone tells the emotion.
LATIN_SQUARE = ("54613702", "60342517", "13704625", "21576043", "47250361", "36025174", "02137456", "75461230")


class Surroundings(NamedTuple):
    """Place with objects, and the drawing of that name as its backdrop.

    Coordinates of a backdrop: x 0 to 100 across, y 100 at the top, 0 at the horizon, -100 at the bottom.
    """

    scene: str
    ground: str  # colour of the ground
    sometimes: tuple[str, ...]
    always: tuple[str, ...] = ()
    in_backdrop: tuple[str, ...] = ()
    row: tuple[str, ...] = ()  # repeated along the horizon
    skies: tuple[str, ...] = ("day", "evening", "clouds", "night")


SURROUNDINGS = (
    Surroundings("amusement_park", "#e3c795", ("Balloon", "Flag", "Ice cream"), ("Tent", "Wheel")),
    Surroundings("beach", "#f0d79a", ("Ball", "Boat", "Palm tree", "Umbrella")),
    Surroundings("bedroom", "#b98a5b", ("Lamp", "Teddy bear", "Wardrobe", "Window"), in_backdrop=("Pillow",), skies=()),
    Surroundings("cemetery", "#6f8a58", ("Bat", "Flower", "Pumpkin", "Raven")),
    Surroundings("forest_path", "#7fa653", ("Bird", "Flower", "Mushroom", "Rabbit"), row=("Tree",)),
    Surroundings("mountain_snowy", "#eef4fb", ("Bird", "Christmas tree", "House", "Snowman")),
    Surroundings("stage", "#c08a52", ("Drum", "Guitar", "Microphone"), in_backdrop=("Curtain",), skies=()),
    Surroundings("street", "#b9b7b0", ("Car", "Street light", "Traffic light"), row=("Building",)),
)
HAIR = ("short hair", "long hair", "bun", "spikes", "curls")


class SceneObject(NamedTuple):
    """An object with its position and size in an image."""

    name: str
    x_px: float  # of its middle
    y_px: float  # of its foot
    scale: float  # times the drawing's height


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """Complete content of an image. The emotion is not part of it, so no drawing can show it directly."""

    seed: str  # for colours and shapes that are not annotated
    surroundings: Surroundings
    sky: int  # index in SKY_PAINTS or WALL_PAINTS
    horizon_px: int  # distance of the horizon from the top
    is_mirrored: bool  # the backdrop is mirrored
    brightness: float  # 0 to 1
    colorfulness: float  # 0 to 1
    objects: tuple[SceneObject, ...]  # in the order of drawing
    expression: str
    action: str
    hair: str
    is_turned: bool  # the person is mirrored
    box: Box  # around the person, including the outline


@lru_cache(maxsize=64)
def _block_pairs(seed: int, number: int) -> tuple[tuple[int, int], ...]:
    """Return the 64 pairs (state, surroundings) of a block, ordered so that each eight contain every emotion once."""
    rng = Random(f"{seed}/block {number}")
    pairs_of_label = [
        [(state, row.index(str(label))) for state, row in enumerate(LATIN_SQUARE)] for label in range(len(MIKELS))
    ]
    for pairs in pairs_of_label:
        rng.shuffle(pairs)
    return tuple(pair for eight in zip(*pairs_of_label, strict=True) for pair in rng.sample(eight, len(eight)))


def split_of(index: int) -> str:
    """Return the split: of ten groups of eight images, eight are train, one val and one test."""
    return {8: "val", 9: "test"}.get(index // len(MIKELS) % 10, "train")


def state_and_surroundings(seed: int, index: int, misleading: float | None) -> tuple[int, int]:
    """Return the indices in STATES and SURROUNDINGS of image `index`; see `synthetic` for `misleading`."""
    if misleading is None:
        return _block_pairs(seed, index // BLOCK)[index % BLOCK]
    count = len(STATES)
    state = Random(f"{seed}/states {index // count}").sample(range(count), count)[index % count]
    rng = Random(f"{seed}/place {index}")
    has_own_place = rng.random() < misleading and split_of(index) != "test"
    return state, state if has_own_place else rng.randrange(len(SURROUNDINGS))


def plan(seed: int, index: int, misleading: float | None = None) -> ScenePlan:
    """Plan image `index` of a seed, without drawing it; see `synthetic` for `misleading`."""
    state, surroundings_index = state_and_surroundings(seed, index, misleading)
    expression, action = STATES[state]
    surroundings = SURROUNDINGS[surroundings_index]
    # The order of the draws below is part of the data set: another order changes every image.
    rng = Random(f"{seed}/{index}")
    horizon = rng.randint(100, 160)
    hair = rng.choice(HAIR)
    slots = rng.sample(range(SLOTS), SLOTS)
    return ScenePlan(
        seed=f"{seed}/{index}/colours",
        surroundings=surroundings,
        sky=rng.randrange(SKIES),
        horizon_px=horizon,
        is_mirrored=rng.random() < 0.5,
        brightness=rng.randrange(11) / 10,
        colorfulness=rng.randrange(11) / 10,
        objects=_scene_objects(rng, surroundings, slots[1:], horizon),
        expression=expression,
        action=action,
        hair=hair,
        is_turned=rng.random() < 0.5,
        box=_person_box(rng, person_extent(action, hair), slots[0], horizon),
    )


def _person_box(rng: Random, extent: Box, slot: int, horizon: int) -> Box:
    """Return a random box on the ground of a slot, with the extent's shape."""
    height = rng.randint(*PERSON_PX)
    width = math.ceil(height * (extent.x2 - extent.x1) / (extent.y2 - extent.y1))
    x1 = round((slot + 0.5 + rng.uniform(-0.2, 0.2)) * WIDTH / SLOTS - width / 2)
    x1 = min(max(x1, 2), WIDTH - 2 - width)
    y2 = rng.randint(horizon + 50, HEIGHT - 4)
    return Box(x1, y2 - height, x1 + width, y2)


def _scene_objects(
    rng: Random, surroundings: Surroundings, slots: Sequence[int], horizon: int
) -> tuple[SceneObject, ...]:
    """Choose the fixed objects of the surroundings and two or three more, each in its own slot."""
    count = 2 if surroundings.always else rng.randint(2, 3)
    names = [*surroundings.always, *rng.sample(surroundings.sometimes, count)]
    objects = []
    for name, slot in zip(names, slots, strict=False):
        x = (slot + 0.5 + rng.uniform(-0.15, 0.15)) * WIDTH / SLOTS
        scale = rng.uniform(0.85, 1.15)
        _, layer, height = drawings()[name]
        foot_ranges = {"far": (horizon + 5, horizon + 5), "air": (height * scale + 8, horizon - 10)}
        y = rng.uniform(*foot_ranges.get(layer, (horizon + 50, HEIGHT - 5)))
        objects.append(SceneObject(name, x, y, scale))
    # Nearer objects are drawn over those behind them.
    return tuple(sorted(objects, key=lambda scene_object: scene_object.y_px))


Frame = tuple[float, float, float, float, float]
"""Position and scale of a drawing: x and y of its origin in px; px per unit across (below 0: mirrored), up and down."""
# Images are drawn this many times larger and reduced, which smooths the edges.
SHARPNESS = 2
# A list of this number of samples takes half a minute.
MAX_SCENES = 1_000_000
SKY_PAINTS = (("#58aef0", "#d4eefb"), ("#6a63b0", "#fbb98a"), ("#8fa3b5", "#e2e8ee"), ("#1b2452", "#56649c"))
WALL_PAINTS = (("#f6dfc0", "#f2d2a8"), ("#bfd9d2", "#a9cbc3"), ("#cbbfe0", "#b5a7d2"), ("#59557e", "#6d6893"))
SKIN_PAINTS = ("#ffdbb8", "#f2c196", "#d99e6d", "#b57d52", "#8d6040")
HAIR_PAINTS = ("#2b2430", "#5a3a26", "#8c5a2c", "#d9a441", "#b5482e", "#b9b4b8")
PAINTS = ("#e8475a", "#f29f3d", "#f4d35e", "#57b36a", "#3f9fd8", "#6c5fc7", "#e07ab5", "#f2f2f2", "#3c4a66", "#7a4f3a")


@dataclass(frozen=True, slots=True)
class SyntheticImage:
    """Image that is drawn when it is read."""

    seed: int
    index: int
    misleading: float | None = None

    def read(self) -> bytes:
        """Return the bytes of a PNG, RGB, 384 x 288 px; the same for the same seed and index."""
        return _file_of(self)

    def __str__(self) -> str:
        return f"synthetic:{self.seed}/{self.index}"


# Epochs read the same images again; 512 files are about 6 MB.
@lru_cache(maxsize=512)
def _file_of(image: SyntheticImage) -> bytes:
    planned = plan(image.seed, image.index, image.misleading)
    return encode_image(draw(planned), "PNG", compress_level=1)


def synthetic(count: int, seed: int = 0, misleading: float | None = None) -> DataSet:
    """Return the first scenes of a seed, labelled with Mikels' eight; samples 8k to 8k + 7 have each emotion once.

    Of ten such groups of eight, eight are for training, one for val and one for test.

    Args:
        count: Number of scenes.
        seed: Random seed of all scenes.
        misleading: Share of the train and val images of each emotion that have this emotion's own place, 0 to 1; the
            others are anywhere. The emotion is then what the person feels, and only the person determines it. In test
            all places are random: a model that has learned places instead of people is at chance there. None: person
            and place determine the emotion together.

    Raises:
        ConfigError: For a count or a share out of range.

    >>> print(synthetic(64).samples[5].image)
    synthetic:0/5
    """
    if not 1 <= count <= MAX_SCENES:
        raise ConfigError(f"the number of synthetic scenes must be 1 to {MAX_SCENES:,}, got {count}; try synthetic:640")
    if misleading is not None and not 0 <= misleading <= 1:
        raise ConfigError(f"misleading is a share from 0 to 1, as in synthetic:640?misleading=0.9, got {misleading}")
    labels = MIKELS if misleading is None else replace(MIKELS, kind="felt")
    return DataSet(f"synthetic:{count}", labels, [_sample(seed, index, misleading) for index in range(count)])


def _sample(seed: int, index: int, misleading: float | None) -> Sample:
    """Return image `index` of a seed as a sample, without drawing it."""
    planned = plan(seed, index, misleading)
    surroundings = planned.surroundings
    state = STATES.index((planned.expression, planned.action))
    if misleading is None:
        label = int(LATIN_SQUARE[state][SURROUNDINGS.index(surroundings)])
    else:
        label = state
    light = {"brightness": planned.brightness, "colorfulness": planned.colorfulness}
    words = {"scene": surroundings.scene, "facial_expression": planned.expression, "human_action": planned.action}
    drawn = {*surroundings.in_backdrop, *surroundings.row, *(scene_object.name for scene_object in planned.objects)}
    annotation = {"emotion": MIKELS.labels[label], **light, **words, "object": ["Person", *sorted(drawn)]}
    return Sample(
        key=f"{index:06d}.png",
        image=SyntheticImage(seed, index, misleading),
        label=label,
        split=split_of(index),
        annotation=annotation,
        text=describe(annotation, with_emotion=True),
        persons=(Detection(planned.box, 1.0),),
        target_box=planned.box,
        domain="synthetic",
    )


def draw(planned: ScenePlan, has_person: bool = True) -> Image.Image:
    """Draw the image, RGB, 384 x 288 px; without the person everything else stays the same."""
    large = Image.new("RGB", (WIDTH * SHARPNESS, HEIGHT * SHARPNESS), planned.surroundings.ground)
    canvas = Draw(large)
    rng = Random(planned.seed)
    _draw_backdrop(canvas, planned, rng)
    for name in planned.surroundings.row:
        for k in range(7):
            x = (k + rng.uniform(0.2, 0.8)) * WIDTH / 7
            scale = rng.uniform(0.6, 1.1)
            _draw_object(canvas, SceneObject(name, x, planned.horizon_px + 4, scale), rng)
    # Objects and person have generators of their own, so that leaving one out does not change the others.
    for scene_object in planned.objects:
        _draw_object(canvas, scene_object, Random(f"{planned.seed}/{scene_object.name}"))
    if has_person:
        _draw_person(canvas, planned, Random(f"{planned.seed}/person"))
    return large.reduce(SHARPNESS).convert("RGB", _colour_matrix(planned.brightness, planned.colorfulness))


def _colour_matrix(brightness: float, colorfulness: float) -> tuple[float, ...]:
    """Return the colour matrix, 3 rows of 4, that sets the light.

    Args:
        brightness: 0 to 1; 0.5 leaves it unchanged.
        colorfulness: 0 to 1; 0 is nearly grey, 0.75 leaves it unchanged.
    """
    above = max(brightness - 0.5, 0)
    gain = 0.4 + 1.2 * min(brightness, 0.5) - 0.8 * above
    lift = 204 * above
    richness = 0.1 + 1.2 * colorfulness
    grey = [(1 - richness) * gain * share for share in (0.299, 0.587, 0.114)]
    matrix: list[float] = []
    for output in range(3):
        matrix += [grey[channel] + richness * gain * (channel == output) for channel in range(3)]
        matrix.append(lift)
    return tuple(matrix)


def _draw_backdrop(canvas: ImageDraw, planned: ScenePlan, rng: Random) -> None:
    """Draw sky or wall in twelve bands, objects in the sky, then the place."""
    horizon = planned.horizon_px * SHARPNESS
    width = WIDTH * SHARPNESS
    height = HEIGHT * SHARPNESS
    skies = planned.surroundings.skies
    ends = [ImageColor.getrgb(paint) for paint in (SKY_PAINTS if skies else WALL_PAINTS)[planned.sky]]
    for k in range(12):
        colour = tuple(round(a + (b - a) * k / 11) for a, b in zip(*ends, strict=True))
        canvas.rectangle((0, horizon * k // 12, width, horizon - 1), fill=colour)
    if planned.is_mirrored:
        origin_x, across = width, -width / 100
    else:
        origin_x, across = 0, width / 100
    frame = (origin_x, horizon, across, horizon / 100, (height - horizon) / 100)
    for name in (*skies[planned.sky :][:1], planned.surroundings.scene):
        _paint(canvas, drawings()[name].strokes, frame, {}, rng)


def _draw_object(canvas: ImageDraw, scene_object: SceneObject, rng: Random) -> None:
    drawing = drawings()[scene_object.name]
    unit = drawing.height_px * scene_object.scale * SHARPNESS / 100
    frame = (scene_object.x_px * SHARPNESS, scene_object.y_px * SHARPNESS, rng.choice((-unit, unit)), unit, unit)
    _paint(canvas, drawing.strokes, frame, dict(zip("ab", rng.sample(PAINTS, 2), strict=True)), rng)


def _draw_person(canvas: ImageDraw, planned: ScenePlan, rng: Random) -> None:
    """Draw a dark outline, then the person with its face."""
    extent = person_extent(planned.action, planned.hair)
    box = planned.box
    unit = (box.y2 - box.y1) * SHARPNESS / (extent.y2 - extent.y1)
    if planned.is_turned:
        across, edge = -unit, extent.x2
    else:
        across, edge = unit, extent.x1
    frame = (box.x1 * SHARPNESS - across * edge, box.y2 * SHARPNESS + unit * extent.y1, across, unit, unit)
    paints = dict(zip(("shirt", "trousers", "shoes"), rng.sample(PAINTS, 3), strict=True))
    paints |= {"ink": "#2a2030", "skin": rng.choice(SKIN_PAINTS), "hair": rng.choice(HAIR_PAINTS)}
    figure = drawings()[planned.hair].strokes + drawings()[planned.action].strokes
    for stroke in figure:
        _draw_stroke(canvas, stroke, frame, ImageColor.getrgb(paints["ink"]), swell=OUTLINE * unit)
    _paint(canvas, figure + drawings()[planned.expression].strokes, frame, paints, rng)


def _paint(canvas: ImageDraw, strokes: Sequence[Stroke], frame: Frame, paints: Mapping[str, str], rng: Random) -> None:
    """Draw strokes in their colours, all shifted slightly by the same amount."""
    tint = [rng.uniform(-14, 14) for _ in range(3)]
    for stroke in strokes:
        paint = ImageColor.getrgb(paints.get(stroke.paint, stroke.paint))
        tinted = tuple(round(min(max(level + shift, 0), 255)) for level, shift in zip(paint, tint, strict=True))
        _draw_stroke(canvas, stroke, frame, tinted)


def _draw_stroke(canvas: ImageDraw, stroke: Stroke, frame: Frame, colour: tuple[int, ...], swell: float = 0) -> None:
    """Draw a stroke, every edge moved outwards by `swell` px."""
    shape = stroke.shape
    x0, y0, across, up, down = frame
    points = [(x0 + across * x, y0 - (up if y > 0 else down) * y) for x, y in stroke.points]
    width = stroke.width * abs(across) + 2 * swell
    (x1, x2), (y1, y2) = ((min(values), max(values)) for values in zip(*points, strict=True))
    if shape == "p":
        canvas.polygon(points, fill=colour)
    if shape == "l" or (shape == "p" and swell):
        canvas.line(points if shape == "l" else [*points, points[0]], fill=colour, width=round(width))
        # Circles round the ends and joints. Pillow includes the last px of a shape, hence the - 1.
        for x, y in points:
            canvas.ellipse((x - width / 2, y - width / 2, x + width / 2 - 1, y + width / 2 - 1), fill=colour)
    elif shape in "ob":
        draw_shape = canvas.ellipse if shape == "o" else canvas.rectangle
        draw_shape((x1 - swell, y1 - swell, x2 + swell - 1, y2 + swell - 1), fill=colour)
