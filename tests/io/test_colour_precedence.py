"""The colour information that counts if a file names several, or one that cannot be used."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.colours import D65, PQ, SRGB, cmyk_profile, hdr_values, icc_profile, power_values
from tests.images import png_chunks, png_of, save
from tests.io.test_colour import GAMMA_1, IN_ADOBE, PHOTO, adobe_exif, png_with, with_nclx
from tests.io.test_images import difference
from uniemox.io.images import decode

BROKEN = b"no profile" * 30
PROFILE_OF_GREYS = icc_profile(None, D65, 1.0, space=b"GRAY")
UNUSABLE = {"broken": BROKEN, "of greys": PROFILE_OF_GREYS, "of CMYK": cmyk_profile()}
LINEAR = power_values(PHOTO, SRGB, 1.0)
GREY = PHOTO.convert("L")
LINEAR_GREY = power_values(GREY, SRGB, 1.0)[..., 0]
R03 = adobe_exif(65535, "R03")


def packed(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"name\0\0" + zlib.compress(profile)


@pytest.mark.parametrize("profile", UNUSABLE.values(), ids=UNUSABLE)
def test_code_points_count_after_an_unusable_profile(profile: bytes) -> None:
    values = (hdr_values(PHOTO, PQ) >> 8).astype(np.uint8)
    data = save(Image.fromarray(values), "AVIF", quality=100, subsampling="4:4:4", icc_profile=profile)
    assert difference(decode(with_nclx(data, 9, PQ))[0], PHOTO) < 4


@pytest.mark.parametrize("profile", UNUSABLE.values(), ids=UNUSABLE)
def test_gamma_counts_after_an_unusable_profile(profile: bytes) -> None:
    assert difference(decode(png_with(LINEAR, packed(profile), GAMMA_1))[0], PHOTO) < 2


@pytest.mark.parametrize("profile", UNUSABLE.values(), ids=UNUSABLE)
def test_exif_counts_after_an_unusable_profile(profile: bytes) -> None:
    data = save(IN_ADOBE, "JPEG", quality=95, subsampling=0, exif=R03, icc_profile=profile)
    assert difference(decode(data)[0], PHOTO) < 4


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([0] * 8, id="zeros"),
        pytest.param([31270, 32900, 64000, 0, 30000, 60000, 15000, 6000], id="y is zero"),
        pytest.param([31270, 32900, *[64000, 33000] * 3], id="one point"),
    ],
)
def test_a_gamma_counts_without_its_primaries_if_these_are_invalid(values: list[int]) -> None:
    primaries = (b"cHRM", struct.pack(">8I", *values))
    assert difference(decode(png_with(LINEAR, GAMMA_1, primaries))[0], PHOTO) < 2


def test_the_chunk_srgb_comes_before_exif() -> None:
    exif = (b"eXIf", R03.removeprefix(b"Exif\0\0"))
    assert difference(decode(png_with(np.asarray(IN_ADOBE), exif))[0], PHOTO) < 2
    both = png_with(np.asarray(PHOTO), (b"sRGB", b"\0"), exif)
    assert difference(decode(both)[0], PHOTO) == 0


@pytest.mark.parametrize("fmt", ["JPEG", "TIFF"])
def test_exif_of_adobe_rgb_does_not_count_for_cmyk(fmt: str) -> None:
    inks = PHOTO.convert("CMYK")
    named = decode(save(inks, fmt, exif=R03))[0]
    assert difference(named, decode(save(inks, fmt))[0]) == 0


def png_of_grey_and_alpha(bits: int) -> bytes:
    grey = LINEAR_GREY.astype(f">u{bits // 8}") * (2**bits // 255)
    rows = np.dstack([grey, np.full_like(grey, 2**bits - 1)])
    header = struct.pack(">IIBBBBB", GREY.width, GREY.height, bits, 4, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return png_of([(b"IHDR", header), packed(PROFILE_OF_GREYS), (b"IDAT", pixels), (b"IEND", b"")])


@pytest.mark.parametrize("bits", [8, 16])
def test_a_grey_profile_is_applied_to_a_png_of_grey_and_alpha(bits: int) -> None:
    assert difference(decode(png_of_grey_and_alpha(bits))[0], GREY) < 2


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile_is_applied_to_a_grey_webp(mode: str) -> None:
    linear = Image.fromarray(LINEAR_GREY).convert(mode)
    data = save(linear, "WEBP", lossless=True, icc_profile=PROFILE_OF_GREYS)
    assert difference(decode(data)[0], GREY) < 2
    coloured = save(PHOTO, "WEBP", lossless=True, icc_profile=PROFILE_OF_GREYS)
    assert difference(decode(coloured)[0], PHOTO) == 0


def test_a_chunk_of_colours_is_read_next_to_a_broken_profile() -> None:
    values = hdr_values(PHOTO, PQ)
    named = (b"cICP", bytes([9, PQ, 0, 1]))
    data = png_with(values, packed(BROKEN), named)
    assert [kind for kind, _ in png_chunks(data)][1:3] == [b"iCCP", b"cICP"]
    assert difference(decode(data)[0], PHOTO) < 2
