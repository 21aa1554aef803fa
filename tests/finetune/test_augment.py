"""Augmentation: timm's own results, one mix for both views, and draws that can be repeated."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from timm.data import Mixup
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from tests.drawn import draw_image, jpeg_of, sample_of
from tests.finetune.augmented import augment_batch
from uniemox.data.sample import Sample
from uniemox.errors import ConfigError, ShapeError
from uniemox.finetune.augmentation import AugmentedViews, _randaugment
from uniemox.finetune.config import AugmentConfig
from uniemox.persons.box import Box, Detection
from uniemox.views.config import ViewConfig
from uniemox.views.patches import PixelStats, normalise
from uniemox.views.transforms import TrainViews, Views

CPU = torch.device("cpu")
RAND = "rand-m9-mstd0.5-inc1"
OFF = {"randaugment": None, "mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0, "erasing": 0.0}


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    path = tmp_path / "picture.jpg"
    path.write_bytes(jpeg_of(draw_image(1), quality=95))
    return sample_of(path, persons=(Detection(Box(40, 60, 90, 200), 0.9),))


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def images(count: int, size: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def only(**settings: object) -> AugmentConfig:
    return AugmentConfig(**{**OFF, **settings})


def same(first: Views, second: Views) -> bool:
    return torch.equal(first.scene, second.scene) and torch.equal(first.person, second.person)


def test_a_draw_depends_on_seed_epoch_and_key_alone(sample: Sample) -> None:
    make = AugmentedViews(ViewConfig(size=48), 3, RAND)
    seed_all(0)
    first = make(sample, 5)
    seed_all(1)
    assert same(first, make(sample, 5))
    epochs = [make(sample, epoch) for epoch in range(8)]
    plain = [TrainViews(ViewConfig(size=48), 3)(sample, epoch) for epoch in range(8)]
    assert [(views.crop, views.flip) for views in epochs] == [(views.crop, views.flip) for views in plain]
    # Two operations run, each with a probability of one half.
    assert sum(same(*pair) for pair in zip(epochs, plain, strict=True)) < 5
    assert not same(first, AugmentedViews(ViewConfig(size=48), 4, RAND)(sample, 5))


def test_global_generators_are_restored(sample: Sample) -> None:
    seed_all(7)
    expected = random.random(), np.random.rand(), torch.rand(1)
    seed_all(7)
    AugmentedViews(ViewConfig(size=48), 3, RAND)(sample, 5)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected


def test_views_are_timms_randaugment_of_train_views(sample: Sample) -> None:
    options = {"translate_const": 21, "img_mean": (124, 116, 104), "interpolation": Image.Resampling.BICUBIC}
    augment = rand_augment_transform(RAND, options)
    for epoch in range(4):
        plain = TrainViews(ViewConfig(size=48), 3)(sample, epoch)
        random.seed(f"randaugment/3/{epoch}/{sample.key}".encode())
        np.random.seed(random.getrandbits(32))
        expected = [
            np.asarray(augment(Image.fromarray(view.permute(1, 2, 0).numpy()))) for view in (plain.scene, plain.person)
        ]
        views = AugmentedViews(ViewConfig(size=48), 3, RAND)(sample, epoch)
        for view, image in zip((views.scene, views.person), expected, strict=True):
            assert view.dtype == torch.uint8
            assert np.array_equal(view.permute(1, 2, 0).numpy(), image)


def test_a_share_of_the_images_is_altered_before_randaugment(sample: Sample) -> None:
    """Scene and person alike; the others stay, to the bit."""
    make = AugmentedViews(ViewConfig(size=48), 3, None, altered=0.5)
    altered = [make(sample, epoch) for epoch in range(60)]
    plain = [TrainViews(ViewConfig(size=48), 3)(sample, epoch) for epoch in range(60)]
    assert [views.crop for views in altered] == [views.crop for views in plain]
    differ = [not same(*pair) for pair in zip(altered, plain, strict=True)]
    assert 15 < sum(differ) < 45
    assert all(same(make(sample, epoch), views) for epoch, views in enumerate(altered))
    without_colour = 0
    for views in altered:
        greys = [
            torch.equal(view[0], view[1]) and torch.equal(view[1], view[2]) for view in (views.scene, views.person)
        ]
        assert greys[0] == greys[1]
        without_colour += greys[0]
    # On average 0.5 * 0.3 of 60.
    assert 2 < without_colour < 25
    none = AugmentedViews(ViewConfig(size=48), 3, None, altered=0.0)
    assert all(same(none(sample, epoch), views) for epoch, views in enumerate(plain))


@pytest.mark.parametrize("end", ["rand-m0-n15-p1", "rand-m10-n15-p1", "rand-m0-n15-p1-inc1", "rand-m10-n15-p1-inc1"])
def test_every_operation_works_at_both_ends_of_its_range(end: str, sample: Sample) -> None:
    """Fifteen draws of fifteen operations an epoch. timm's own posterizing asks Pillow for 0 bits, which is refused."""
    make = AugmentedViews(ViewConfig(size=32), 0, end)
    assert {make(sample, epoch).scene.shape for epoch in range(8)} == {(3, 32, 32)}


@pytest.mark.parametrize(("magnitude", "bits"), [(0, 4), (5, 2), (9, 1), (10, 1)])
def test_at_least_one_bit_of_a_colour_is_left(magnitude: int, bits: int) -> None:
    posterize = next(op for op in _randaugment(f"rand-m{magnitude}-p1-inc1", 64).ops if "Posterize" in op.name)
    image = draw_image(0)
    assert posterize(image) == ImageOps.posterize(image, bits)


def test_gaps_have_the_mean_colour_of_imagenet() -> None:
    rotate = next(op for op in _randaugment("rand-m9-p1-inc1", 64).ops if op.name.startswith("Rotate"))
    assert rotate(Image.new("RGB", (64, 64), "white")).getpixel((0, 0)) == (124, 116, 104)


@pytest.mark.parametrize("task", ["label", "distribution", "affect"])
def test_all_off_only_normalises(task: str) -> None:
    scene = images(3)
    person = images(3, seed=1)
    targets = torch.rand(3, 2)
    results = augment_batch(scene, person, targets, only(), task=task)
    for result, expected in zip(results, (normalise(scene, CPU), normalise(person, CPU), targets), strict=True):
        assert torch.equal(result, expected)


def test_pixels_are_normalised_as_the_encoder_was_trained() -> None:
    half = ((0.5,) * 3, (0.25,) * 3)
    stack = images(2)
    scene, _, _ = augment_batch(stack, None, torch.eye(2), only(), task="label", stats=PixelStats(*half))
    torch.testing.assert_close(scene, (stack / 255 - 0.5) / 0.25)


def test_only_labels_are_smoothed() -> None:
    one_hot = torch.eye(4)[[1, 3, 3]]
    for task, expected in (("label", 0.8 * one_hot + 0.05), ("distribution", one_hot), ("affect", one_hot)):
        _, _, targets = augment_batch(images(3), None, one_hot, only(smoothing=0.2), task=task)
        torch.testing.assert_close(targets, expected)


@given(st.sampled_from([(0.8, 1.0), (0.8, 0.0), (0.0, 1.0)]), st.integers(1, 4), st.integers(0, 99))
def test_mixing_equals_timms(alphas: tuple[float, float], half: int, seed: int) -> None:
    """The same draws through timm's Mixup with its own label smoothing."""
    stack = images(2 * half)
    labels = torch.arange(2 * half) % 3
    config = only(mixup=alphas[0], cutmix=alphas[1], smoothing=0.1)
    seed_all(seed)
    pixels, expected = Mixup(*alphas, label_smoothing=0.1, num_classes=3)(normalise(stack, CPU), labels)
    seed_all(seed)
    scene, person, targets = augment_batch(stack, None, torch.eye(3)[labels], config, task="label")
    assert person is None
    assert torch.equal(scene, pixels)
    torch.testing.assert_close(targets, expected)


@given(st.integers(1, 9), st.integers(0, 99))
def test_both_views_and_the_targets_are_mixed_alike(count: int, seed: int) -> None:
    """Images of one colour tell who is in whom: a mixed image's mean is the mix of the means, as is its target."""
    colours = torch.arange(count, dtype=torch.uint8) * 20
    plain = colours[:, None, None, None].expand(-1, 3, 16, 16)
    means = normalise(plain, CPU).mean(dim=(1, 2, 3))  # (N,)
    before = torch.stack([means, -means], dim=1)
    seed_all(seed)
    scene, person, targets = augment_batch(plain, plain.clone(), before, only(mixup=0.8, cutmix=1.0), task="affect")
    assert torch.equal(scene, person)
    torch.testing.assert_close(scene.mean(dim=(1, 2, 3)), targets[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(targets[:, 1], -targets[:, 0])
    if count % 2:
        assert torch.equal(scene[-1], normalise(plain, CPU)[-1])
        torch.testing.assert_close(targets[-1], before[-1])


def test_erasing_is_timms_on_each_view_alone() -> None:
    scene = images(6, 32)
    person = images(6, 32, seed=1)
    seed_all(2)
    erase = RandomErasing(0.5, mode="pixel", device="cpu")
    expected = [erase(normalise(view, CPU)) for view in (scene, person)]
    seed_all(2)
    *views, _ = augment_batch(scene, person, torch.eye(6), only(erasing=0.5), task="label")
    for view, other in zip(views, expected, strict=True):
        assert torch.equal(view, other)
    touched = [(view != normalise(image, CPU)).any(dim=1) for view, image in zip(views, (scene, person), strict=True)]
    assert not torch.equal(*touched)
    assert 0 < sum(view_mask.any(dim=(1, 2)).sum().item() for view_mask in touched) < 12


def test_the_same_seed_gives_the_same_batch_and_the_input_is_left_alone() -> None:
    scene = images(5)
    targets = torch.eye(5)
    results = []
    for _ in range(2):
        seed_all(4)
        results.append(augment_batch(scene, None, targets, AugmentConfig(), task="label"))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][2], results[1][2])
    assert torch.equal(scene, images(5))
    assert torch.equal(targets, torch.eye(5))


def test_batches_that_do_not_fit_are_refused() -> None:
    for scene, person, targets in [
        (None, None, torch.eye(2)),
        (images(2), images(3), torch.eye(2)),
        (images(2), images(2, size=8), torch.eye(2)),
        (images(2), None, torch.eye(3)),
        (images(2), None, torch.ones(2)),
        (images(2).float(), None, torch.eye(2)),
    ]:
        with pytest.raises(ShapeError):
            augment_batch(scene, person, targets, AugmentConfig(), task="label")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("randaugment", ["", "m9", "rand-x3", "rand-m9-mstdx1", "augmix-m3", "rand-tnone", "rand-m", "rand-m9-"]),
        ("mixup", [-0.1, float("inf"), float("nan")]),
        ("cutmix", [-1.0, float("nan")]),
        ("smoothing", [-0.1, 1.0, float("nan")]),
        ("erasing", [-0.1, 1.1, float("nan")]),
    ],
)
def test_settings_out_of_range_are_refused(name: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=rf"augment\.{name}"):
            AugmentConfig(**{name: value})
