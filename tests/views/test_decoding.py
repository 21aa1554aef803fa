"""Tensors of training have the pixels from which models predict, whatever decodes them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms
from torch import Tensor

from tests.colours import ADOBE, D65, icc_profile
from tests.drawn import Stored, draw_image, jpeg_of, sample_of
from uniemox.data.sample import Sample, decode_sample
from uniemox.errors import ImageError
from uniemox.io.sized_image import SizedImage
from uniemox.views import decoding
from uniemox.views.decoding import decode_tensor, jpeg_decoder

ORIENTATION = 0x0112
# A small file, most of whose bytes matter.
FILE = jpeg_of(draw_image(1, (45, 83)), quality=40)


@pytest.fixture
def fresh_decoder() -> Iterator[None]:
    """The decoder is chosen again in a test, and after it."""
    jpeg_decoder.cache_clear()
    yield
    jpeg_decoder.cache_clear()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return exif


# Options of Pillow by the kind of file.
PLAIN: dict[str, dict[str, Any]] = {
    "usual": {},
    "full colours": {"subsampling": "4:4:4"},
    "half colours": {"subsampling": "4:2:2"},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 2},
    "no YCbCr": {"keep_rgb": True},
    "sRGB": {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
}
OTHER: dict[str, dict[str, Any]] = {
    "turned": {"exif": turned()},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
    "PNG": {"format": "PNG"},
}


def pixels_of(decoded: tuple[Tensor, SizedImage]) -> NDArray[np.uint8]:
    """Return the tensor as Pillow would, (H, W, 3)."""
    pixels: NDArray[np.uint8] = decoded[0][0].permute(1, 2, 0).numpy()
    return pixels


def write(path: Path, options: dict[str, Any], size: tuple[int, int] = (75, 61)) -> None:
    options = dict(options)
    image = draw_image(1, size).convert(options.pop("mode", "RGB"))
    image.save(path, options.pop("format", "JPEG"), **options)


@pytest.mark.parametrize("kind", [*PLAIN, *OTHER])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_pixels_are_those_of_prediction(tmp_path: Path, kind: str, factor: float) -> None:
    path = tmp_path / "a"
    write(path, (PLAIN | OTHER)[kind])
    expected = decode_sample(sample_of(path), lambda *_: factor)
    pixels, sized = decode_tensor(sample_of(path), lambda *_: factor)
    assert np.array_equal(pixels_of((pixels, sized)), np.asarray(expected.image))
    assert (sized.image.size, sized.full_size) == (expected.image.size, expected.full_size)


@pytest.mark.parametrize("kind", [*PLAIN, *OTHER])
def test_plain_files_alone_are_decoded_by_simplejpeg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    sizes = []

    def decode(_: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
        sizes.append(size)
        return np.zeros((*size[::-1], 3), np.uint8)

    monkeypatch.setattr(decoding, "jpeg_decoder", lambda: decode)
    path = tmp_path / "a"
    write(path, (PLAIN | OTHER)[kind])
    for factor in (1.0, 2.0):
        decode_tensor(sample_of(path), lambda *_, factor=factor: factor)
    assert sizes == ([(75, 61), (38, 31)] if kind in PLAIN else [])


def test_colours_of_another_profile_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    write(path, {"icc_profile": icc_profile(ADOBE, D65, 2.2)})
    expected = np.asarray(decode_sample(sample_of(path)).image)
    assert not np.array_equal(expected, np.asarray(Image.open(path)))
    assert np.array_equal(pixels_of(decode_tensor(sample_of(path))), expected)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_file_that_is_cut_off_is_refused_in_the_same_words(tmp_path: Path, part: float) -> None:
    path = tmp_path / "a.jpg"
    data = jpeg_of(draw_image(1))
    path.write_bytes(data[: int(part * len(data))])
    messages = []
    for decode in (decode_sample, decode_tensor):
        with pytest.raises(ImageError) as caught:
            decode(sample_of(path))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@given(st.lists(st.tuples(st.integers(2, len(FILE) - 1), st.integers(0, 255)), max_size=3), st.sampled_from((1.0, 2.0)))
def test_damaged_files_have_the_same_pixels_or_fault(changes: list[tuple[int, int]], factor: float) -> None:
    data = bytearray(FILE)
    for at, value in changes:
        data[at] = value
    sample = Sample(key="a", image=Stored(bytes(data)))
    try:
        expected = decode_sample(sample, lambda *_: factor)
    except ImageError as error:
        with pytest.raises(ImageError) as caught:
            decode_tensor(sample, lambda *_: factor)
        assert str(caught.value) == str(error)
    else:
        assert np.array_equal(pixels_of(decode_tensor(sample, lambda *_: factor)), np.asarray(expected.image))


@pytest.mark.usefixtures("fresh_decoder")
@pytest.mark.parametrize("fault", ["other pixels", "another size", "refusal"])
def test_a_decoder_with_other_pixels_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    right = simplejpeg.decode_jpeg
    assert jpeg_decoder() is not None
    jpeg_decoder.cache_clear()

    def wrong(*args: Any, **options: Any) -> NDArray[np.uint8]:
        if fault == "refusal":
            raise ValueError("no JPEG")
        pixels: NDArray[np.uint8] = right(*args, **options)
        return pixels[1:] if fault == "another size" else 255 - pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", wrong)
    assert jpeg_decoder() is None
    path = tmp_path / "a.jpg"
    write(path, {})
    expected = np.asarray(decode_sample(sample_of(path)).image)
    assert np.array_equal(pixels_of(decode_tensor(sample_of(path))), expected)


@pytest.mark.usefixtures("fresh_decoder")
def test_training_runs_without_simplejpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert jpeg_decoder() is None
