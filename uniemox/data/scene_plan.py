"""What a synthetic scene shows: its place, objects and person, drawn from a seed; the emotion follows from a law."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import NamedTuple

from uniemox.data.drawings import drawings, person_extent
from uniemox.labels import MIKELS
from uniemox.persons.box import Box

WIDTH, HEIGHT = 384, 288  # px
PERSON_PX = (56, 80)  # least and greatest height of a person
SLOTS = 5  # columns of an image; the person has one to itself, so that no object hides behind it
BLOCK = 64  # samples in a row that hold every pair of state and surroundings once
SKIES = 4
STATES = tuple((face, action) for face in ("happy", "sad", "angry", "surprise") for action in ("dancing", "marching"))
# Classes of MIKELS: a row for each of STATES, a column for each of SURROUNDINGS; no class twice in a row or column.
LAW = ("54613702", "60342517", "13704625", "21576043", "47250361", "36025174", "02137456", "75461230")


class Surroundings(NamedTuple):
    """A place; its backdrop, x from 0 to 100 across, y 100 the top, 0 the horizon, -100 the bottom, bears its name."""

    scene: str
    ground: str  # its colour
    sometimes: tuple[str, ...]
    always: tuple[str, ...] = ()
    in_backdrop: tuple[str, ...] = ()
    row: tuple[str, ...] = ()  # all along the horizon
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


class Thing(NamedTuple):
    """An object at a place."""

    name: str
    x_px: float  # middle
    y_px: float  # foot
    scale: float  # times the drawing's height


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """All that an image shows. The emotion is not in it, so nothing drawn can tell it."""

    seed: str  # of colours and shapes that no annotation names
    place: Surroundings
    sky: int  # of SKY_PAINTS or WALL_PAINTS
    horizon_px: int  # from the top
    is_mirrored: bool  # the backdrop
    brightness: float  # 0 to 1
    colorfulness: float  # 0 to 1
    things: tuple[Thing, ...]  # in the order of drawing
    expression: str
    action: str
    hair: str
    is_turned: bool  # the person, left for right
    box: Box  # around all of the person, its outline included


@lru_cache(maxsize=64)
def _block(seed: int, number: int) -> tuple[tuple[int, int], ...]:
    """The 64 pairs (state, surroundings) of a block in an order in which each eight holds every emotion once."""
    rng = Random(f"{seed}/block {number}")
    pairs = [[(state, row.index(str(label))) for state, row in enumerate(LAW)] for label in range(len(MIKELS))]
    for group in pairs:
        rng.shuffle(group)
    return tuple(pair for eight in zip(*pairs, strict=True) for pair in rng.sample(eight, len(eight)))


def split_of(index: int) -> str:
    """Of ten eights of images in a row, eight are for training, one for val and one for test."""
    return {8: "val", 9: "test"}.get(index // len(MIKELS) % 10, "train")


def state_and_place(seed: int, index: int, misleading: float | None) -> tuple[int, int]:
    """Places in STATES and in SURROUNDINGS of image `index`; see `synthetic` for what misleads."""
    if misleading is None:
        return _block(seed, index // BLOCK)[index % BLOCK]
    count = len(STATES)
    state = Random(f"{seed}/states {index // count}").sample(range(count), count)[index % count]
    rng = Random(f"{seed}/place {index}")
    goes_along = rng.random() < misleading and split_of(index) != "test"
    return state, state if goes_along else rng.randrange(len(SURROUNDINGS))


def plan(seed: int, index: int, misleading: float | None = None) -> ScenePlan:
    """What image `index` of a seed shows. Nothing is drawn yet."""
    state, place = state_and_place(seed, index, misleading)
    expression, action = STATES[state]
    rng = Random(f"{seed}/{index}")
    horizon, hair = rng.randint(100, 160), rng.choice(HAIR)
    slots = rng.sample(range(SLOTS), SLOTS)
    return ScenePlan(
        seed=f"{seed}/{index}/colours",
        place=SURROUNDINGS[place],
        sky=rng.randrange(SKIES),
        horizon_px=horizon,
        is_mirrored=rng.random() < 0.5,
        brightness=rng.randrange(11) / 10,
        colorfulness=rng.randrange(11) / 10,
        things=_things(rng, SURROUNDINGS[place], slots[1:], horizon),
        expression=expression,
        action=action,
        hair=hair,
        is_turned=rng.random() < 0.5,
        box=_person_box(rng, person_extent(action, hair), slots[0], horizon),
    )


def _person_box(rng: Random, extent: Box, slot: int, horizon: int) -> Box:
    """Somewhere on the ground of a slot, of the shape of that extent."""
    height = rng.randint(*PERSON_PX)
    width = math.ceil(height * (extent.x2 - extent.x1) / (extent.y2 - extent.y1))
    x1 = round((slot + 0.5 + rng.uniform(-0.2, 0.2)) * WIDTH / SLOTS - width / 2)
    x1, y2 = min(max(x1, 2), WIDTH - 2 - width), rng.randint(horizon + 50, HEIGHT - 4)
    return Box(x1, y2 - height, x1 + width, y2)


def _things(rng: Random, place: Surroundings, slots: Sequence[int], horizon: int) -> tuple[Thing, ...]:
    """What a place always has and two or three more, each in a slot of its own, so that none hides another."""
    names = [*place.always, *rng.sample(place.sometimes, 2 if place.always else rng.randint(2, 3))]
    things = []
    for name, slot in zip(names, slots, strict=False):
        x, scale = (slot + 0.5 + rng.uniform(-0.15, 0.15)) * WIDTH / SLOTS, rng.uniform(0.85, 1.15)
        _, layer, height = drawings()[name]
        feet = {"far": (horizon + 5, horizon + 5), "air": (height * scale + 8, horizon - 10)}
        things.append(Thing(name, x, rng.uniform(*feet.get(layer, (horizon + 50, HEIGHT - 5))), scale))
    return tuple(sorted(things, key=lambda thing: thing.y_px))
