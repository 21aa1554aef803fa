"""Greys and colours of any depth and layout: the right pixels, or an error that says what to save instead."""

import itertools
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.images import draw, png_of
from tests.tiffs import REDUCED, Page, deflated, page_of, tiff_of
from uniemox.errors import ImageError
from uniemox.io.images import decode

RGB = np.asarray(draw())
GREY = np.asarray(draw().convert("L"))
REMEDY = "save it again with 8 or 16 bits per channel"
TIFF_REMEDY = "convert it to RGB with 8 bits per channel, or save it as PNG"
WHITES = [
    *[("u1", 255), ("u2", 65535), ("i2", 255), ("i2", 32767), ("i4", 255), ("i4", 65535), ("i4", 2**31 - 1)],
    *[("u4", 255), ("u4", 65535), ("u4", 2**32 - 1), ("f4", 1), ("f4", 255), ("f4", 65535)],
    *[("f2", 1), ("f8", 1), ("i1", 127)],
]
REFUSED = ("f2", "f8", "i1")
ORDERS = ("<", ">")
COMPRESSIONS = (lambda page: page, deflated)


def tagged(page: Page, tags: dict[int, tuple[int, ...]]) -> Page:
    return {**page[0], **tags}, page[1]


def values_of(grey: np.ndarray, kind: str, white: float, *, white_is_zero: bool = False) -> np.ndarray:
    values = grey / 255 * white
    values = white - values if white_is_zero else values
    return (values if kind.startswith("f") else values.round()).astype(kind)


def decode_or_none(data: bytes) -> np.ndarray | None:
    """The pixels of a file; None if it is refused with a remedy."""
    try:
        return np.asarray(decode(data, "x.tif")[0])
    except ImageError as error:
        assert "x.tif: " in str(error)
        assert REMEDY in str(error) or TIFF_REMEDY in str(error)
        return None


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize(("kind", "white"), WHITES)
def test_greys_of_every_kind_are_right_or_refused(kind: str, white: float, white_is_zero: bool) -> None:
    values = values_of(GREY, kind, white, white_is_zero=white_is_zero)
    for order, compress in itertools.product(ORDERS, COMPRESSIONS):
        page = page_of(values, order=order, photometric=0 if white_is_zero else 1)
        decoded = decode_or_none(tiff_of([compress(page)], order=order))
        is_needed = order == "<" and not white_is_zero and kind not in REFUSED
        assert decoded is not None or not is_needed
        assert (decoded is None) >= (kind in REFUSED)
        if decoded is not None:
            assert np.array_equal(decoded, np.repeat(GREY[..., None], 3, axis=-1))


@pytest.mark.parametrize("kind", ["f4", "u2"])
def test_white_is_zero_is_read_in_16_bits_and_floats(kind: str) -> None:
    values = values_of(GREY, kind, 1 if kind == "f4" else 65535, white_is_zero=True)
    decoded = decode_or_none(tiff_of([page_of(values, photometric=0)]))
    assert decoded is not None
    assert np.array_equal(decoded[..., 0], GREY)


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("is_planar", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_are_reduced_exactly(channels: int, is_planar: bool, order: str, compress: object) -> None:
    values = np.dstack([RGB, np.full(RGB.shape[:2], 255)])[..., :channels]
    page = page_of((values * 257).astype("u2"), order=order, is_planar=is_planar)
    decoded = decode_or_none(tiff_of([compress(page)], order=order))
    assert decoded is not None
    assert np.array_equal(decoded, RGB)


def test_cmyk_of_16_bits_in_planes_is_read() -> None:
    inks = np.asarray(draw().convert("CMYK"))
    decoded = decode_or_none(tiff_of([page_of((inks * 257.0).astype("u2"), is_planar=True, photometric=5)]))
    assert decoded is not None
    assert np.array_equal(decoded, np.asarray(Image.fromarray(inks, "CMYK").convert("RGB")))


@pytest.mark.parametrize(("kind", "is_planar"), itertools.product(["f4", "u4", "f2"], [False, True]))
def test_colours_of_other_kinds_are_refused_with_their_layout(kind: str, is_planar: bool) -> None:
    data = tiff_of([page_of((RGB / 255).astype(kind), is_planar=is_planar)])
    message = rf"a\.tif: a TIFF that is not read \(RGB, \d\d bits, .*channels: 3.*{TIFF_REMEDY}"
    with pytest.raises(ImageError, match=message):
        decode(data, "a.tif")


GREY_AND_ALPHA = np.dstack([GREY, GREY])
UNASSOCIATED = {338: (3, 2)}
"""Tag of a page whose last channel is alpha, by which the colours are not multiplied."""


@pytest.mark.parametrize(
    ("page", "order", "layout"),
    [
        pytest.param(
            tagged(page_of(GREY_AND_ALPHA, photometric=1, is_planar=True), UNASSOCIATED),
            *("<", "greys, 8 bits, .*channels: 2, in planes"),
            id="grey and alpha in planes",
        ),
        pytest.param(
            tagged(page_of(GREY_AND_ALPHA.astype("u2"), photometric=1), UNASSOCIATED),
            *("<", "greys, 16 bits, .*channels: 2"),
            id="grey and alpha of 16 bits",
        ),
        pytest.param(page_of(np.dstack([RGB, RGB[..., :2]]), photometric=2), "<", "channels: 5", id="5 channels"),
        pytest.param(
            page_of(GREY.astype("u2") * 257, photometric=0, order=">"),
            *(">", "greys with white as 0, 16 bits, .*big-endian"),
            id="inverted",
        ),
        pytest.param(page_of(RGB, photometric=9), "<", "Lab, 8 bits", id="Lab"),
    ],
)
def test_unreadable_layouts_are_named_with_a_remedy(page: Page, order: str, layout: str) -> None:
    with pytest.raises(ImageError, match=rf"a\.tif: a TIFF that is not read \(.*{layout}.*\); {TIFF_REMEDY}"):
        decode(tiff_of([page], order=order), "a.tif")


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize("kind", [1, 2])
def test_alpha_in_planes_is_put_on_white(kind: int, compress: object) -> None:
    """Kind 1 of the extra channel: colours are multiplied by alpha; kind 2: they are not."""
    alpha = np.full(RGB.shape[:2], 128)
    shown = RGB * (128 / 255)
    colours = shown.round() if kind == 1 else RGB
    tags, pixels = page_of(np.dstack([colours, alpha]).astype(np.uint8), is_planar=True)
    decoded = decode_or_none(tiff_of([compress(({**tags, 338: (3, kind)}, pixels))]))
    assert decoded is not None
    assert np.abs(decoded - (shown + 127)).max() <= 2


def test_twelve_bits_are_scaled_by_their_white() -> None:
    for white_is_zero in (False, True):
        values = values_of(GREY, "u2", 4095, white_is_zero=white_is_zero)
        decoded = decode_or_none(tiff_of([page_of(values, bits=12, photometric=0 if white_is_zero else 1)]))
        assert decoded is not None or white_is_zero
        if decoded is not None:
            assert np.abs(decoded[..., 0].astype(int) - GREY).max() == 0


@pytest.mark.parametrize(("kind", "white"), [item for item in WHITES if item[0] not in REFUSED])
def test_a_hazy_image_stays_hazy(kind: str, white: float) -> None:
    hazy = (100 + GREY * 0.3).round()
    decoded = decode_or_none(tiff_of([page_of(values_of(hazy, kind, white))]))
    assert decoded is not None
    assert np.array_equal(decoded[..., 0], hazy)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.array([[-1.0, 0.0, 1.0, 3.0]], "f4"), id="below zero"),
        pytest.param(np.array([[0.0, 0.5, 1.0, 3.0]], "f4"), id="highlights"),
        pytest.param(np.array([[0.0, 1e6]], "f4"), id="large"),
        pytest.param(np.array([[0.0, np.nan]], "f4"), id="not a number"),
        pytest.param(np.array([[0, 10**6]], "i4"), id="20 bits"),
        pytest.param(np.array([[0, 4095]], "u4"), id="12 bits in 32"),
        pytest.param(np.array([[0, 1000]], "i4"), id="10 bits in 32 with a sign"),
        pytest.param(np.array([[0.0, 4095.0]], "f4"), id="12 bits in floats"),
        pytest.param(np.array([[0.5, 100.5]], "f4"), id="percent"),
        pytest.param(np.array([[-0.1, 0.5]], "f4"), id="below zero and dark"),
        pytest.param(np.array([[-1000, 3000]], "i2"), id="a scan"),
    ],
)
def test_values_without_a_known_white_are_refused(values: np.ndarray) -> None:
    with pytest.raises(ImageError, match=rf"x\.tif: it holds values .*{REMEDY}"):
        decode(tiff_of([page_of(values.repeat(8, axis=0))]), "x.tif")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(np.array([[0, 0]], "u2"), [0, 0], id="black"),
        pytest.param(np.array([[0, 4112]], "u2"), [0, 16], id="16 bits, dark"),
        pytest.param(np.array([[0.0, 100.0]], "f4"), [0, 100], id="whole floats"),
        pytest.param(np.array([[0.5, 128.5]], "f4"), [0, 128], id="floats up to 255"),
        pytest.param(np.array([[0, 2**14]], "u4"), [0, 64], id="16 bits in 32"),
        pytest.param(np.array([[0, 2**24]], "u4"), [0, 1], id="32 bits, almost black"),
    ],
)
def test_dark_values_with_a_known_white_are_read(values: np.ndarray, expected: list[int]) -> None:
    decoded = decode_or_none(tiff_of([page_of(values.repeat(8, axis=0))]))
    assert decoded is not None
    assert decoded[0, :, 0].tolist() == expected


def test_values_a_little_beyond_black_and_white_are_clipped() -> None:
    values = np.array([[-0.01, 0.0, 1.0, 1.01]], "f4").repeat(8, axis=0)
    assert decode_or_none(tiff_of([page_of(values)]))[0, :, 0].tolist() == [0, 0, 255, 255]


def test_greys_of_pgm_are_scaled_by_their_white() -> None:
    for white in (1023, 4095, 65535):
        values = (GREY / 255 * white).round().astype(">u2")
        data = f"P5 {GREY.shape[1]} {GREY.shape[0]} {white}\n".encode() + values.tobytes()
        assert np.abs(np.asarray(decode(data)[0])[..., 0].astype(int) - GREY).max() <= 1
    dark = b"P5 16 16 65535\n" + np.full((16, 16), 255, ">u2").tobytes()
    assert decode(dark)[0].getpixel((8, 8)) == (1, 1, 1)


def png_of_rows(bits: int, kind: int, rows: list[bytes], transparent: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", 16, len(rows), bits, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return png_of([(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", pixels), (b"IEND", b"")])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_grey_of_a_png_is_white(bits: int) -> None:
    white = 2**bits - 1
    step = max(1, (2**bits - 1) // 15)
    greys = [min(white, step * i) if bits >= 4 else i % (white + 1) for i in range(16)]
    packed = int("".join(f"{grey:0{bits}b}" for grey in greys), 2).to_bytes(2 * bits, "big")
    clear = greys[1]
    decoded = np.asarray(decode(png_of_rows(bits, 0, [packed] * 16, struct.pack(">H", clear)))[0])[8, :, 0]
    expected = [255 if grey == clear else round(255 * grey / white) for grey in greys]
    assert np.abs(decoded.astype(int) - expected).max() <= 1


def test_the_transparent_colour_of_a_png_with_16_bits_is_white() -> None:
    row = b"".join(struct.pack(">3H", 0x1234 if i % 2 else 0x5634, 0x5678, 0x9ABC) for i in range(16))
    decoded = decode(png_of_rows(16, 2, [row] * 16, struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)))[0]
    assert [decoded.getpixel((x, 8)) for x in (0, 1)] == [(0x56, 0x56, 0x9A), (255, 255, 255)]


THUMBNAIL = page_of(np.asarray(draw(16, 12, seed=3)))
PHOTO = page_of(RGB)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("pages", "inner"),
    [
        pytest.param([tagged(THUMBNAIL, REDUCED), PHOTO], [], id="a later page"),
        pytest.param([tagged(THUMBNAIL, {255: (3, 2)}), PHOTO], [], id="old tag"),
        pytest.param([tagged(THUMBNAIL, REDUCED), tagged(THUMBNAIL, REDUCED), PHOTO], [], id="pyramid"),
        pytest.param([tagged(THUMBNAIL, REDUCED)], [PHOTO], id="SubIFD"),
        pytest.param([THUMBNAIL], [PHOTO], id="SubIFD of an unmarked page"),
        pytest.param([tagged(THUMBNAIL, {**REDUCED, 271: (2, *b"Maker\0")})], [PHOTO], id="SubIFD, of a camera"),
        pytest.param([tagged(THUMBNAIL, REDUCED)], [tagged(PHOTO, REDUCED)], id="all reduced"),
        pytest.param([PHOTO], [tagged(THUMBNAIL, REDUCED)], id="photograph first"),
        pytest.param([PHOTO, tagged(THUMBNAIL, REDUCED)], [], id="thumbnail last"),
        pytest.param([PHOTO, page_of(np.zeros((90, 120, 3), np.uint8))], [], id="larger second page"),
        pytest.param([tagged(PHOTO, REDUCED)], [], id="alone"),
    ],
)
def test_the_photograph_is_read_not_its_thumbnail(pages: list[Page], inner: list[Page], order: str) -> None:
    decoded, full = decode(tiff_of(pages, inner=inner, order=order))
    assert full == (60, 44)
    assert np.array_equal(np.asarray(decoded), RGB)


SENSOR = page_of(np.zeros((80, 120), np.uint16), photometric=32803)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(tiff_of([tagged(THUMBNAIL, REDUCED)], inner=[SENSOR]), id="NEF"),
        pytest.param(tiff_of([THUMBNAIL], inner=[SENSOR]), id="ARW"),
        pytest.param(tiff_of([SENSOR, tagged(THUMBNAIL, REDUCED)]), id="PEF"),
        pytest.param(tiff_of([tagged(THUMBNAIL, {**REDUCED, 50706: (4, 0x01040000)})]), id="DNG"),
        pytest.param(
            tiff_of([tagged(THUMBNAIL, REDUCED)], inner=[page_of(RGB.astype("u2"), photometric=34892)]), id="linear DNG"
        ),
        pytest.param(tiff_of([THUMBNAIL], head=b"CR\x02\x00"), id="CR2"),
    ],
)
def test_camera_raw_is_refused_under_any_name(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"photo\.tif: .*camera raw.*JPEG"):
        decode(data, "photo.tif")


def test_damaged_directories_give_an_image_or_our_error() -> None:
    data = tiff_of([tagged(THUMBNAIL, REDUCED)], inner=[PHOTO])
    generator = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(data)
        for at in generator.integers(0, len(data), 20):
            damaged[at] = generator.integers(256)
        for cut in (len(data), int(generator.integers(8, len(data)))):
            try:
                decode(bytes(damaged[:cut]), "x.tif")
            except ImageError as error:
                assert "x.tif" in str(error)


def test_known_formats_do_not_depend_on_what_was_decoded() -> None:
    script = (
        "from uniemox.errors import ImageError; from uniemox.io import images\n"
        "def message():\n"
        "    try: images.decode(b'text')\n"
        "    except ImageError as error: return str(error)\n"
        "first = message(); images._register_heif(); assert message() == first; print(first)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "TIFF" in done.stdout
