"""Palettes, turned frames and default images of animations, and transparent colours of 16 bits."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.images import draw, save
from tests.io.test_colour import png_with
from tests.io.test_metadata import PROFILE
from tests.tiffs import page_of, tiff_of
from uniemox.io.images import decode
from uniemox.io.metadata import without_metadata
from uniemox.predict.film import read_film

PHOTO = draw(60, 44)
GREYS = bytes(value for grey in range(256) for value in (grey, grey, grey))


def test_a_frame_after_a_black_and_white_one_has_its_colours(tmp_path: Path) -> None:
    """Its colours were the numbers of its palette, as greys."""
    others = [PHOTO, PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    PHOTO.convert("L").convert("1").save(tmp_path / "a.gif", save_all=True, append_images=others, duration=500)
    first, second, third = (np.asarray(frame.image).astype(int) for frame in read_film(str(tmp_path / "a.gif"), 0.5))
    assert set(np.unique(first)) == {0, 255}
    for frame, photo in zip((second, third), others, strict=True):
        quantised = np.asarray(photo.quantize(256).convert("RGB")).astype(int)
        assert np.abs(frame - quantised).mean() < 8


@pytest.mark.parametrize("transparent", [None, 200])
def test_a_grey_palette_of_the_first_frame_comes_before_that_of_all_frames(transparent: int | None) -> None:
    """The greys were shown by the other palette."""
    grey = PHOTO.convert("L")
    options = {} if transparent is None else {"transparency": transparent}
    # The palette of all frames becomes blue, and the first frame gets one of its own.
    data = save(grey, "GIF", **options)
    palette_at = 13
    assert data[10] & 128
    count = 2 << (data[10] & 7)
    image_at = data.index(b",", palette_at + 3 * count)
    with_local = bytes([data[image_at + 9] | 128 | (data[10] & 7)])
    blue = bytes(value for i in range(count) for value in (0, 0, i))
    local = GREYS[: 3 * count]
    changed = data[:palette_at] + blue + data[palette_at + 3 * count : image_at + 9] + with_local + local
    changed += data[image_at + 10 :]
    stored = Image.open(io.BytesIO(data))
    numbers = np.asarray(stored)
    expected = np.dstack([np.where(numbers == stored.info.get("transparency"), 255, numbers)] * 3)
    assert np.array_equal(np.asarray(decode(changed).image), expected)
    assert np.array_equal(np.asarray(decode(without_metadata(changed, "a").data).image), expected)


def gif_frame(numbers: np.ndarray, palette: bytes = b"") -> bytes:
    """A frame of a GIF at the upper left, with numbers below 8, and a palette of 8 colours or none of its own."""
    # Codes of 4 bits: clear, the numbers of two pixels, and so on, so that no code grows; then the end.
    codes = [code for pair in numbers.reshape(-1, 2).tolist() for code in (8, *pair)] + [9]
    packed = sum(code << 4 * place for place, code in enumerate(codes))
    block = packed.to_bytes((4 * len(codes) + 7) // 8, "little")
    place = struct.pack("<HHHHB", 0, 0, *numbers.shape[::-1], 0x82 if palette else 0)
    return b"," + place + palette + bytes([3, len(block)]) + block + b"\0"


@pytest.mark.parametrize("transparent", [None, 2])
def test_a_plain_gif_has_the_palette_of_its_first_frame(transparent: int | None) -> None:
    """To look for a second frame and to return to the first one gave it the palette of all frames again."""
    colours = np.random.default_rng(0).integers(0, 256, 24, dtype=np.uint8).tobytes()
    greys = GREYS[:24]
    control = b"" if transparent is None else bytes([0x21, 0xF9, 4, 1, 0, 0, transparent, 0])
    numbers = np.arange(16, dtype=np.uint8).reshape(4, 4) % 8
    first = control + gif_frame(numbers, greys)
    data = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0xF2, 0, 0) + colours + first + gif_frame(numbers) + b";"
    expected = np.dstack([np.where(numbers == transparent, 255, numbers)] * 3)
    assert np.array_equal(np.asarray(decode(data).image), expected)
    assert np.array_equal(np.asarray(decode(without_metadata(data, "a").data).image), expected)


def test_a_frame_without_a_disposal_method_has_not_that_of_an_earlier_one(tmp_path: Path) -> None:
    """The second frame has none, so the third one is drawn over it, and not over the first one."""
    colours = bytes([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]) + bytes(12)
    data = b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0xF2, 0, 0) + colours
    for disposal, number, side in ((2, 1, 4), (0, 2, 4), (0, 3, 2)):
        data += bytes([0x21, 0xF9, 4, disposal << 2, 50, 0, 0, 0])
        data += gif_frame(np.full((side, side), number, np.uint8))
    (tmp_path / "a.gif").write_bytes(data + b";")
    frames = [np.asarray(frame.image) for frame in read_film(str(tmp_path / "a.gif"), 0.5)]
    assert [frame[3, 3].tolist() for frame in frames] == [[255, 0, 0], [0, 255, 0], [0, 255, 0]]
    assert frames[2][0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
def test_frames_are_turned_upright(fmt: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [PHOTO, PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    file = tmp_path / f"a.{fmt.lower()}"
    options = {"lossless": True} if fmt == "WEBP" else {}
    frames[0].save(file, fmt, save_all=True, append_images=frames[1:], duration=1000, exif=exif, **options)
    first, second = read_film(str(file), 1)
    assert np.array_equal(np.asarray(first.image), np.asarray(decode(file.read_bytes()).image))
    assert second.size == (44, 60)


def test_the_default_image_of_a_png_is_no_frame(tmp_path: Path) -> None:
    default, *frames = (Image.new("L", (20, 20), grey) for grey in (250, 10, 60, 110))
    default.save(tmp_path / "a.png", save_all=True, append_images=frames, duration=1000, default_image=True)
    found = [(frame.time_s, np.asarray(frame.image)[0, 0, 0]) for frame in read_film(str(tmp_path / "a.png"), 1)]
    assert found == [(0, 10), (1, 60), (2, 110)]


@pytest.mark.parametrize("shadow", [40, 200])
def test_all_bits_of_a_transparent_colour_count(shadow: int) -> None:
    """A shadow beside a transparent black was white."""
    values = np.full((20, 20, 3), shadow, np.uint16)
    values[10:] = 30_000
    values[:5] = 0
    data = png_with(values, (b"tRNS", struct.pack(">3H", 0, 0, 0)))
    rows = np.asarray(decode(data).image)[:, 0, 0].tolist()
    assert rows == [255] * 5 + [0] * 5 + [117] * 10
    plain = without_metadata(data, "a.png").data
    assert np.array_equal(np.asarray(decode(plain).image), np.asarray(decode(data).image))


def test_greys_multiplied_by_alpha_have_a_plain_file() -> None:
    """One of them stopped a release."""
    grey = np.asarray(PHOTO.convert("L")) // 2
    tags, pixels = page_of(np.dstack([grey, np.full_like(grey, 128)]), photometric=1)
    data = tiff_of([({**tags, 338: (3, 1)}, pixels)])
    plain = without_metadata(data, "a.tif")
    assert np.array_equal(np.asarray(decode(plain.data).image), np.asarray(decode(data).image))
    assert not plain.is_exact


def test_a_file_that_has_lost_a_channel_is_not_exact() -> None:
    values = np.dstack([np.asarray(PHOTO), np.asarray(PHOTO)[..., :2]])
    tags, pixels = page_of(values, photometric=2)
    plain = without_metadata(tiff_of([({**tags, 338: (3, 0, 0)}, pixels)]), "a.tif")
    assert not plain.is_exact


def test_bytes_after_a_profile_are_removed() -> None:
    for fmt in ("JPEG", "PNG"):
        data = save(PHOTO, fmt, icc_profile=PROFILE + b"Jane Doe")
        plain = without_metadata(data, "a").data
        decoded = decode(plain)
        assert b"Jane" not in Image.open(io.BytesIO(plain)).info["icc_profile"]
        assert decoded.image.size == PHOTO.size
