"""Colours with 16 bits per channel: shadows of linear light are kept, and bytes in 16 bits are refused."""

import itertools
import struct
import zlib

import numpy as np
import pytest

from tests.colours import BT2020, D65, SRGB, icc_profile, light_in
from tests.images import draw
from tests.io.test_colour import GAMMA_1, png_with
from tests.tiffs import Page, deflated, page_of, tiff_of
from uniemox.errors import ImageError
from uniemox.io.colour_spaces import srgb_of_light, with_srgb_curve
from uniemox.io.images import decode

DARK = draw(120, 88).point(lambda value: value // 8)  # 0 to 31: light below 1.4 %, in four values of 8 bits
COLOURS = np.asarray(DARK).astype(int)
LINEAR_LIGHT = (b"cICP", bytes([1, 8, 0, 1]))
ORDERS = ("<", ">")
COMPRESSIONS = (lambda page: page, deflated)
PROFILE = 34675  # a tag of TIFF


def light_of(primaries: tuple[tuple[float, float], ...] = SRGB) -> np.ndarray:
    return (light_in(DARK, primaries) * 65535).round().astype(np.uint16)


def linear_profile(primaries: tuple[tuple[float, float], ...], curve: bytes = b"") -> bytes:
    profile = icc_profile(primaries, D65, 1.0)
    if curve:
        return profile.replace(b"curv\0\0\0\0" + struct.pack(">IH", 1, 256) + b"\0\0", curve)
    return profile


def with_profile(page: Page, profile: bytes) -> Page:
    return {**page[0], PROFILE: (7, *profile)}, page[1]


def largest_difference(data: bytes) -> int:
    return int(np.abs(np.asarray(decode(data)[0]).astype(int) - COLOURS).max())


@pytest.mark.parametrize(
    "chunk",
    [GAMMA_1, LINEAR_LIGHT, (b"iCCP", b"light\0\0" + zlib.compress(linear_profile(SRGB)))],
    ids=["gAMA", "cICP", "profile"],
)
def test_shadows_of_a_linear_png_are_kept(chunk: tuple[bytes, bytes]) -> None:
    assert largest_difference(png_with(light_of(), chunk)) <= 1
    eight_bits = (light_of() >> 8).astype(np.uint8)
    assert largest_difference(png_with(eight_bits, chunk)) > 8


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("channels", [3, 4])
def test_shadows_of_a_linear_tiff_are_kept(channels: int, order: str, compress: object) -> None:
    values = np.dstack([light_of(), np.full(COLOURS.shape[:2], 65535, np.uint16)])[..., :channels]
    page = with_profile(compress(page_of(values, order=order)), linear_profile(SRGB))
    assert largest_difference(tiff_of([page], order=order)) <= 1


@pytest.mark.parametrize("curve", [b"curv" + bytes(8), struct.pack(">4s4xHHi", b"para", 0, 0, 65536)])
def test_every_form_of_a_linear_curve_is_read_with_wide_primaries(curve: bytes) -> None:
    page = with_profile(page_of(light_of(BT2020)), linear_profile(BT2020, curve.ljust(16, b"\0")))
    assert largest_difference(tiff_of([page])) <= 2


def test_alpha_of_linear_light_is_kept() -> None:
    alpha = np.zeros(COLOURS.shape[:2], np.uint16)
    alpha[:, :60] = 65535
    page = with_profile(page_of(np.dstack([light_of(), alpha])), linear_profile(SRGB))
    decoded = np.asarray(decode(tiff_of([page]))[0]).astype(int)
    assert np.abs(decoded[:, :60] - COLOURS[:, :60]).max() <= 1
    assert (decoded[:, 60:] == 255).all()


def test_only_linear_profiles_get_another_curve() -> None:
    linear = linear_profile(SRGB)
    assert with_srgb_curve(linear) is not None
    assert with_srgb_curve(icc_profile(None, D65, 1.0, space=b"GRAY")) is not None
    for other in (
        *(icc_profile(SRGB, D65, 2.2), icc_profile(None, D65, 2.2, space=b"GRAY"), linear.replace(b"wtpt", b"A2B0")),
        *(b"", bytes(200), linear[:140]),
    ):
        assert with_srgb_curve(other) is None


def test_srgb_of_light_has_the_standard_values() -> None:
    light = np.arange(65536) / 65535
    expected = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.array_equal(np.frombuffer(srgb_of_light(), np.uint8), (255 * expected).round())


BYTES = np.asarray(draw())
MESSAGE = r"a\.x: it has 16 bits per channel, but no value above \d+ of 65,535, .* multiply them by 257"


@pytest.mark.parametrize("values", [BYTES, BYTES // 200, BYTES[..., 0]], ids=["colours", "a mask", "greys"])
def test_bytes_in_a_png_of_16_bits_are_refused_with_a_remedy(values: np.ndarray) -> None:
    with pytest.raises(ImageError, match=MESSAGE):
        decode(png_with(values.astype(np.uint16)), "a.x")


def test_bytes_in_a_tiff_of_16_bits_are_refused_with_a_remedy() -> None:
    opaque = np.dstack([BYTES, np.full(BYTES.shape[:2], 255)])
    for values, order, compress in itertools.product((BYTES, opaque), ORDERS, COMPRESSIONS):
        page = compress(page_of(values.astype("u2"), order=order))
        with pytest.raises(ImageError, match=MESSAGE):
            decode(tiff_of([page], order=order), "a.x")


def test_black_and_almost_black_are_read() -> None:
    for brightest in (0, 256):
        values = np.zeros((16, 16, 3), np.uint16)
        values[0, 0] = brightest
        assert decode(png_with(values))[0].getextrema() == ((0, brightest >> 8),) * 3


def test_a_cut_off_image_of_16_bits_is_reported() -> None:
    data = png_with(np.zeros((88, 120, 3), np.uint16) + np.arange(120, dtype=np.uint16)[:, None])
    with pytest.raises(ImageError, match="cut off or corrupt"):
        decode(data[: len(data) * 2 // 3], "a.x")
