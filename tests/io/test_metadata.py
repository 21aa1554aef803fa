"""Metadata are removed from image files; the image, its colours and its orientation stay."""

import contextlib
import io
import random
import re
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from tests.colours import D65, SRGB, icc_profile
from tests.drawn import draw_image
from tests.images import animate, draw, png_chunks, png_of, save
from tests.io.test_low_bytes import with_profile
from tests.tiffs import page_of, tiff_of
from tools.file_mutations import mutate_bytes
from uniemox.errors import ImageError
from uniemox.io.exif import names_adobe_rgb
from uniemox.io.images import decode, open_image
from uniemox.io.metadata import PlainImage, plain_format, without_metadata

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SECRET = "Jane Doe, 48.137N 11.575E"
FORMATS = {
    "baseline": ("JPEG", {"quality": 90}),
    "progressive": ("JPEG", {"progressive": True, "quality": 95, "subsampling": 0}),
    "png": ("PNG", {}),
    "lossy webp": ("WEBP", {"quality": 70}),
    "lossless webp": ("WEBP", {"lossless": True}),
}


def image_with_exif(name: str, orientation: int = 6, profile: bytes = PROFILE) -> bytes:
    """A file with every kind of metadata that Pillow writes in its format."""
    image_format, options = FORMATS[name]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = SECRET
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = SECRET
    xmp = f"<x:xmpmeta>{SECRET}</x:xmpmeta>"
    texts: dict[str, object] = {"xmp": xmp.encode()}
    if image_format == "JPEG":
        texts["comment"] = SECRET.encode()
    if image_format == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("Author", SECRET)
        info.add_itxt("XML:com.adobe.xmp", xmp)
        texts = {"pnginfo": info}
    return save(draw_image(3).resize((90, 61)), image_format, exif=exif, icc_profile=profile, **options, **texts)


def colour_image(mode: str) -> Image.Image:
    """An image with random values in all channels."""
    values = np.random.default_rng(0).integers(0, 256, (44, 60, 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(values.view(np.uint16)[..., 0])
    image = Image.fromarray(values, "RGBA")
    return image.convert("RGB").quantize(16) if mode == "P" else image.convert(mode)


def pixels_of(data: bytes) -> np.ndarray:
    """The values of the first frame, with transparency."""
    image = open_image(data, "image")
    image.load()
    return np.asarray(image if image.mode in ("I;16", "I", "F", "CMYK") else image.convert("RGBA"))


def assert_plain(plain: PlainImage) -> None:
    """A file names nothing and nobody."""
    image = open_image(plain.data, "plain")
    image.load()
    assert SECRET.encode() not in plain.data
    allowed = {ExifTags.Base.Orientation, ExifTags.IFD.Exif}
    if image.format != "TIFF":  # there, tags describe the pixels too
        assert set(image.getexif()) <= allowed
    assert not image.info.keys() & {"comment", "xmp", "XML:com.adobe.xmp", "Author", "photoshop", "mp"}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_image_colours_and_orientation_stay_and_all_else_goes(name: str, orientation: int) -> None:
    data = image_with_exif(name, orientation)
    assert SECRET.encode() in data
    plain = without_metadata(data, "image")
    assert_plain(plain)
    before, after = (open_image(content, "image") for content in (data, plain.data))
    assert after.format == before.format
    assert after.info["icc_profile"] == PROFILE
    assert dict(after.getexif()) == ({} if orientation == 1 else {ExifTags.Base.Orientation: orientation})
    assert decode(plain.data)[0].size == decode(data)[0].size
    assert bool(after.info.get("progressive")) == (name == "progressive")
    assert plain.is_exact
    assert np.array_equal(pixels_of(plain.data), pixels_of(data))


LOSSLESS = {
    **{f"png {mode}": ("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    "png, a transparent colour": ("PNG", "RGB", {"transparency": (1, 2, 3)}),
    "png, transparent palette": ("PNG", "P", {"transparency": bytes((0, 100, 200))}),
    "webp RGBA": ("WEBP", "RGBA", {"lossless": True, "exact": True}),
    "webp, lossy": ("WEBP", "RGBA", {"quality": 60}),
    **{f"gif {mode}": ("GIF", mode, {"comment": SECRET.encode()}) for mode in ("L", "P")},
    "gif, transparent": ("GIF", "P", {"transparency": 3}),
    **{f"bmp {mode}": ("BMP", mode, {}) for mode in ("1", "L", "P", "RGB")},
    **{
        f"tiff {mode}": ("TIFF", mode, {"description": SECRET, "artist": SECRET})
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")
    },
    **{f"ppm {mode}": ("PPM", mode, {}) for mode in ("1", "L", "RGB")},
}


@pytest.mark.parametrize("case", LOSSLESS)
def test_pixels_of_lossless_formats_stay(case: str) -> None:
    image_format, mode, options = LOSSLESS[case]
    data = save(colour_image(mode), image_format, **options)
    plain = without_metadata(data, "image")
    assert_plain(plain)
    assert plain.is_exact
    assert np.array_equal(pixels_of(plain.data), pixels_of(data))
    assert plain_format(image_format) == image_format


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_becomes_its_first_frame(image_format: str) -> None:
    frames = [draw(seed=seed) for seed in range(3)]
    data = animate(image_format, frames, **({"lossless": True} if image_format == "WEBP" else {}))
    plain = without_metadata(data, "image")
    assert not plain.is_exact
    assert np.array_equal(pixels_of(plain.data), pixels_of(data))
    assert getattr(open_image(plain.data, "image"), "n_frames", 1) == 1


def test_further_images_behind_a_jpeg_go() -> None:
    """Phones put a second image with its own EXIF, or a film, behind the first one."""
    first = image_with_exif("baseline")
    multi = save(draw(), "MPO", save_all=True, append_images=[draw(seed=1)], exif=open_image(first, "x").getexif())
    for data in (first + image_with_exif("baseline") + SECRET.encode(), multi):
        plain = without_metadata(data, "image")
        assert_plain(plain)
        assert plain.data.count(b"\xff\xd8\xff") == 1
        assert np.array_equal(pixels_of(plain.data), pixels_of(data))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_modes_keep_their_pixels(mode: str) -> None:
    data = save(draw_image(1).convert(mode), "JPEG", quality=90)
    plain = without_metadata(data, "image")
    assert open_image(plain.data, "image").mode == mode
    assert np.array_equal(pixels_of(plain.data), pixels_of(data))


def test_photographs_keep_their_pixels(shared: object) -> None:
    folder = shared / "data" / "coco_persons" / "images"  # type: ignore[operator]
    paths = sorted(folder.glob("*.jpg"))[:20]
    assert len(paths) == 20
    for path in paths:
        data = path.read_bytes()
        assert np.array_equal(pixels_of(without_metadata(data, path.name).data), pixels_of(data))


@pytest.mark.parametrize("options", [{"restart_marker_rows": 1}, {"optimize": True}, {"progressive": True}])
def test_scans_with_restarts_and_several_scans_are_copied_whole(options: dict[str, object]) -> None:
    data = save(draw_image(4), "JPEG", quality=85, comment=SECRET.encode(), **options)
    filled = data[:2] + b"\xff\xff\xff" + data[3:]  # fill bytes before the first marker
    for content in (data, filled):
        plain = without_metadata(content, "image")
        assert_plain(plain)
        assert np.array_equal(pixels_of(plain.data), pixels_of(data))


def test_a_large_profile_is_split_into_segments() -> None:
    profile = PROFILE + bytes(150_000)
    profile = len(profile).to_bytes(4, "big") + profile[4:]
    data = save(draw_image(4), "JPEG", icc_profile=profile)
    plain = without_metadata(data, "image")
    assert open_image(plain.data, "image").info["icc_profile"] == profile


@pytest.mark.parametrize(
    "extra",
    [
        b"\xff\xe0\x00\x09JFIF\0\x01\x02",  # shorter than a JFIF segment is
        b"\xff\xee\x00\x09Adobe\0\x64",
        b"stray",
        b"\xff\xd0",
        b"\xff\xe5\x00\x00",
        b"\xff\xd3\x00\x1a" + SECRET.encode(),
        b"\xff\xdc\x00\x1a" + SECRET.encode(),
    ],
)
def test_odd_segments_neither_break_a_jpeg_nor_stay(extra: bytes) -> None:
    plain_source = save(draw_image(4), "JPEG", quality=90)
    data = plain_source[:2] + extra + plain_source[2:]
    try:
        expected = pixels_of(data)
    except (ImageError, OSError):
        pytest.skip("this Pillow does not decode it")
    plain = without_metadata(data, "image")
    assert SECRET.encode() not in plain.data
    if plain.is_exact:
        assert np.array_equal(pixels_of(plain.data), expected)
    else:
        assert np.abs(pixels_of(plain.data).astype(int) - expected).mean() < 2


def test_a_jfif_segment_between_scans_does_not_change_colours() -> None:
    source = save(draw_image(4), "JPEG", progressive=True, keep_rgb=True, quality=95)
    scans = [match.start() for match in re.finditer(b"\xff\xda", source)]
    segment = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
    data = source[: scans[2]] + segment + source[scans[2] :]
    plain = without_metadata(data, "image")
    assert np.array_equal(pixels_of(plain.data), pixels_of(data))


@pytest.mark.parametrize(("image_format", "package"), [("AVIF", ""), ("HEIF", "pillow_heif")])
def test_formats_without_a_lossless_writer_become_png(image_format: str, package: str) -> None:
    if package:
        pytest.importorskip(package).register_heif_opener()
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = SECRET
    data = save(draw_image(2), image_format, exif=exif.tobytes())
    plain = without_metadata(data, "image")
    assert_plain(plain)
    assert (open_image(plain.data, "image").format, plain_format(image_format)) == ("PNG", "PNG")
    assert np.array_equal(np.asarray(decode(plain.data)[0]), np.asarray(decode(data)[0]))
    assert not plain.is_exact


def test_a_colour_space_that_pillow_cannot_write_becomes_srgb() -> None:
    """The chunk gAMA of PNG, here of linear light."""
    head, *others = png_chunks(save(draw(), "PNG"))
    data = png_of([head, (b"gAMA", (100_000).to_bytes(4, "big")), *others])
    plain = without_metadata(data, "image")
    assert not plain.is_exact
    assert not np.array_equal(pixels_of(plain.data), pixels_of(data))
    assert np.array_equal(np.asarray(decode(plain.data)[0]), np.asarray(decode(data)[0]))


def test_colours_of_16_bits_become_8_bits_and_are_counted() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, 3)).astype(">u2")
    header = (8).to_bytes(4, "big") * 2 + bytes((16, 2, 0, 0, 0))
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    data = png_of([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])
    plain = without_metadata(data, "image")
    assert not plain.is_exact
    assert np.array_equal(np.asarray(decode(plain.data)[0]), np.asarray(decode(data)[0]))


GREYS = np.random.default_rng(0).integers(0, 2**12, (8, 10), dtype=np.uint16)
COLOURS = np.random.default_rng(0).integers(0, 2**16, (8, 10, 3), dtype=np.uint16)
LINEAR = icc_profile(SRGB, D65, 1.0)
UNUSUAL = {
    "white is zero": tiff_of([page_of(GREYS * 16, photometric=0)]),
    "12 bits": tiff_of([page_of(GREYS, bits=12)]),
    "with a sign": tiff_of([page_of((GREYS * 8).astype(np.int16))]),
    "32 bits": tiff_of([page_of(GREYS.astype(np.uint32) * 2**20)]),
    "floats": tiff_of([page_of(GREYS.astype(np.float32) / 4095)]),
    "floats, white is zero": tiff_of([page_of(GREYS.astype(np.float32) / 4095, photometric=0)]),
    "planes": tiff_of([page_of(COLOURS, is_planar=True)]),
    "inks": tiff_of([page_of(np.dstack([COLOURS, COLOURS[..., 0]]), photometric=5)]),
    "ppm": b"P6 10 8 65535 " + COLOURS.astype(">u2").tobytes(),
    "pgm of 1,023": b"P5 10 8 1023 " + (GREYS // 4).astype(">u2").tobytes(),
    "linear light": tiff_of([with_profile(page_of(COLOURS // 16), LINEAR)]),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_depths_show_the_same_colours_and_are_counted_if_they_change(kind: str) -> None:
    """Values without their sign, their white or their low bytes were almost black, or negative."""
    data = UNUSUAL[kind]
    plain = without_metadata(data, "image")
    assert np.array_equal(np.asarray(decode(plain.data)[0]), np.asarray(decode(data)[0]))
    assert plain.is_exact == (kind == "floats")


def test_an_image_that_would_be_black_is_refused() -> None:
    with pytest.raises(ImageError, match="would be black"):
        without_metadata(tiff_of([page_of(COLOURS // 256)]), "image")


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_adobe_rgb_named_by_exif_stays_without_the_rest(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 65535, 0x9286: b"ASCII\0\0\0" + SECRET.encode(), 0xA005: {1: "R03"}}
    exif[0x010F] = SECRET
    exif[0x0112] = orientation
    data = save(draw(), image_format, exif=exif, **({"lossless": True} if image_format == "WEBP" else {}))
    plain = without_metadata(data, "image")
    assert SECRET.encode() in data
    assert_plain(plain)
    assert names_adobe_rgb(open_image(plain.data, "image"))
    assert np.array_equal(pixels_of(plain.data), pixels_of(data))


def test_an_orientation_after_the_pixels_of_a_png_stays() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = SECRET
    *chunks, end = png_chunks(save(draw_image(1), "PNG", exif=exif.tobytes()))
    data = png_of([*chunks, (b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp), end])
    plain = without_metadata(data, "image")
    assert_plain(plain)
    assert np.array_equal(np.asarray(decode(plain.data)[0]), np.asarray(decode(data)[0]))


@pytest.mark.parametrize("name", FORMATS)
def test_invalid_profiles_are_dropped(name: str) -> None:
    data = image_with_exif(name, profile=SECRET.encode() * 8)
    plain = without_metadata(data, "image")
    assert_plain(plain)
    assert not open_image(plain.data, "image").info.get("icc_profile")


@pytest.mark.thorough
@settings(max_examples=100)
@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 2000), st.binary(min_size=1, max_size=4))
def test_damaged_files_give_a_plain_file_or_an_error(name: str, start: int, junk: bytes) -> None:
    data = image_with_exif(name)
    start %= len(data)
    for changed in (data[:start], data[:start] + junk + data[start + len(junk) :]):
        with contextlib.suppress(ImageError):
            assert SECRET.encode() not in without_metadata(changed, "image").data


@pytest.mark.thorough
@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files_give_a_plain_file_or_an_error(name: str) -> None:
    rng = random.Random(0)
    data = image_with_exif(name)
    others = [image_with_exif(other) for other in FORMATS]
    for _ in range(100):
        with contextlib.suppress(ImageError):
            plain = Image.open(io.BytesIO(without_metadata(mutate_bytes(data, others, rng), "image").data))
            assert set(plain.getexif()) <= {ExifTags.Base.Orientation, ExifTags.IFD.Exif}


def test_an_image_that_is_cut_off_is_refused() -> None:
    data = image_with_exif("baseline")
    with pytest.raises(ImageError, match=r"a\.jpg: cut off or corrupt"):
        without_metadata(data[:-200], "a.jpg")
