"""Layouts for which colour spaces and 16 bits were handled less well than for RGB: greys, planes, YCbCr, inks."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from tests.colours import D65, SRGB, icc_profile, power_values
from tests.images import draw, save
from tests.io.test_colour import ADOBE_PROFILE, GAMMA_1, IN_ADOBE, PHOTO, adobe_exif, difference, png_with
from tests.io.test_low_bytes import BYTES, MESSAGE, with_profile
from tests.tiffs import page_of, tiff_of
from uniemox.errors import ImageError
from uniemox.io.images import decode
from uniemox.io.metadata import without_metadata

GREY = np.asarray(draw(120, 88).convert("L").point(lambda value: value // 6))  # dark: its light is in the low bytes
LIGHT = np.where(GREY / 255 <= 0.04045, GREY / 255 / 12.92, ((GREY / 255 + 0.055) / 1.055) ** 2.4)
LIGHT_16 = (65535 * LIGHT).round().astype(np.uint16)
OPAQUE = np.full_like(LIGHT_16, 65535)
LINEAR_GREY = icc_profile(None, D65, 1.0, space=b"GRAY")
GREY_14 = icc_profile(None, D65, 1.4, space=b"GRAY")


def packed(profile: bytes) -> tuple[bytes, bytes]:
    """Return the chunk iCCP of a PNG."""
    return b"iCCP", b"grey\0\0" + zlib.compress(profile)


def grey_error(data: bytes) -> int:
    decoded = np.asarray(decode(data).image).astype(int)
    return int(np.abs(decoded - GREY[..., None].astype(int)).max())


@pytest.mark.parametrize("chunk", [GAMMA_1, packed(LINEAR_GREY), (b"cICP", bytes([1, 8, 0, 1]))])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_shadows_of_linear_greys_in_a_png_are_kept(chunk: tuple[bytes, bytes], has_alpha: bool) -> None:
    values = np.dstack([LIGHT_16, OPAQUE]) if has_alpha else LIGHT_16
    assert grey_error(png_with(values, chunk)) <= 1
    if chunk == GAMMA_1:
        plain = without_metadata(png_with(values, chunk), "a.png").data
        assert grey_error(plain) <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_shadows_of_linear_greys_in_a_tiff_are_kept(order: str) -> None:
    page = with_profile(page_of(LIGHT_16, order=order), LINEAR_GREY)
    assert grey_error(tiff_of([page], order=order)) <= 1


def test_code_points_come_before_the_profile_of_a_grey_png_with_sixteen_bits() -> None:
    linear = (b"cICP", bytes([1, 8, 0, 1]))
    assert grey_error(png_with(LIGHT_16, linear, packed(icc_profile(None, D65, 2.2, space=b"GRAY")))) <= 1


@pytest.mark.parametrize("layout", ["grey with alpha", "planes", "inks"])
def test_bytes_in_sixteen_bits_are_refused_in_every_layout(layout: str) -> None:
    wide = BYTES.astype(np.uint16)
    data = {
        "grey with alpha": lambda: png_with(np.dstack([wide[..., 0], np.full_like(wide[..., 0], 65535)])),
        "planes": lambda: tiff_of([page_of(wide, is_planar=True)]),
        "inks": lambda: tiff_of([page_of(np.dstack([wide, wide[..., 0]]), photometric=5)]),
    }[layout]()
    with pytest.raises(ImageError, match=MESSAGE) as error:
        decode(data, "a.x")
    assert ("would be white" in str(error.value)) == (layout == "inks")


def test_greys_with_twelve_of_sixteen_bits_are_refused() -> None:
    """A confident answer to an almost black image would be wrong without a word."""
    values = BYTES[..., 0].astype(np.uint16) * 16
    for data in (png_with(values), tiff_of([page_of(values)])):
        with pytest.raises(
            ImageError, match=r"no value above [34],\d+ of 65,535, and would be black; multiply them by 16"
        ):
            decode(data, "a.x")
    decode(png_with(values * 2))


def test_sixteen_bits_of_every_layout_are_read() -> None:
    wide = BYTES.astype(np.uint16) * 257
    greys = np.dstack([wide[..., 0], np.full_like(wide[..., 0], 65535)])
    for data in (png_with(greys), tiff_of([page_of(wide[..., 0])])):
        assert np.abs(np.asarray(decode(data).image)[..., 0].astype(int) - BYTES[..., 0]).max() <= 1
    for planar in (False, True):
        data = tiff_of([page_of(wide, is_planar=planar)])
        assert np.abs(np.asarray(decode(data).image).astype(int) - BYTES).max() <= 1


def test_the_profile_of_an_uncompressed_ycbcr_tiff_counts() -> None:
    values = np.asarray(IN_ADOBE.convert("YCbCr"))
    tags, pixels = with_profile(page_of(values, photometric=6), ADOBE_PROFILE)
    tags |= {530: (3, 1, 1)}
    assert difference(decode(tiff_of([(tags, pixels)])).image, PHOTO) < 3


def test_the_grey_profile_of_a_lossy_webp_counts() -> None:
    """Its channels differ by the rounding of lossy compression."""
    grey = PHOTO.convert("L")
    data = save(grey, "WEBP", quality=80, icc_profile=GREY_14)
    stored = Image.open(io.BytesIO(data)).convert("L")
    expected = ImageCms.profileToProfile(
        stored,
        ImageCms.ImageCmsProfile(io.BytesIO(GREY_14)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        "RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert difference(decode(data).image, expected) < 1
    assert difference(decode(data).image, stored.convert("RGB")) > 4


def test_a_narrow_range_of_a_png_becomes_the_full_one() -> None:
    values = np.asarray(PHOTO)
    narrow = (16 + values * (219 / 255)).round().astype(np.uint8)
    data = png_with(narrow, (b"cICP", bytes([1, 13, 0, 0])))
    assert np.abs(np.asarray(decode(data).image).astype(int) - values).max() <= 1
    assert np.array_equal(np.asarray(decode(png_with(narrow, (b"cICP", bytes([1, 13, 0, 1])))).image), narrow)


def test_a_narrow_range_holds_for_a_transparent_colour_and_for_linear_greys() -> None:
    values = np.asarray(PHOTO).copy()
    values[:9] = 255, 0, 255
    narrow = (16 + values * (219 / 255)).round().astype(np.uint8)
    transparent = b"tRNS", b"".join(int(value).to_bytes(2, "big") for value in narrow[0, 0])
    decoded = np.asarray(decode(png_with(narrow, (b"cICP", bytes([1, 13, 0, 0])), transparent)).image)
    assert (decoded[:9] == 255).all()
    assert np.abs(decoded[9:].astype(int) - values[9:]).max() <= 1

    linear = (4096 + LIGHT_16 * (219 * 256 / 65535)).round().astype(np.uint16)
    assert grey_error(png_with(linear, (b"cICP", bytes([1, 8, 0, 0])))) <= 1


def test_greys_multiplied_by_alpha_are_read() -> None:
    grey = BYTES[..., 0]
    tags, pixels = page_of(np.dstack([grey // 2, np.full_like(grey, 128)]), photometric=1)
    decoded = np.asarray(decode(tiff_of([({**tags, 338: (3, 1)}, pixels)])).image)[..., 0].astype(int)
    assert np.abs(decoded - (255 + grey.astype(int)) // 2).max() <= 3


def test_adobe_rgb_named_by_the_exif_of_a_tiff_is_converted() -> None:
    """Pillow does not write the index R03 into a TIFF, so the color space names it."""
    for color_space, expected in ((2, PHOTO), (1, IN_ADOBE)):
        exif = Image.Exif()
        exif.load(adobe_exif(color_space, "R98"))
        assert difference(decode(save(IN_ADOBE, "TIFF", exif=exif)).image, expected) < 2


@pytest.mark.parametrize("order", ["<", ">"])
def test_adobe_rgb_named_by_a_color_space_of_two_is_converted(order: str) -> None:
    inner = struct.pack(f"{order}HHHIHHI", 1, 0xA001, 3, 1, 2, 0, 0)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    exif = b"Exif\0\0" + head + struct.pack(f"{order}HHHIII", 1, 0x8769, 4, 1, 26, 0) + inner
    data = save(IN_ADOBE, "PNG", exif=exif)
    assert difference(decode(data).image, PHOTO) < 2


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("has_exif", [False, True])
def test_the_orientation_in_xmp_does_not_count(fmt: str, has_exif: bool) -> None:
    """Browsers don't read it either. Programs that turn an image may forget it there."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    options: dict[str, object] = {"xmp": xmp}
    if fmt == "PNG":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options = {"pnginfo": text}
    elif fmt == "TIFF":
        options = {"tiffinfo": {700: xmp}}
    if has_exif:
        exif = Image.Exif()
        exif[0x010F] = "Maker"
        if fmt != "TIFF":
            options["exif"] = exif
    assert decode(save(draw(), fmt, **options)).image.size == draw().size


def test_dci_p3_has_its_own_curve() -> None:
    values = power_values(PHOTO, SRGB, 2.6)
    data = png_with(values, (b"cICP", bytes([1, 17, 0, 1])))
    assert difference(decode(data).image, PHOTO) < 2
