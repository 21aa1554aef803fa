"""Broken metadata do not cost an image whose pixels are whole."""

import struct
import zlib

import numpy as np
import pytest

from tests.colours import SRGB, power_values
from tests.images import save
from tests.io.test_colour import GAMMA_1, IN_P3, P3_PROFILE, PHOTO, SRGB_PROFILE, png_with
from tests.io.test_images import difference
from uniemox.errors import ImageError
from uniemox.io.colour import MAX_PROFILE_BYTES
from uniemox.io.image_headers import jpeg_frame
from uniemox.io.images import decode

CLOSE = 1.5
"""Mean difference in levels that rounding may cause."""
PIXELS = np.asarray(PHOTO)
VALUES = np.asarray(IN_P3)
NAME = b"profile\0"


def with_size(profile: bytes) -> bytes:
    """Set the size in the header of a profile to its length."""
    return struct.pack(">I", len(profile)) + profile[4:]


def profile_chunk(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", NAME + b"\0" + zlib.compress(profile)


@pytest.mark.parametrize("size", [2 * 2**20, MAX_PROFILE_BYTES])
def test_a_large_profile_of_a_png_is_converted(size: int) -> None:
    profile = with_size(P3_PROFILE.ljust(size, b"\0"))
    assert difference(decode(png_with(VALUES, profile_chunk(profile)))[0], PHOTO) < CLOSE


def with_wrong_checksum(png: bytes, kind: bytes) -> bytes:
    at = png.index(kind)
    end = at + 4 + int.from_bytes(png[at - 4 : at], "big")
    return png[:end] + bytes(4) + png[end + 4 :]


BROKEN_CHUNKS = {
    "of 5 MiB": NAME + b"\0" + zlib.compress(bytes(5 * 2**20)),
    "cut off": NAME + b"\0" + zlib.compress(P3_PROFILE)[:50],
    "not packed": NAME + b"\0" + b"garbage" * 9,
    "another method": NAME + b"\1" + zlib.compress(P3_PROFILE),
    "a name only": NAME,
    "no name": b"profile",
    "empty": b"",
}


@pytest.mark.parametrize("content", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS)
def test_a_broken_profile_of_a_png_counts_as_none(content: bytes) -> None:
    assert difference(decode(png_with(PIXELS, (b"iCCP", content)))[0], PHOTO) == 0
    linear = power_values(PHOTO, SRGB, 1.0)
    assert difference(decode(png_with(linear, (b"iCCP", content), GAMMA_1))[0], PHOTO) < 2


def test_a_profile_with_a_wrong_checksum_counts_as_none() -> None:
    data = png_with(PIXELS, profile_chunk(P3_PROFILE))
    assert difference(decode(with_wrong_checksum(data, b"iCCP"))[0], PHOTO) == 0


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs"])
def test_notes_of_a_png_with_a_wrong_checksum_are_left_out(kind: bytes) -> None:
    """Pillow refuses the image; its pixels and its profile are whole."""
    data = with_wrong_checksum(png_with(VALUES, (kind, b"Title\0text"), profile_chunk(P3_PROFILE)), kind)
    assert difference(decode(data)[0], PHOTO) < CLOSE


def test_a_chunk_of_colours_with_a_wrong_checksum_is_refused() -> None:
    with pytest.raises(ImageError):
        decode(with_wrong_checksum(png_with(PIXELS, GAMMA_1), b"gAMA"))


def test_the_first_of_two_profiles_counts() -> None:
    data = png_with(VALUES, profile_chunk(P3_PROFILE), profile_chunk(SRGB_PROFILE))
    assert difference(decode(data)[0], PHOTO) < CLOSE


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + jpeg[2:]


BROKEN_SEGMENTS = {
    "profile without a number": (0xE2, b"ICC_PROFILE\0"),
    "short APP14": (0xEE, b"Adobe\0"),
    "cut off Photoshop": (0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
}


@pytest.mark.parametrize(("marker", "content"), BROKEN_SEGMENTS.values(), ids=BROKEN_SEGMENTS)
def test_a_broken_segment_of_a_jpeg_is_left_out(marker: int, content: bytes) -> None:
    for options in ({}, {"progressive": True}):
        plain = save(PHOTO, "JPEG", quality=95, subsampling=0, **options)
        assert difference(decode(with_segment(plain, marker, content))[0], decode(plain)[0]) == 0


def test_the_orientation_stays_when_a_segment_is_left_out() -> None:
    exif = bytes.fromhex("457869660000 4d4d002a00000008 0001 0112 0003 00000001 00060000 00000000")
    plain = with_segment(save(PHOTO, "JPEG", quality=95), 0xE1, exif)
    assert decode(plain)[0].size == PHOTO.size[::-1]
    broken = with_segment(plain, 0xE2, b"ICC_PROFILE\0")
    assert difference(decode(broken)[0], decode(plain)[0]) == 0


def test_a_jpeg_that_is_not_read_is_described() -> None:
    """The decoder knows 8 bits only, and no height that follows the first lines."""
    jpeg = bytearray(save(PHOTO, "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    height, width = struct.unpack_from(">HH", jpeg, at + 5)
    assert jpeg_frame(bytes(jpeg)) == f"8 bits, {width} x {height} px"
    jpeg[at + 4] = 12
    with pytest.raises(ImageError, match=rf"a JPEG that is not read \(12 bits, {width} x {height} px\); save it again"):
        decode(bytes(jpeg))
    assert [jpeg_frame(bytes(jpeg[:end])) for end in (0, 3, 20, at + 8)] == [""] * 4
    assert jpeg_frame(b"\x89PNG") == ""
