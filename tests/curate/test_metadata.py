"""What files say beside the image is taken out; pixels, colours and orientation stay."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from tests.drawn import draw_image
from uniemox.curate.release.metadata import orientation_of, without_metadata

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FORMATS = {
    "baseline": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True, "quality": 95}),
    "restarts": ("JPEG", {"restart_marker_blocks": 3}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 70}),
    "lossless webp": ("WEBP", {"lossless": True}),
}


def told(name: str, orientation: int = 6) -> bytes:
    """An image whose file says where it was taken, by whom, and more."""
    fmt, settings = FORMATS[name]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "Secret Name"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "Secret"
    more: dict[str, object] = {"comment": b"Secret comment"} if fmt == "JPEG" else {"xmp": b"<x>Secret</x>"}
    if fmt == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Author", "Secret")
        texts.add_itxt("Place", "Secret")
        more = {"pnginfo": texts}
    buffer = io.BytesIO()
    draw_image(3).resize((90, 61)).save(buffer, fmt, exif=exif, icc_profile=PROFILE, **settings, **more)
    return buffer.getvalue()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_pixels_colours_and_orientation_stay_and_nothing_else(name: str, orientation: int) -> None:
    data = told(name, orientation)
    assert b"Secret" in data
    assert orientation_of(data) == orientation
    plain = without_metadata(data, orientation)
    assert plain is not None
    assert b"Secret" not in plain
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(plain)) as after:
        assert np.array_equal(np.asarray(before), np.asarray(after))
        assert after.info["icc_profile"] == PROFILE
        assert dict(after.getexif()) == ({} if orientation == 1 else {ExifTags.Base.Orientation: orientation})
        assert ImageOps.exif_transpose(after).size == ImageOps.exif_transpose(before).size
    assert without_metadata(plain, orientation) == plain


def test_what_follows_a_jpeg_goes() -> None:
    """Phones put a second image, or a film, behind the first."""
    data = told("baseline")
    assert without_metadata(data + told("baseline") + b"Secret film", 1) == without_metadata(data, 1)


def test_other_formats_are_left_to_whoever_asks() -> None:
    for fmt in ("GIF", "BMP", "TIFF"):
        buffer = io.BytesIO()
        draw_image(0).save(buffer, fmt)
        assert without_metadata(buffer.getvalue(), 1) is None
    assert without_metadata(b"no image", 1) is None


@settings(max_examples=200)
@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 2000), st.binary(min_size=1, max_size=4))
def test_damaged_files_give_a_file_or_none(name: str, place: int, junk: bytes) -> None:
    data = bytearray(told(name))
    place %= len(data)
    for changed in (data[:place], data[:place] + junk + data[place + len(junk) :]):
        found = without_metadata(bytes(changed), 6)
        assert found is None or len(found) < len(data) + 200


def test_photographs(shared: object) -> None:
    folder = shared / "data" / "coco_persons" / "images"  # type: ignore[operator]
    for path in sorted(folder.glob("*.jpg"))[:20]:
        data = path.read_bytes()
        plain = without_metadata(data, orientation_of(data))
        assert plain is not None
        with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(plain)) as after:
            assert np.array_equal(np.asarray(before), np.asarray(after))
