"""Perceptual hashes: copies in another file are recognised; other images, and images that are alike, are not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from recipes.copies import CHANGES
from uniemox.data.hashes import fingerprints, hashes_of_copies
from uniemox.data.perceptual import (
    BITS,
    COPY_DISTANCE,
    MAX_DISTANCE,
    PREFIX,
    PerceptualIndex,
    bits_of,
    distances,
    frequencies,
    groups_of_copies,
    has_structure,
    is_odd,
    perceptual_hashes,
    small_grey,
)
from uniemox.data.sample import ImageFile, Sample
from uniemox.data.seen import SeenSearch, check_images
from uniemox.data.source import open_data


def photographs(count: int, seed: int = 0) -> list[Image.Image]:
    """Return images of soft random blobs, which differ as much as photographs."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8))
        images.append(coarse.resize((320, 240), Image.Resampling.BICUBIC))
    return images


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return photographs(40)


def thumbs_of(images: list[Image.Image]) -> np.ndarray:
    return np.stack([small_grey(image) for image in images])


def test_bits_are_signs_of_scipys_cosine_transform(images: list[Image.Image]) -> None:
    thumbs = thumbs_of(images)
    amplitudes = dctn(thumbs.astype(np.float64), axes=(1, 2), norm="ortho")
    down, across = frequencies().T
    expected = amplitudes[:, down, across]
    is_clear = np.abs(expected) > 1e-2
    np.testing.assert_array_equal(bits_of(thumbs)[is_clear], (expected > 0)[is_clear])
    assert [0, 0] not in frequencies().tolist()


def test_mirroring_changes_the_odd_bits(images: list[Image.Image]) -> None:
    thumbs = thumbs_of(images)
    changed = bits_of(thumbs) != bits_of(thumbs[:, :, ::-1])
    # Amplitudes of nearly 0 may have either sign.
    assert (changed == is_odd()).mean() > 0.99
    assert np.diag(distances(bits_of(thumbs), bits_of(thumbs[:, :, ::-1]))).max() <= 2


@given(st.integers(0, 2**32 - 1))
def test_distances_are_numbers_of_different_bits(seed: int) -> None:
    bits = np.random.default_rng(seed).random((6, BITS)) < 0.5
    plain = (bits[:, None] != bits[None]).sum(axis=2)
    mirrored = ((bits ^ is_odd())[:, None] != bits[None]).sum(axis=2)
    np.testing.assert_array_equal(distances(bits, bits), np.minimum(plain, mirrored))


def test_hashes_are_read_as_they_were_written(images: list[Image.Image]) -> None:
    thumbs = thumbs_of(images)
    hashes = perceptual_hashes(thumbs)
    assert all(digest.startswith(PREFIX) and len(digest) == len(PREFIX) + BITS // 4 for digest in hashes)
    index = PerceptualIndex.of([*hashes, "0" * 64])
    assert {row.tobytes() for row in index.bits} == {row.tobytes() for row in bits_of(thumbs)}


@pytest.mark.parametrize("name", [name for name in CHANGES if "10 %" not in name and name != "watermark"])
def test_altered_copies_are_found_and_others_are_not(name: str, images: list[Image.Image]) -> None:
    rng = np.random.default_rng(0)
    index = PerceptualIndex.of(perceptual_hashes(thumbs_of(images)))
    altered = thumbs_of([CHANGES[name](image, rng) for image in images])
    assert len(index.found(altered)) >= 39
    assert not index.found(thumbs_of(photographs(200, seed=1)))


def test_images_without_structure_have_no_hash() -> None:
    flat = np.full((1, 32, 32), 128, np.uint8)
    assert perceptual_hashes(flat) == [""]
    assert not has_structure(flat).any()
    assert not PerceptualIndex.of([]).found(flat)
    assert perceptual_hashes(flat[:0]) == []


def test_images_that_are_alike_are_not_taken_for_copies() -> None:
    """As faces that were cut out alike: a common layout with small differences."""
    rng = np.random.default_rng(0)
    layout = rng.integers(0, 255, (6, 6, 3)).astype(float)
    alike = [
        Image.fromarray((layout + rng.normal(0, 20, layout.shape)).clip(0, 255).astype(np.uint8)).resize((64, 64))
        for _ in range(60)
    ]
    index = PerceptualIndex.of(perceptual_hashes(thumbs_of(alike[:40])))
    assert not index.are_distinctive(np.arange(40)).any()
    assert not index.found(thumbs_of(alike[40:]))
    assert not groups_of_copies(list(thumbs_of(alike)))
    # Equal ones are still copies, in another file, too.
    larger = thumbs_of([image.resize((128, 128)) for image in alike[:40]])
    assert len(index.found(thumbs_of(alike[:40]))) == 40
    assert groups_of_copies([*thumbs_of(alike), larger[3], thumbs_of(alike[4:5])[0]])[61] == 4


def test_photographs_beside_their_stored_variants_are_recognised(images: list[Image.Image]) -> None:
    """As augmentation tools write them: each is a neighbour of the others."""
    rng = np.random.default_rng(0)
    variants = []
    for image in images:
        for _ in range(12):
            left, top, right, bottom = rng.uniform(0, 0.05, 4)
            w, h = image.size
            cut = image.crop((int(left * w), int(top * h), int(w - right * w), int(h - bottom * h)))
            variants.append(cut.rotate(rng.uniform(-2, 2), Image.Resampling.BICUBIC).resize((w, h)))
    index = PerceptualIndex.of(perceptual_hashes(thumbs_of([*images, *variants])))
    assert index.are_distinctive(np.arange(len(index))).mean() < 0.5
    assert len(index.found(thumbs_of([image.resize((99, 200)) for image in images]))) >= 39


def test_images_that_are_alike_do_not_hide_others(images: list[Image.Image]) -> None:
    """As the frames of a film beside the photographs of the initial weights."""
    wide = images[0].resize((600, 600))
    frames = [wide.crop((2 * step, step, 2 * step + 400, step + 400)) for step in range(60)]
    index = PerceptualIndex.of(perceptual_hashes(thumbs_of([*images[1:], *frames])))
    copies = thumbs_of([image.resize((99, 200)) for image in images[1:]])
    assert index.found(copies) == set(range(39))


def test_crops_among_few_images_are_copies(images: list[Image.Image]) -> None:
    """They are no sign that the images resemble each other."""
    rng = np.random.default_rng(0)
    crops = [CHANGES["cropped by up to 5 % at each edge"](image, rng) for image in images[:20]]
    thumbs = thumbs_of([*images, *crops])
    apart = distances(bits_of(thumbs[:20]), bits_of(thumbs[40:])).diagonal()
    assert ((apart > COPY_DISTANCE) & (apart <= MAX_DISTANCE)).sum() >= 3
    group_of = groups_of_copies(list(thumbs))
    assert sum(group_of.get(40 + number) == number for number in range(20)) >= 19
    index = PerceptualIndex.of(perceptual_hashes(thumbs))
    assert index.found(thumbs_of([image.resize((99, 200)) for image in images])) == set(range(40))


def test_many_equal_images_are_one_group(images: list[Image.Image]) -> None:
    """Placeholders; each pair of 30,000 of them would take hours and 100 GB."""
    thumbs = thumbs_of(images[:2])
    group_of = groups_of_copies([thumbs[1], *[thumbs[0]] * 30_000])
    assert set(group_of.values()) == {1}
    assert len(group_of) == 30_000


def test_copies_form_groups(images: list[Image.Image]) -> None:
    copy = small_grey(images[3].resize((99, 200)))
    thumbs = [*thumbs_of(images[:8]), None, copy]
    assert groups_of_copies(thumbs) == {3: 3, 9: 3}
    assert groups_of_copies([None, None]) == {}


def test_samples_in_another_file_are_found_among_training_images(images: list[Image.Image], tmp_path: Path) -> None:
    """As PNG of the same pixels, with a byte appended, and under another size; not a drawn scene."""
    for number, image in enumerate(images[:6]):
        image.save(tmp_path / f"{number}.jpg", quality=95)
    originals = [Sample(key=f"{number}.jpg", image=ImageFile(tmp_path / f"{number}.jpg")) for number in range(6)]
    training_hashes, _ = check_images(originals[:5])
    assert len(training_hashes) == 10
    Image.open(tmp_path / "0.jpg").save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "1.jpg").read_bytes() + b"\0")
    Image.open(tmp_path / "2.jpg").resize((200, 200)).save(tmp_path / "c.webp")
    (tmp_path / "d.jpg").write_bytes(b"no image")
    others = [Sample(key=name, image=ImageFile(tmp_path / name)) for name in ("a.png", "b.jpg", "c.webp", "d.jpg")]
    samples = [*others, originals[3], originals[5]]
    found, _ = fingerprints(samples)
    search = SeenSearch(samples, [fingerprint.sha256 for fingerprint in found])
    seen = search.look_up(training_hashes)
    assert [sample.key for sample in seen.same_files] == ["3.jpg"]
    assert [sample.key for sample in seen.copies] == ["a.png", "b.jpg", "c.webp"]
    assert [sample.key for sample in seen.samples] == ["a.png", "b.jpg", "c.webp", "3.jpg"]
    both, _ = fingerprints([originals[0], others[0], originals[1]])
    assert hashes_of_copies(both) == [both[0].sha256, both[0].sha256, both[2].sha256]
    scenes = open_data("synthetic:4").samples
    assert all(fingerprint.thumb is None for fingerprint in fingerprints(scenes)[0])
