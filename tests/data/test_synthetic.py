"""Synthetic scenes: the law that only person and surroundings together obey, and that images show what is said."""

import hashlib
import io
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from uniemox.data import synthetic_scenes as module
from uniemox.data.prompts import describe
from uniemox.data.sample import Sample
from uniemox.data.source import open_data
from uniemox.data.synthetic_scenes import (
    HEIGHT,
    LATIN_SQUARE,
    STATES,
    SURROUNDINGS,
    WIDTH,
    ScenePlan,
    draw,
    plan,
    synthetic,
)
from uniemox.errors import ConfigError
from uniemox.labels import MIKELS

CHANCE = 1 / 8
PERSON = ("facial_expression", "human_action")
PLACE = ("scene", "object", "brightness", "colorfulness")


@pytest.fixture(scope="module")
def samples() -> Sequence[Sample]:
    """Halves of 100 blocks each."""
    return synthetic(12_800).samples


def best_guess(samples: Sequence[Sample], fields: Sequence[str]) -> float:
    """Accuracy of the commonest label for each combination of the fields, counted in one half, in the other."""
    half = len(samples) // 2
    label_counts: dict[tuple[object, ...], Counter[int | None]] = defaultdict(Counter)
    for sample in samples[:half]:
        label_counts[_values(sample, fields)][sample.label] += 1
    guesses = {values: counts.most_common(1)[0][0] for values, counts in label_counts.items()}
    return sum(guesses.get(_values(sample, fields), 0) == sample.label for sample in samples[half:]) / half


def _note(sample: Sample) -> Mapping[str, Any]:
    assert sample.annotation is not None
    return sample.annotation


def _values(sample: Sample, fields: Sequence[str]) -> tuple[object, ...]:
    values = [_note(sample)[field] for field in fields]
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


@pytest.mark.parametrize(
    "fields",
    [(field,) for field in PERSON + PLACE]
    + [PERSON, PLACE, ("scene", "object"), ("scene", "brightness"), ("scene", "colorfulness"), PLACE[2:]],
)
def test_person_or_surroundings_alone_are_at_chance(samples: Sequence[Sample], fields: Sequence[str]) -> None:
    """The standard error is 0.004; 0.025 is six of them."""
    assert best_guess(samples, fields) <= CHANCE + 0.025


def test_person_and_surroundings_together_determine_the_emotion(samples: Sequence[Sample]) -> None:
    assert best_guess(samples, (*PERSON, "scene")) == 1
    assert best_guess(samples, (*PERSON, "object")) >= 0.95, "three kinds of object are in several places"


def test_a_part_of_the_person_narrows_the_guess_as_the_square_says(samples: Sequence[Sample]) -> None:
    """Two states share an expression and four an action, so guesses are one in two and one in four."""
    assert best_guess(samples, ("facial_expression", "scene")) == pytest.approx(1 / 2, abs=0.04)
    assert best_guess(samples, ("human_action", "scene")) == pytest.approx(1 / 4, abs=0.04)


def test_nothing_else_that_is_drawn_leaks_the_emotion(samples: Sequence[Sample]) -> None:
    def drawn(index: int) -> dict[str, object]:
        p = plan(0, index)
        return {
            "sky": p.sky, "horizon": p.horizon_px, "mirrored": p.is_mirrored, "turned": p.is_turned, "hair": p.hair,
            "height": p.box.y2 - p.box.y1, "x": (p.box.x1 + p.box.x2) // 48, "y": p.box.y2 // 12,
        }  # fmt: skip

    annotated = [replace(sample, annotation={**_note(sample), **drawn(i)}) for i, sample in enumerate(samples)]
    for field in drawn(0):
        for others in ((), ("scene",), PERSON):  # nor does it tell the person, nor the scene
            assert best_guess(annotated, (field, *others)) <= CHANCE + 0.025, (field, *others)
    assert "emotion" not in ScenePlan.__slots__, "what draws must not know the emotion"


def test_labels_form_a_latin_square() -> None:
    assert len(LATIN_SQUARE) == len(STATES) == len(SURROUNDINGS) == len(MIKELS)
    for line in (*LATIN_SQUARE, *zip(*LATIN_SQUARE, strict=True)):
        assert sorted(line) == list("01234567")


def test_every_block_holds_each_pair_once_and_every_eight_each_emotion(samples: Sequence[Sample]) -> None:
    orders = set()
    for start in range(0, 640, 64):
        block = samples[start : start + 64]
        assert len({_values(sample, (*PERSON, "scene")) for sample in block}) == 64
        orders.add(tuple(_values(sample, (*PERSON, "scene")) for sample in block))
        for first in range(0, 64, 8):
            assert sorted(sample.label or 0 for sample in block[first : first + 8]) == list(range(8))
    assert len(orders) == 10, "each block has an order of its own"


def test_every_split_is_balanced() -> None:
    for count in (80, 640, 1280):
        by_split: dict[str | None, list[int | None]] = defaultdict(list)
        for sample in synthetic(count).samples:
            by_split[sample.split].append(sample.label)
        assert {split: len(labels) for split, labels in by_split.items()} == {
            "train": count * 8 // 10, "val": count // 10, "test": count // 10,
        }  # fmt: skip
        for labels in by_split.values():
            assert set(Counter(labels).values()) == {len(labels) // 8}


def test_larger_data_set_begins_with_the_same_samples() -> None:
    assert synthetic(64).samples == synthetic(640).samples[:64]
    assert synthetic(64, seed=1).samples != synthetic(64).samples
    assert str(synthetic(64, seed=3).samples[5].image) == "synthetic:3/5"


def test_sample_has_every_field() -> None:
    data = synthetic(640)
    assert (data.name, data.labels, len(data)) == ("synthetic:640", MIKELS, 640)
    assert len({sample.key for sample in data.samples}) == 640
    sample = data.samples[123]
    assert (sample.key, sample.domain) == ("000123.png", "synthetic")
    assert sample.text == describe(sample.annotation, with_emotion=True)
    assert [(person.box, person.confidence) for person in sample.persons or ()] == [(sample.target_box, 1.0)]
    assert all(data.label_of(s) == _note(s)["emotion"] for s in data.samples)
    assert "The facial expression is " in describe(_note(sample), with_emotion=True)


@pytest.mark.parametrize("count", [0, -1])
def test_counts_out_of_range_are_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"got {count}"):
        synthetic(count)


def test_listing_samples_draws_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "draw", None)
    # Of a seed that no other test reads, so that no image is in the cache.
    data = synthetic(64, seed=64)
    with pytest.raises(TypeError):
        data.samples[0].image.read()


def test_every_word_is_in_emosets_vocabulary(shared: Path, samples: Sequence[Sample]) -> None:
    """Except "Person", which EmoSet's list of 409 objects does not have; the first object of every image."""
    info = json.loads((shared / "data" / "emoset" / "info.json").read_text("utf-8"))
    words = {field: set(info[field]["label2idx"]) for field in info}
    for sample in samples:
        note = _note(sample)
        assert set(note) == set(words)
        assert note["object"][0] == "Person"
        assert len(note["object"]) >= 3
        assert set(note["object"][1:]) <= words["object"] - {"Person"}
        for field in ("emotion", "scene", "facial_expression", "human_action"):
            assert note[field] in words[field], field
        for field in ("brightness", "colorfulness"):
            assert str(note[field]) in words[field], field
    assert len({_note(sample)["brightness"] for sample in samples}) == 11


def test_an_image_is_a_png_of_the_stated_size() -> None:
    for sample in synthetic(8).samples:
        with Image.open(io.BytesIO(sample.image.read())) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (384, 288))


def test_the_same_bytes_in_every_process() -> None:
    """Five images and 64 annotations, hashed here and in two processes with other hash seeds."""
    code = (
        "import hashlib; from uniemox.data.synthetic_scenes import synthetic; s = synthetic(64, seed=7).samples; "
        "h = hashlib.sha256(repr(s).encode()); [h.update(x.image.read()) for x in s[:5]]; print(h.hexdigest())"
    )
    samples = synthetic(64, seed=7).samples
    digest = hashlib.sha256(repr(samples).encode())
    images = [sample.image.read() for sample in samples[:5]]
    assert len(set(images)) == 5
    for image in images:
        digest.update(image)
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == digest.hexdigest()


def _pixels(planned: ScenePlan, has_person: bool = True) -> NDArray[np.float64]:
    """(288, 384, 3), 0 to 255."""
    return np.asarray(draw(planned, has_person), dtype=np.float64)


@pytest.mark.thorough
def test_the_box_is_the_persons_to_one_px() -> None:
    for index in range(192):
        planned = plan(0, index)
        differs = (_pixels(planned) != _pixels(planned, has_person=False)).any(axis=2)
        ys = differs.any(axis=1).nonzero()[0]
        xs = differs.any(axis=0).nonzero()[0]
        drawn_box = np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1])
        assert np.abs(drawn_box - planned.box).max() <= 1, (index, drawn_box, planned.box)
        assert differs.sum() > 0.4 * planned.box.area, "most of the box is person"


def test_the_person_is_small_and_inside(samples: Sequence[Sample]) -> None:
    boxes = np.array([sample.target_box for sample in samples])
    heights = (boxes[:, 3] - boxes[:, 1]) / HEIGHT
    assert (heights.min(), heights.max()) == (56 / 288, 80 / 288)
    assert boxes[:, :2].min() >= 1
    assert boxes[:, 2].max() < WIDTH
    assert boxes[:, 3].max() < HEIGHT
    assert boxes[:, 0].min() < 10, "from the left edge"
    assert boxes[:, 2].max() > WIDTH - 10, "to the right"


@pytest.mark.thorough
def test_every_object_that_is_listed_can_be_seen() -> None:
    for index in range(64):
        planned = plan(0, index)
        everything = _pixels(planned)
        for k, thing in enumerate(planned.objects):
            without = _pixels(replace(planned, objects=planned.objects[:k] + planned.objects[k + 1 :]))
            assert (everything != without).any(axis=2).sum() > 100, (index, thing.name)


@pytest.mark.thorough
@pytest.mark.parametrize("field", ["brightness", "colorfulness"])
def test_pixels_follow_the_stated_level(field: str) -> None:
    """Means over the same 16 scenes at each level: luma, and the spread of the channels."""
    means = []
    for level in range(11):
        change: dict[str, Any] = {field: level / 10}
        drawn = np.stack([_pixels(replace(plan(0, index), **change)) for index in range(16)])
        means.append(drawn.mean() if field == "brightness" else np.ptp(drawn, axis=3).mean())
    assert (np.diff(means) > 3).all(), means


def test_the_face_is_legible_in_the_crop_and_hardly_in_the_scene() -> None:
    """Share of pixels that another expression changes visibly: 64 px crops, and the whole scene at 96 px."""
    crop_shares = []
    scene_shares = []
    for index in range(64):
        planned = plan(0, index)
        others = [e for e, action in STATES if action == planned.action and e != planned.expression]
        images = [draw(replace(planned, expression=e)) for e in (planned.expression, *others)]
        crops = [np.asarray(i.crop(planned.box).resize((64, 64)), dtype=np.float64) for i in images]
        scenes = [np.asarray(i.resize((96, 96)), dtype=np.float64) for i in images]
        crop_shares += [(np.abs(crops[0] - crop) > 25).any(axis=2).mean() for crop in crops[1:]]
        scene_shares += [(np.abs(scenes[0] - scene) > 25).any(axis=2).mean() for scene in scenes[1:]]
    assert min(crop_shares) > 0.03
    assert max(scene_shares) < 0.015


def test_misleading_places_follow_the_label_except_in_test() -> None:
    data = open_data("synthetic:6400?misleading=0.9&seed=2")
    assert data.labels.kind == "felt"
    for split, share in (("train", 0.9 + 0.1 / 8), ("val", 0.9 + 0.1 / 8), ("test", 1 / 8)):
        part = [sample for sample in data.samples if sample.split == split]
        assert set(Counter(sample.label for sample in part).values()) == {len(part) // 8}
        has_own_place = [_note(sample)["scene"] == SURROUNDINGS[sample.label or 0].scene for sample in part]
        assert np.mean(has_own_place) == pytest.approx(share, abs=0.04)
        for sample in part:  # the person alone decides
            state = (_note(sample)["facial_expression"], _note(sample)["human_action"])
            assert STATES[sample.label or 0] == state
    sample = data.samples[3]
    again = open_data("synthetic:8?misleading=0.9&seed=2").samples[3]
    assert sample == again
    assert sample.image.read() != synthetic(8, seed=2).samples[3].image.read()


@pytest.mark.parametrize("share", ["1.5", "-0.1", "nan", "often"])
def test_other_shares_are_refused(share: str) -> None:
    with pytest.raises(ConfigError, match=r"share from 0 to 1, as in synthetic:640|must be a number"):
        open_data(f"synthetic:8?misleading={share}")
