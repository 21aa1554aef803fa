"""Cartoon scenes in which the emotion follows from person and surroundings together, and from neither alone.

They are the data of the demo, and the test bed on which the fusion of person and surroundings must earn its keep.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from PIL import Image, ImageColor
from PIL.ImageDraw import Draw, ImageDraw

from uniemox.data.drawings import OUTLINE, Stroke, drawings, person_extent
from uniemox.data.prompts import describe
from uniemox.data.sample import DataSet, Sample
from uniemox.data.scene_plan import HEIGHT, LAW, STATES, SURROUNDINGS, WIDTH, ScenePlan, Thing, plan, split_of
from uniemox.errors import ConfigError
from uniemox.labels import MIKELS
from uniemox.persons.box import Detection

Frame = tuple[float, float, float, float, float]  # x and y of 0 0 in px; px a unit across (< 0 mirrors), up and down
SHARPNESS = 2  # drawn this many times larger and reduced, which smooths the edges
MAX_SCENES = 1_000_000  # a list of so many takes half a minute
SKY_PAINTS = (("#58aef0", "#d4eefb"), ("#6a63b0", "#fbb98a"), ("#8fa3b5", "#e2e8ee"), ("#1b2452", "#56649c"))
WALL_PAINTS = (("#f6dfc0", "#f2d2a8"), ("#bfd9d2", "#a9cbc3"), ("#cbbfe0", "#b5a7d2"), ("#59557e", "#6d6893"))
SKIN_PAINTS = ("#ffdbb8", "#f2c196", "#d99e6d", "#b57d52", "#8d6040")
HAIR_PAINTS = ("#2b2430", "#5a3a26", "#8c5a2c", "#d9a441", "#b5482e", "#b9b4b8")
PAINTS = ("#e8475a", "#f29f3d", "#f4d35e", "#57b36a", "#3f9fd8", "#6c5fc7", "#e07ab5", "#f2f2f2", "#3c4a66", "#7a4f3a")


@dataclass(frozen=True, slots=True)
class SyntheticImage:
    """An image that is drawn when it is read."""

    seed: int
    index: int
    misleading: float | None = None

    def read(self) -> bytes:
        """The bytes of a PNG, RGB, 384 x 288 px; the same for the same seed and index."""
        file = io.BytesIO()
        draw(plan(self.seed, self.index, self.misleading)).save(file, "PNG", compress_level=1)
        return file.getvalue()

    def __str__(self) -> str:
        return f"synthetic:{self.seed}/{self.index}"


def synthetic(count: int, seed: int = 0, misleading: float | None = None) -> DataSet:
    """The first scenes of a seed, labelled with Mikels' eight; samples 8k to 8k + 7 hold each emotion once.

    Of ten such eights, eight are for training, one for val and one for test.
    misleading: None, or a share, 0 to 1: then the emotion is what the person feels, and follows from the person alone;
    but in train and val each emotion has a place of its own, where so many of its images are (all others are anywhere).
    In test places say nothing: who has learned the place instead of the person is at chance there.
    Raises ConfigError for a count or a share out of range.

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
    planned = plan(seed, index, misleading)
    place, state = planned.place, STATES.index((planned.expression, planned.action))
    label = state if misleading is not None else int(LAW[state][SURROUNDINGS.index(place)])
    light = {"brightness": planned.brightness, "colorfulness": planned.colorfulness}
    words = {"scene": place.scene, "facial_expression": planned.expression, "human_action": planned.action}
    drawn = {*place.in_backdrop, *place.row, *(thing.name for thing in planned.things)}
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
    """The image, RGB, 384 x 288 px; without the person, all else is the same."""
    large = Image.new("RGB", (WIDTH * SHARPNESS, HEIGHT * SHARPNESS), planned.place.ground)
    canvas, rng = Draw(large), Random(planned.seed)
    _draw_backdrop(canvas, planned, rng)
    for k, name in ((k, name) for name in planned.place.row for k in range(7)):
        x, scale = (k + rng.uniform(0.2, 0.8)) * WIDTH / 7, rng.uniform(0.6, 1.1)
        _draw_thing(canvas, Thing(name, x, planned.horizon_px + 4, scale), rng)
    for thing in planned.things:
        _draw_thing(canvas, thing, Random(f"{planned.seed}/{thing.name}"))
    if has_person:
        _draw_person(canvas, planned, Random(f"{planned.seed}/person"))
    return large.reduce(SHARPNESS).convert("RGB", _light(planned.brightness, planned.colorfulness))


def _light(brightness: float, colorfulness: float) -> tuple[float, ...]:
    """The colour matrix, 3 rows of 4, that darkens, or lightens towards white, and mutes or enriches."""
    above = max(brightness - 0.5, 0)
    gain, lift, richness = 0.4 + 1.2 * min(brightness, 0.5) - 0.8 * above, 204 * above, 0.1 + 1.2 * colorfulness
    grey = [(1 - richness) * gain * share for share in (0.299, 0.587, 0.114)]
    return tuple(v for i in range(3) for v in (*(grey[j] + richness * gain * (i == j) for j in range(3)), lift))


def _draw_backdrop(canvas: ImageDraw, planned: ScenePlan, rng: Random) -> None:
    """Sky or wall in twelve bands, what stands in the sky, then the place."""
    horizon, width, height = planned.horizon_px * SHARPNESS, WIDTH * SHARPNESS, HEIGHT * SHARPNESS
    skies = planned.place.skies
    ends = [ImageColor.getrgb(paint) for paint in (SKY_PAINTS if skies else WALL_PAINTS)[planned.sky]]
    for k in range(12):
        colour = tuple(round(a + (b - a) * k / 11) for a, b in zip(*ends, strict=True))
        canvas.rectangle((0, horizon * k // 12, width, horizon - 1), fill=colour)
    left, across = (width, -width / 100) if planned.is_mirrored else (0, width / 100)
    frame = (left, horizon, across, horizon / 100, (height - horizon) / 100)
    for name in (*skies[planned.sky :][:1], planned.place.scene):
        _paint(canvas, drawings()[name].strokes, frame, {}, rng)


def _draw_thing(canvas: ImageDraw, thing: Thing, rng: Random) -> None:
    drawing = drawings()[thing.name]
    unit = drawing.height_px * thing.scale * SHARPNESS / 100
    frame = (thing.x_px * SHARPNESS, thing.y_px * SHARPNESS, rng.choice((-unit, unit)), unit, unit)
    _paint(canvas, drawing.strokes, frame, dict(zip("ab", rng.sample(PAINTS, 2), strict=True)), rng)


def _draw_person(canvas: ImageDraw, planned: ScenePlan, rng: Random) -> None:
    """A dark outline, then the person with its face."""
    extent, box = person_extent(planned.action, planned.hair), planned.box
    unit = (box.y2 - box.y1) * SHARPNESS / (extent.y2 - extent.y1)
    across, edge = (-unit, extent.x2) if planned.is_turned else (unit, extent.x1)
    frame = (box.x1 * SHARPNESS - across * edge, box.y2 * SHARPNESS + unit * extent.y1, across, unit, unit)
    paints = dict(zip(("shirt", "trousers", "shoes"), rng.sample(PAINTS, 3), strict=True))
    paints |= {"ink": "#2a2030", "skin": rng.choice(SKIN_PAINTS), "hair": rng.choice(HAIR_PAINTS)}
    body = drawings()[planned.hair].strokes + drawings()[planned.action].strokes
    for stroke in body:
        _draw_stroke(canvas, stroke, frame, ImageColor.getrgb(paints["ink"]), swell=OUTLINE * unit)
    _paint(canvas, body + drawings()[planned.expression].strokes, frame, paints, rng)


def _paint(canvas: ImageDraw, strokes: Sequence[Stroke], frame: Frame, paints: Mapping[str, str], rng: Random) -> None:
    """Strokes in their colours, all of them shifted a little alike."""
    tint = [rng.uniform(-14, 14) for _ in range(3)]
    for stroke in strokes:
        colour = zip(ImageColor.getrgb(paints.get(stroke.paint, stroke.paint)), tint, strict=True)
        _draw_stroke(canvas, stroke, frame, tuple(round(min(max(c + shift, 0), 255)) for c, shift in colour))


def _draw_stroke(canvas: ImageDraw, stroke: Stroke, frame: Frame, colour: tuple[int, ...], swell: float = 0) -> None:
    """swell: px by which every edge moves outwards. Pillow paints the last px of ovals and boxes too, hence the - 1."""
    shape = stroke.shape
    x0, y0, across, up, down = frame
    points = [(x0 + across * x, y0 - (up if y > 0 else down) * y) for x, y in stroke.points]
    width = stroke.width * abs(across) + 2 * swell
    (left, right), (top, bottom) = ((min(values), max(values)) for values in zip(*points, strict=True))
    if shape == "p":
        canvas.polygon(points, fill=colour)
    if shape == "l" or (shape == "p" and swell):
        canvas.line(points if shape == "l" else [*points, points[0]], fill=colour, width=round(width))
        for x, y in points:  # round ends and joints
            canvas.ellipse((x - width / 2, y - width / 2, x + width / 2 - 1, y + width / 2 - 1), fill=colour)
    elif shape in "ob":
        fill = canvas.ellipse if shape == "o" else canvas.rectangle
        fill((left - swell, top - swell, right + swell - 1, bottom + swell - 1), fill=colour)
