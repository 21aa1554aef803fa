"""Decoding: every format and mode gives what was drawn; everything broken is an ImageError with its name."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.images import animate, draw, every_file, png_chunks, png_of, save, with_orientation
from uniemox.io.images import decode, encode_image, open_image, upright_size

FILES = every_file()
LOSSY = 16  # mean difference in grey levels that lossy formats may have


def difference(image: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two images in grey levels, 0 to 255; infinite if their sizes differ."""
    if image.size != other.size:
        return float("inf")
    values = np.asarray(image.convert("RGB"), np.float64) - np.asarray(other.convert("RGB"), np.float64)
    return float(np.abs(values).mean())


PLAIN = [(fmt, {}) for fmt in ("PNG", "BMP", "PPM", "TIFF")]
COMPRESSED = [("TIFF", {"compression": how}) for how in ("tiff_lzw", "tiff_deflate", "packbits")]


@pytest.mark.parametrize(("fmt", "options"), [*PLAIN, *COMPRESSED, ("WEBP", {"lossless": True})])
def test_lossless_formats_come_back_exactly(fmt: str, options: dict[str, object]) -> None:
    image, full = decode(save(draw(), fmt, **options))
    assert (image.mode, image.size, full) == ("RGB", (60, 44), (60, 44))
    assert difference(image, draw()) == 0


JPEGS = [("JPEG", options) for options in ({}, {"progressive": True}, {"quality": 95, "subsampling": 0})]
OTHERS = [("WEBP", {}), ("AVIF", {}), ("GIF", {}), ("TIFF", {"compression": "jpeg"})]


@pytest.mark.parametrize(("fmt", "options"), [*JPEGS, *OTHERS])
def test_lossy_formats_come_back_nearly(fmt: str, options: dict[str, object]) -> None:
    image, full = decode(save(draw(), fmt, **options))
    assert (image.mode, full) == ("RGB", (60, 44))
    assert difference(image, draw()) < LOSSY
    assert difference(image, draw().transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > 2 * LOSSY


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_an_rgb_image_of_its_size(name: str) -> None:
    image, full = decode(FILES[name], name)
    size = (44, 60) if "rotated" in name else (60, 44)
    assert (image.mode, image.size, full) == ("RGB", size, size)
    assert np.ptp(np.asarray(image)) > 100


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "1"])
def test_greys_have_three_equal_channels(fmt: str, mode: str) -> None:
    grey = draw().convert(mode)
    values = np.asarray(decode(save(grey, fmt))[0])
    assert np.array_equal(values, np.asarray(grey.convert("RGB")))
    assert np.array_equal(values[..., 0], values[..., 2])


def squares(mode: str, colours: list[object]) -> Image.Image:
    """Four squares of 16 px side by side."""
    image = Image.new(mode, (64, 16))
    for i, colour in enumerate(colours):
        image.paste(colour, (16 * i, 0, 16 * i + 16, 16))
    return image


def centres(image: Image.Image) -> list[tuple[int, ...]]:
    return [image.getpixel((16 * i + 8, 8)) for i in range(4)]


CLEAR = {
    "RGBA": [(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 255, 128), (0, 0, 0, 51)],
    "LA": [(100, 255), (100, 0), (0, 128), (0, 51)],
}


@pytest.mark.parametrize(("fmt", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})])
def test_transparent_colours_are_put_on_white(fmt: str, options: dict[str, object]) -> None:
    image, _ = decode(save(squares("RGBA", CLEAR["RGBA"]), fmt, **options))
    assert centres(image) == [(255, 0, 0), (255, 255, 255), (127, 127, 255), (204, 204, 204)]


def test_transparent_greys_are_put_on_white() -> None:
    image, _ = decode(save(squares("LA", CLEAR["LA"]), "PNG"))
    assert centres(image) == [(100,) * 3, (255,) * 3, (127,) * 3, (204,) * 3]


@pytest.mark.parametrize("fmt", ["PNG", "GIF"])
def test_a_transparent_entry_of_a_palette_is_white(fmt: str) -> None:
    palette = squares("P", [0, 1, 2, 3])
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])
    expected = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]
    assert centres(decode(save(palette, fmt))[0]) == expected
    assert centres(decode(save(palette, fmt, transparency=1))[0]) == [expected[0], (255, 255, 255), *expected[2:]]


def test_a_palette_with_alphas_is_mixed_with_white() -> None:
    palette = squares("P", [0, 1, 2, 3])
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0])
    image, _ = decode(save(palette, "PNG", transparency=bytes([255, 0, 128, 51])))
    assert centres(image) == [(255, 0, 0), (255, 255, 255), (127, 127, 255), (204, 204, 204)]


@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_one_transparent_colour_is_white(mode: str) -> None:
    colours = {"RGB": [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)], "L": [10, 20, 30, 40], "1": [1, 0, 1, 0]}
    image = squares(mode, colours[mode])
    clear = colours[mode][1]
    decoded, _ = decode(save(image, "PNG", transparency=clear))
    opaque = centres(image.convert("RGB"))
    expected = [(255, 255, 255) if colour == clear else rgb for colour, rgb in zip(colours[mode], opaque, strict=True)]
    assert centres(decoded) == expected


def test_cmyk_jpegs_have_their_colours_with_and_without_adobes_marker() -> None:
    """Pillow writes CMYK inverted and says so in the marker APP14, as Photoshop does."""
    image = squares("CMYK", [(0, 255, 255, 0), (255, 0, 255, 0), (0, 0, 0, 255), (0, 0, 0, 0)])
    data = save(image, "JPEG", quality=95, subsampling=0)
    expected = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255)])
    at = data.index(b"\xff\xee")
    assert data[at + 4 : at + 9] == b"Adobe"
    (size,) = struct.unpack(">H", data[at + 2 : at + 4])
    for version in (data, data[:at] + data[at + 2 + size :]):
        assert np.abs(np.array(centres(decode(version)[0])) - expected).max() <= 3


def test_sixteen_bits_keep_their_highest_byte() -> None:
    values = np.repeat(np.array([[0, 0x1234, 0xC0C0, 0xFFFF]], np.uint16), 16, axis=1).repeat(16, axis=0)
    image = Image.fromarray(values)
    assert image.mode == "I;16"
    for fmt in ("PNG", "TIFF"):
        assert centres(decode(save(image, fmt))[0]) == [(0,) * 3, (18,) * 3, (192,) * 3, (255,) * 3]
    big_endian = b"P5 64 16 65535\n" + values.astype(">u2").tobytes()
    assert centres(decode(big_endian)[0]) == [(0,) * 3, (18,) * 3, (192,) * 3, (255,) * 3]


@pytest.mark.parametrize(
    ("fmt", "options"),
    [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {}), ("AVIF", {}), ("MPO", {})],
)
def test_animations_give_their_first_frame(fmt: str, options: dict[str, object]) -> None:
    frames = [draw(), ImageOps.invert(draw()), ImageOps.mirror(draw())]
    data = animate(fmt, frames, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3
    assert difference(decode(data)[0], frames[0]) < LOSSY
    assert difference(decode(data)[0], frames[1]) > 2 * LOSSY


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_exif_orientation_is_applied_like_pillow_does(fmt: str, orientation: int) -> None:
    data = with_orientation(draw(), fmt, orientation)
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    decoded, full = decode(data)
    assert full == decoded.size == ((44, 60) if orientation >= 5 else (60, 44))
    assert difference(decoded, expected) == 0
    assert upright_size(open_image(data, "x")) == full


def test_orientation_of_a_compressed_tiff_and_of_a_png_with_exif_after_its_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    turned = draw().transpose(Image.Transpose.ROTATE_90)
    assert difference(decode(save(draw(), "TIFF", exif=exif, compression="tiff_lzw"))[0], turned) == 0
    chunks = png_chunks(with_orientation(draw(), "PNG", 8))
    late = [*(c for c in chunks[:-1] if c[0] != b"eXIf"), *(c for c in chunks if c[0] == b"eXIf"), chunks[-1]]
    assert [name for name, _ in late][-2:] == [b"eXIf", b"IEND"]
    assert difference(decode(png_of(late))[0], turned) == 0


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    assert decode(with_orientation(draw(), "JPEG", orientation))[1] == (60, 44)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12", b"x"])
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_broken_exif_does_not_break_the_image(fmt: str, exif: bytes) -> None:
    lossless = {"lossless": True} if fmt == "WEBP" else {}
    data = save(draw(), fmt, exif=exif, **lossless)
    assert exif[6:] in data
    assert difference(decode(data)[0], decode(save(draw(), fmt, **lossless))[0]) == 0


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize(("factor", "divisor"), [(1, 1), (1.9, 1), (2, 2), (3.9, 2), (4, 4), (8, 8), (100, 8)])
def test_drafts_report_the_full_size_and_are_upright(factor: float, divisor: int, orientation: int) -> None:
    image = draw(400, 240)
    data = with_orientation(image, "JPEG", orientation)
    sizes = []

    def shrink(width: int, height: int) -> float:
        sizes.append((width, height))
        return factor

    decoded, full = decode(data, shrink=shrink)
    upright = (240, 400) if orientation == 6 else (400, 240)
    assert sizes == [upright]
    assert full == upright
    assert decoded.size == (upright[0] // divisor, upright[1] // divisor)
    undrafted, _ = decode(data)
    assert difference(decoded, undrafted.resize(decoded.size, Image.Resampling.BOX)) < LOSSY


def test_the_first_image_of_an_mpo_is_decoded_smaller() -> None:
    """MPO is what cameras write for stereo images, and phones for Ultra HDR: a JPEG, and further ones after it."""
    data = animate("MPO", [draw(400, 240), draw(200, 120, seed=1)], quality=95)
    decoded, full = decode(data, shrink=lambda *_: 4)
    assert (full, decoded.size) == ((400, 240), (100, 60))
    assert difference(decoded, decode(save(draw(400, 240), "JPEG", quality=95), shrink=lambda *_: 4)[0]) == 0


def test_only_jpegs_are_decoded_smaller() -> None:
    assert decode(save(draw(400, 240), "PNG"), shrink=lambda *_: 8)[0].size == (400, 240)


def test_encoded_images_have_no_comment_of_their_source() -> None:
    image, _ = decode(save(draw(), "JPEG", comment=b"taken at home"))
    assert b"taken at home" not in encode_image(image, "JPEG")
    assert b"taken at home" not in encode_image(image, "PNG")


def test_an_alpha_of_zero_everywhere_in_a_bmp_does_not_count() -> None:
    """Programs that know no alpha write zeros, and the image would be white."""
    image = draw()
    width, height = image.size
    pixels = image.convert("RGBA")
    pixels.putalpha(0)
    rows = pixels.transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes("raw", "BGRA")
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    # BITMAPV4HEADER with bit fields.
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(rows), 2835, 2835, 0, 0) + masks
    header += bytes(108 - len(header))
    file_header = b"BM" + struct.pack("<IHHI", 14 + len(header) + len(rows), 0, 0, 14 + len(header))
    data = file_header + header + rows
    assert Image.open(io.BytesIO(data)).mode == "RGBA"
    assert difference(decode(data)[0], image) == 0
