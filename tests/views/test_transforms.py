"""Views: boxes follow the crop, draws are repeatable, evaluation equals timm's, the person's source is reported."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from tests.drawn import draw_image, jpeg_of, sample_of
from uniemox.data.sample import Sample
from uniemox.errors import BoxError, ConfigError, ImageError
from uniemox.io.images import decode
from uniemox.io.sized_image import SizedImage
from uniemox.persons.box import Box, Detection, choose_person
from uniemox.predict.views import hide
from uniemox.views.config import ViewConfig
from uniemox.views.transforms import EvalViews, TrainViews, Views, WholeViews, random_crop

PERSON = Box(40, 60, 90, 200)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    path = tmp_path / "picture.jpg"
    path.write_bytes(jpeg_of(draw_image(1), quality=95))
    return sample_of(path, persons=(Detection(PERSON, 0.9),))


def same_to_two_levels(ours: np.ndarray, pillows: np.ndarray) -> bool:
    """True if nearly all pixels agree. Pillow rounds between its two passes, so a few at sharp edges differ by more."""
    difference = np.abs(ours.astype(int) - pillows.astype(int))
    return bool((difference <= 2).mean() > 0.999 and difference.max() < 12)


def test_a_draw_depends_on_seed_epoch_and_key_alone(sample: Sample) -> None:
    make = TrainViews(ViewConfig(size=64), seed=3)
    first = make(sample, 5)
    again = make(sample, 5)
    assert torch.equal(first.scene, again.scene)
    assert torch.equal(first.person, again.person)
    for other in (make(sample, 6), TrainViews(ViewConfig(size=64), 4)(sample, 5), make(replace(sample, key="b"), 5)):
        assert not torch.equal(first.scene, other.scene)


def test_person_view_is_the_box_with_the_flip_of_the_scene(sample: Sample) -> None:
    make = TrainViews(ViewConfig(size=64), seed=0)
    image = decode(sample.image.read())[0]
    plain = np.asarray(image.crop(PERSON).resize((64, 64), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    flips = set()
    for epoch in range(12):
        views = make(sample, epoch)
        person = views.person.flip(-1) if views.flip else views.person
        flips.add(views.flip)
        assert same_to_two_levels(person.numpy(), plain)
        assert views.person_source == "largest"
    assert flips == {True, False}


def test_scene_is_the_crop_that_is_reported(sample: Sample) -> None:
    image = decode(sample.image.read())[0]
    for epoch in range(8):
        views = TrainViews(ViewConfig(size=64), seed=0)(sample, epoch)
        expected = image.crop(views.crop).resize((64, 64), Image.Resampling.BICUBIC)
        if views.flip:
            expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert same_to_two_levels(views.scene.numpy(), np.asarray(expected).transpose(2, 0, 1))


def in_scene_view(views: Views, box: Box) -> Box:
    """A box of the image in px of the scene view; it may lie outside."""
    crop = views.crop
    size = views.scene.shape[-1]
    x1, x2 = ((x - crop.x1) * size / (crop.x2 - crop.x1) for x in (box.x1, box.x2))
    y1, y2 = ((y - crop.y1) * size / (crop.y2 - crop.y1) for y in (box.y1, box.y2))
    return Box(size - x2, y1, size - x1, y2) if views.flip else Box(x1, y1, x2, y2)


def test_the_reported_crop_maps_a_box_to_its_pixels(tmp_path: Path) -> None:
    image = Image.new("RGB", (400, 300), "black")
    box = Box(180, 120, 240, 200)
    image.paste("white", tuple(map(int, box)))
    path = tmp_path / "box.png"
    image.save(path)
    for epoch in range(20):
        views = TrainViews(ViewConfig(size=96), seed=1)(sample_of(path, target_box=box), epoch)
        expected = in_scene_view(views, box)
        rows, columns = np.nonzero(views.scene[0].numpy() > 127)
        if len(rows):
            assert columns.min() == pytest.approx(max(expected.x1, 0), abs=1)
            assert columns.max() + 1 == pytest.approx(min(expected.x2, 96), abs=1)
            assert rows.min() == pytest.approx(max(expected.y1, 0), abs=1)
        # The target is all white.
        assert views.person.float().mean() > 250
        assert views.person_source == "target"


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_decoding_small_changes_little(tmp_path: Path, factor: int) -> None:
    """A crop of a JPEG decoded at 1/factor is that of the full image to a few levels of 255."""
    size = (96 * factor + 40, 80 * factor)
    path = tmp_path / "large.jpg"
    path.write_bytes(jpeg_of(draw_image(2, size), quality=95))
    lossless = tmp_path / "large.png"
    decode(path.read_bytes())[0].save(lossless)
    persons = (Detection(Box(0, 0, *size), 1.0),)
    small = TrainViews(ViewConfig(size=32, min_area=0.9), 0)(replace(sample_of(path, persons=persons), key="x"), 0)
    full = TrainViews(ViewConfig(size=32, min_area=0.9), 0)(replace(sample_of(lossless, persons=persons), key="x"), 0)
    assert (small.crop, small.flip) == (full.crop, full.flip)
    assert (small.scene.float() - full.scene.float()).abs().mean() < 4
    assert (small.person.float() - full.person.float()).abs().mean() < 4


def test_evaluation_views_equal_timms(sample: Sample) -> None:
    views = EvalViews(ViewConfig(size=96, crop_fraction=0.9))(sample)
    image = decode(sample.image.read())[0]
    transform = create_transform(
        96, is_training=False, interpolation="bicubic", crop_pct=0.9, mean=(0,) * 3, std=(1,) * 3
    )
    assert torch.equal(views.scene, (transform(image) * 255).round().to(torch.uint8))
    expected = np.asarray(image.resize((96, 96), Image.Resampling.BICUBIC, box=PERSON)).transpose(2, 0, 1)
    assert np.array_equal(views.person.numpy(), expected)


@pytest.mark.parametrize("make", [TrainViews(ViewConfig(size=32), 0), EvalViews(ViewConfig(size=32))])
def test_the_source_of_the_person_view_is_reported(sample: Sample, make: TrainViews | EvalViews) -> None:
    assert make(replace(sample, persons=()), 0).person_source == "whole_image_nobody_found"
    assert make(replace(sample, persons=None), 0).person_source == "whole_image_nobody_looked"
    assert make(replace(sample, persons=None, target_box=PERSON), 0).person_source == "target"


@pytest.mark.parametrize("make", [TrainViews, lambda config, _: EvalViews(config)])
def test_persons_only_blacks_out_the_rest(sample: Sample, make: type) -> None:
    boxes = (Detection(Box(0, 0, 80, 240), 0.9), Detection(Box(280, 0, 320, 60), 0.5))
    views = make(ViewConfig(size=64, person="persons_only"), 0)(replace(sample, persons=boxes), 0)
    person = views.person.flip(-1) if views.flip else views.person
    assert views.person_source == "persons_only"
    assert (person[:, :, 18:54] == 0).all()
    assert (person[:, 18:, 58:] == 0).all()
    assert person[:, :, :15].float().mean() > 20


def test_second_crop_leaves_the_scene_crop_unchanged(sample: Sample) -> None:
    """Runs with another person policy draw the same scene crops and flips."""
    with_person, with_crop = (
        TrainViews(ViewConfig(size=32, person=policy), 0) for policy in ("largest", "second_crop")
    )
    crops = [with_crop(sample, epoch) for epoch in range(8)]
    for epoch, views in enumerate(crops):
        other = with_person(sample, epoch)
        assert (views.crop, views.flip) == (other.crop, other.flip)
        assert views.person_source == "whole_image_second_crop"
        assert not torch.equal(views.person, views.scene)
    assert len({views.person.numpy().tobytes() for views in crops}) == len(crops)
    assert EvalViews(ViewConfig(size=32, person="second_crop"))(sample).person_source == "whole_image_second_crop"


def test_a_second_crop_of_a_wide_image_lies_inside(tmp_path: Path) -> None:
    """No crop of at least this area has an aspect below 4:3 in 400 x 40 px, so it is the middle part of 53 px."""
    image = draw_image(3, (400, 40))
    image.save(tmp_path / "wide.png")
    views = TrainViews(ViewConfig(size=40, min_area=1.0, person="second_crop"), 0)(sample_of(tmp_path / "wide.png"), 0)
    expected = np.asarray(image.crop((173, 0, 226, 40)).resize((40, 40), Image.Resampling.BICUBIC))
    person = views.person.flip(-1) if views.flip else views.person
    assert same_to_two_levels(person.numpy(), expected.transpose(2, 0, 1))


def test_whole_views_are_the_unflipped_image_and_person(sample: Sample) -> None:
    image = decode(sample.image.read())[0]
    views = WholeViews(64)(sample)
    assert (views.crop, views.flip, views.person_source) == (Box(0, 0, 320, 240), False, "largest")
    for view, box in ((views.scene, None), (views.person, PERSON)):
        expected = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC, box=box)).transpose(2, 0, 1)
        assert same_to_two_levels(view.numpy(), expected)


def test_a_person_of_one_px_can_be_cropped(sample: Sample) -> None:
    tiny = replace(sample, target_box=Box(10.2, 10.7, 11.3, 12.0))
    views = TrainViews(ViewConfig(size=16), 0)(tiny, 0)
    assert views.person.shape == (3, 16, 16)


def test_keys_with_undecodable_bytes_have_views(sample: Sample) -> None:
    odd = replace(sample, key="bad\udcff.jpg")
    assert TrainViews(ViewConfig(size=16), 0)(odd, 0).scene.shape == (3, 16, 16)


def test_errors_name_the_image(tmp_path: Path) -> None:
    gone = sample_of(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match=r"gone\.jpg: can't be read \(No such file"):
        TrainViews(ViewConfig(), 0)(gone, 0)
    path = tmp_path / "cut.jpg"
    path.write_bytes(jpeg_of(draw_image(1))[:3000])
    with pytest.raises(ImageError, match=r"cut\.jpg: cut off"):
        TrainViews(ViewConfig(), 0)(sample_of(path), 0)
    path.write_bytes(jpeg_of(draw_image(1)))
    for make in (TrainViews(ViewConfig(), 0), EvalViews(ViewConfig())):
        with pytest.raises(BoxError, match=r"cut\.jpg: Box.*covers no px"):
            make(sample_of(path, target_box=Box(5000, 0, 6000, 10)), 0)


@given(st.integers(1, 2000), st.integers(1, 2000), st.floats(0.01, 1), st.randoms(use_true_random=False))
def test_random_crops_lie_inside(width: int, height: int, min_area: float, draw: object) -> None:
    crop = random_crop(width, height, min_area, draw)  # type: ignore[arg-type]
    assert 0 <= crop.x1 < crop.x2 <= width
    assert 0 <= crop.y1 < crop.y2 <= height


def test_random_crops_cover_the_range_of_areas_and_aspects() -> None:
    draw = random.Random(0)
    crops = [random_crop(400, 400, 0.2, draw) for _ in range(4000)]
    areas = np.array([crop.area / 160_000 for crop in crops])
    aspects = np.array([(crop.x2 - crop.x1) / (crop.y2 - crop.y1) for crop in crops])
    assert areas.min() == pytest.approx(0.2, abs=0.02)
    assert areas.max() > 0.9
    assert aspects.min() > 0.74
    assert aspects.max() < 1.35
    assert np.log(aspects).mean() == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("wrong", [{"size": 4}, {"min_area": 0}, {"min_area": 1.2}, {"crop_fraction": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"view.{next(iter(wrong))}"):
        ViewConfig(**wrong)


def test_a_hidden_person_is_black_in_the_scene_only(sample: Sample) -> None:
    """In training and evaluation, and in what prediction sees."""
    white = Image.new("RGB", (320, 240), "white")
    Path(str(sample.image)).write_bytes(jpeg_of(white, quality=95))
    config = ViewConfig(size=64, crop_fraction=1.0, hide_person=True)
    views = EvalViews(config)(sample)
    person = choose_person(sample.persons, None, (320, 240))
    ours = np.asarray(hide(SizedImage(white, (320, 240)), person))
    assert (ours[60:200, 40:90] == 0).all()
    assert (ours == 0).sum() == 3 * 140 * 50
    # The scene view shows the middle square.
    black_share = (views.scene < 8).float().mean()
    assert black_share == pytest.approx(140 * 50 / 240**2, abs=0.02)
    assert (views.person > 247).all()
    nobody = replace(sample, persons=())
    assert (EvalViews(config)(nobody).scene > 247).all()
    # Boxes are in px of the full image.
    half = white.resize((160, 120))
    assert (np.asarray(hide(SizedImage(half, (320, 240)), person)) == 0).sum() == 3 * 70 * 25
    black_shares = [(TrainViews(config, 0)(sample, epoch).scene < 8).float().mean() for epoch in range(8)]
    assert max(black_shares) > 0.1
