"""Colours: an image in any colour space gives the pixels of the same image in sRGB."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.colours import (
    ADOBE,
    BT2020,
    D50,
    D65,
    HLG,
    P3,
    PQ,
    PROPHOTO,
    SRGB,
    cmyk_profile,
    hdr_values,
    icc_profile,
    light_in,
    power_values,
)
from tests.images import animate, draw, png_chunks, png_of, save
from tests.io.test_images import difference
from uniemox.io import colour
from uniemox.io.colour import MAX_PROFILE_BYTES
from uniemox.io.decoding.film_frames import _animation_frames
from uniemox.io.decoding.pool import decode_one
from uniemox.io.image_headers import code_points_in
from uniemox.io.images import decode, open_image

PHOTO = draw(120, 88).point(lambda value: 30 + value * 3 // 4)  # colours that all of the spaces have
ADOBE_PROFILE = icc_profile(ADOBE, D65, 563 / 256)
P3_PROFILE = icc_profile(P3, D65, 2.2)
IN_P3 = Image.fromarray(power_values(PHOTO, P3, 2.2))
IN_ADOBE = Image.fromarray(power_values(PHOTO, ADOBE, 563 / 256))
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CLOSE = 1.5
"""Mean difference in levels that rounding may cause."""


def png_with(values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of greys (with alpha) or colours, 8 or 16 bits, with these chunks before its pixels."""
    bits = 8 * values.dtype.itemsize
    kind = 0 if values.ndim == 2 else {2: 4, 3: 2}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, kind, 0, 0, 0)
    return png_of([(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


LOSSLESS = [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})]
LOSSY = [("JPEG", {"quality": 95, "subsampling": 0}), ("AVIF", {"quality": 95})]


@pytest.mark.parametrize(("fmt", "options"), [*LOSSLESS, *LOSSY])
def test_a_profile_is_converted_in_every_format(fmt: str, options: dict[str, object]) -> None:
    data = save(IN_P3, fmt, icc_profile=P3_PROFILE, **options)
    assert difference(decode_one(data)[0], PHOTO) < (CLOSE if (fmt, options) in LOSSLESS else 4)
    assert difference(IN_P3, PHOTO) > 4


def test_prophoto_is_converted() -> None:
    profile = icc_profile(PROPHOTO, D50, 1.8)
    wide = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    image = ImageCms.profileToProfile(PHOTO, ImageCms.createProfile("sRGB"), wide, renderingIntent=1)
    assert difference(image, PHOTO) > 10
    assert difference(decode(save(image, "PNG", icc_profile=profile))[0], PHOTO) < CLOSE


def test_a_palette_and_transparent_colours_are_converted_before_they_are_put_on_white() -> None:
    palette = IN_P3.quantize(64)
    converted = decode(save(palette, "PNG", icc_profile=P3_PROFILE))[0]
    assert difference(converted, decode(save(palette, "PNG"))[0]) > 4
    assert difference(converted, PHOTO.quantize(64)) < 5
    clear = IN_P3.copy()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    expected = PHOTO.copy()
    expected.putalpha(clear.getchannel("A"))
    for fmt, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        data = save(clear, fmt, icc_profile=P3_PROFILE, **options)
        assert difference(decode(data)[0], decode(save(expected, "PNG"))[0]) < CLOSE


def test_greys_with_a_grey_profile_are_converted() -> None:
    grey = PHOTO.convert("L")
    values = power_values(grey, SRGB, 1.0)[..., 0]
    for fmt in ("PNG", "TIFF"):
        data = save(Image.fromarray(values), fmt, icc_profile=icc_profile(None, D65, 1.0, space=b"GRAY"))
        assert difference(decode(data)[0], grey) < 2
    wide = (light_in(grey, SRGB)[..., 0] * 65535).round().astype(np.uint16)
    data = save(Image.fromarray(wide), "TIFF", icc_profile=icc_profile(None, D65, 1.0, space=b"GRAY"))
    assert difference(decode(data)[0], grey) < 2


def test_cmyk_with_a_profile_has_its_colours() -> None:
    inks = [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255)]
    image = Image.new("CMYK", (64, 16))
    for i, ink in enumerate(inks):
        image.paste(ink, (16 * i, 0, 16 * i + 16, 16))
    data = save(image, "TIFF", icc_profile=cmyk_profile())
    decoded = decode(data)[0]
    colours = np.array([decoded.getpixel((16 * i + 8, 8)) for i in range(4)])
    assert np.abs(colours - [(255, 255, 255), (0, 255, 255), (255, 0, 0), (0, 0, 0)]).max() <= 12
    middle = Image.new("CMYK", (16, 16), (128, 128, 128, 0))  # half of the light, which is 188 in sRGB, not 127
    assert decode(save(middle, "TIFF", icc_profile=cmyk_profile()))[0].getpixel((8, 8))[0] > 160


def test_lab_is_read() -> None:
    lab = ImageCms.profileToProfile(
        PHOTO, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert difference(decode(save(lab, "TIFF"))[0], PHOTO) < 3


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(b"x" * 500, id="no profile"),
        pytest.param(P3_PROFILE[:200], id="cut off"),
        pytest.param(P3_PROFILE[:140] + bytes(len(P3_PROFILE) - 140), id="zeros"),
        pytest.param(P3_PROFILE + bytes(MAX_PROFILE_BYTES), id="too large"),
        pytest.param(icc_profile(None, D65, 1.0, space=b"GRAY"), id="of greys"),
        pytest.param(cmyk_profile(), id="of CMYK"),
        pytest.param(P3_PROFILE.replace(b"mntr", b"link"), id="link of devices"),
    ],
)
def test_a_profile_that_can_not_be_used_is_ignored(profile: bytes) -> None:
    assert difference(decode(save(PHOTO, "TIFF", icc_profile=profile))[0], PHOTO) == 0


def test_a_profile_of_colours_is_ignored_for_greys() -> None:
    grey = PHOTO.convert("L")
    assert difference(decode(save(grey, "PNG", icc_profile=P3_PROFILE))[0], grey) == 0


@pytest.mark.parametrize("profile", [SRGB_PROFILE, b""], ids=["srgb", "none"])
def test_srgb_costs_no_conversion(profile: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(PHOTO, "PNG", icc_profile=profile)
    assert difference(decode(data)[0], PHOTO) == 0  # and the profile is known from here on
    monkeypatch.setattr(ImageCms, "buildTransform", None)
    monkeypatch.setattr(ImageCms.ImageCmsTransform, "apply", None)
    header = open_image(data, "x")
    header.load()
    assert colour.to_srgb(header) is header


def test_images_from_pillow_are_converted_and_not_changed() -> None:
    image = IN_P3.copy()
    image.info["icc_profile"] = P3_PROFILE
    assert difference(colour.to_srgb(image), PHOTO) < CLOSE
    assert difference(image, IN_P3) == 0


def test_a_converted_image_is_not_converted_again() -> None:
    decoded = decode(save(IN_P3, "PNG", icc_profile=P3_PROFILE))[0]
    assert difference(colour.to_srgb(decoded), decoded) == 0


def adobe_exif(color_space: int, index: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = color_space
    exif[0x8769] = {0xA001: color_space, 0xA005: {1: index}}
    return exif.tobytes()


def test_adobe_rgb_named_by_exif_is_converted() -> None:
    uncalibrated = adobe_exif(65535, "R03")
    assert Image.open(io.BytesIO(save(PHOTO, "JPEG", exif=uncalibrated))).getexif().get_ifd(0xA005)[1] == "R03"
    options = {"quality": 95, "subsampling": 0}
    data = save(IN_ADOBE, "JPEG", exif=uncalibrated, **options)
    plain = save(IN_ADOBE, "JPEG", **options)
    assert difference(decode(data)[0], PHOTO) < 4
    assert difference(decode(plain)[0], PHOTO) > 5
    for other in (adobe_exif(1, "R03"), adobe_exif(65535, "R98")):
        assert difference(decode(save(IN_ADOBE, "JPEG", exif=other, **options))[0], decode(plain)[0]) == 0
    both = save(PHOTO, "PNG", exif=uncalibrated, icc_profile=SRGB_PROFILE)
    assert difference(decode(both)[0], PHOTO) == 0


GAMMA_1 = (b"gAMA", struct.pack(">I", 100_000))
GAMMA_SRGB = (b"gAMA", struct.pack(">I", 45_455))


def chromaticities(primaries: tuple[tuple[float, float], ...]) -> tuple[bytes, bytes]:
    values = [round(100_000 * value) for point in (D65, *primaries) for value in point]
    return b"cHRM", struct.pack(">8I", *values)


def test_gama_and_chrm_of_png_are_converted() -> None:
    linear = power_values(PHOTO, SRGB, 1.0)
    assert difference(decode(png_with(linear, GAMMA_1))[0], PHOTO) < 2
    assert difference(decode(png_with((light_in(PHOTO, SRGB) * 65535).astype(np.uint16), GAMMA_1))[0], PHOTO) < 2
    wide = power_values(PHOTO, P3, 1.0)
    assert difference(decode(png_with(wide, GAMMA_1, chromaticities(P3)))[0], PHOTO) < 2
    grey = PHOTO.convert("L")
    assert difference(decode(png_with(power_values(grey, SRGB, 1.0)[..., 0], GAMMA_1))[0], grey) < 2
    sixteen = (light_in(grey, SRGB)[..., 0] * 65535).astype(np.uint16)
    assert difference(decode(png_with(sixteen, GAMMA_1))[0], grey) < 2


@pytest.mark.parametrize(
    "chunks",
    [
        [GAMMA_SRGB],
        [GAMMA_SRGB, chromaticities(SRGB)],
        [(b"sRGB", b"\0"), GAMMA_1],
        [(b"gAMA", bytes(4))],
        [(b"cICP", bytes([1, 13, 0, 1])), GAMMA_1],
        [GAMMA_1, (b"iCCP", b"sRGB\0\0" + zlib.compress(SRGB_PROFILE))],
        [GAMMA_SRGB, (b"cHRM", bytes(32))],
    ],
    ids=["sRGB's gamma", "and primaries", "sRGB", "zero", "cICP first", "profile first", "no primaries"],
)
def test_png_that_is_srgb_is_unchanged(chunks: list[tuple[bytes, bytes]]) -> None:
    assert difference(decode(png_with(np.asarray(PHOTO), *chunks))[0], PHOTO) == 0


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_png_has_reference_white_as_white(transfer: int) -> None:
    values = hdr_values(PHOTO, transfer)
    named = (b"cICP", bytes([9, transfer, 0, 1]))
    assert difference(decode(png_with(values, named))[0], PHOTO) < 2
    assert difference(decode(png_with((values >> 8).astype(np.uint8), named))[0], PHOTO) < 2
    assert difference(decode(png_with(values))[0], PHOTO) > 15
    over_profile = (b"iCCP", b"sRGB\0\0" + zlib.compress(SRGB_PROFILE))
    assert difference(decode(png_with(values, named, over_profile))[0], PHOTO) < 2
    bright = np.full((16, 16, 3), 65535, np.uint16)
    assert decode(png_with(bright, named))[0].getpixel((8, 8)) == (255, 255, 255)


def test_hdr_named_by_a_profile_is_converted() -> None:
    profile = icc_profile(BT2020, D65, 2.2, extra=b"cicp\0\0\0\0" + bytes([9, PQ, 0, 1]))
    values = (hdr_values(PHOTO, PQ) >> 8).astype(np.uint8)
    data = save(Image.fromarray(values), "JPEG", icc_profile=profile, quality=98, subsampling=0)
    assert difference(decode(data)[0], PHOTO) < 5


def with_nclx(avif: bytes, primaries: int, transfer: int) -> bytes:
    """Change the code points in an AVIF."""
    at = avif.index(b"colrnclx") + 8
    return avif[:at] + struct.pack(">HH", primaries, transfer) + avif[at + 4 :]


def test_code_points_of_avif_are_converted() -> None:
    for transfer in (PQ, HLG):
        values = (hdr_values(PHOTO, transfer) >> 8).astype(np.uint8)
        plain = save(Image.fromarray(values), "AVIF", quality=100, subsampling="4:4:4")
        assert difference(decode_one(with_nclx(plain, 9, transfer))[0], PHOTO) < 4
        assert difference(decode_one(plain)[0], PHOTO) > 15
    plain = save(Image.fromarray(power_values(PHOTO, P3, 1.0)), "AVIF", quality=100, subsampling="4:4:4")
    assert difference(decode_one(with_nclx(plain, 12, 8))[0], PHOTO) < 4
    profile_first = save(PHOTO, "AVIF", quality=100, subsampling="4:4:4", icc_profile=SRGB_PROFILE)
    assert difference(decode_one(profile_first)[0], PHOTO) < 4


def test_damaged_boxes_name_no_colours() -> None:
    avif = save(PHOTO, "AVIF")
    generator = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(avif[:400])
        for at in generator.integers(0, 400, 5):
            damaged[at] = generator.integers(256)
        code_points = code_points_in(bytes(damaged))
        assert code_points is None or len(code_points) == 2


def test_a_conversion_keeps_the_orientation_and_the_size_of_a_draft() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(IN_P3.resize((480, 352)), "JPEG", icc_profile=P3_PROFILE, exif=exif, quality=95)
    decoded, full = decode(data, shrink=lambda *_: 4)
    assert (full, decoded.size) == ((352, 480), (88, 120))
    assert difference(decoded, PHOTO.transpose(Image.Transpose.ROTATE_270)) < 6


def test_every_frame_of_an_animation_is_converted() -> None:
    data = animate("WEBP", [IN_P3, IN_ADOBE], lossless=True, icc_profile=P3_PROFILE)
    with Image.open(io.BytesIO(data)) as file:
        frames = [frame.to_image() for frame in _animation_frames(file, len(data))]
    assert difference(frames[0], PHOTO) < CLOSE


def test_png_chunks_after_the_pixels_do_not_count() -> None:
    chunks = png_chunks(png_with(np.asarray(PHOTO)))
    late = [*chunks[:-1], (b"cICP", bytes([9, PQ, 0, 1])), chunks[-1]]
    assert difference(decode(png_of(late))[0], PHOTO) == 0
