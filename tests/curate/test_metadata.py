"""What files say beside the image is taken out; pixels, colours and orientation stay."""

import contextlib
import io
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from tests.drawn import draw_image
from tests.images import draw, png_chunks, png_of, save
from tools.file_mutations import mutate_bytes
from uniemox.curate.release.metadata import orientation_of, without_metadata
from uniemox.errors import ImageError
from uniemox.io.colour import names_adobe_rgb
from uniemox.io.images import decode, open_image

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cleaned(data: bytes, orientation: int = 1) -> bytes:
    """The file without metadata, which it must give."""
    plain = without_metadata(data, orientation)
    assert plain is not None
    return plain


def assert_same_pixels(before: bytes, after: bytes) -> None:
    assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(one))) for one in (before, after)))


def assert_same_colours(profile: bytes) -> None:
    """The profile turns colours as PROFILE does, and names nothing and nobody."""
    lab = ImageCms.createProfile("LAB")
    image = draw_image(5)
    old, new = (
        ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(data)), lab, outputMode="LAB")
        for data in (PROFILE, profile)
    )
    assert old.tobytes() == new.tobytes()
    assert b"desc" in PROFILE
    assert not any(word in profile for word in (b"desc", b"cprt", b"mmod", b"sRGB", b"Jane"))


def test_a_profile_keeps_no_device_and_no_private_tag() -> None:
    """Such as the maker, the model and the serial number of a display, in the tag mmod of macOS."""
    count = int.from_bytes(PROFILE[128:132], "big")
    extra = b"mmod" + bytes(4) + b"Jane's display 0815"
    shift = 24
    table = b"".join(
        struct.pack(">4sII", name, at + shift, size)
        for name, at, size in (struct.unpack_from(">4sII", PROFILE, 132 + 12 * i) for i in range(count))
    )
    place = len(PROFILE) + shift
    table += struct.pack(">4sII", b"mmod", place, len(extra)) + struct.pack(">4sII", b"zzzz", place, len(extra))
    private = PROFILE[:48] + b"Jane" + b"Doe0" + PROFILE[56:128] + struct.pack(">I", count + 2) + table
    private += PROFILE[132 + 12 * count :] + extra
    private = struct.pack(">I", len(private)) + private[4:]
    for fmt in ("JPEG", "PNG", "WEBP"):
        plain = cleaned(saved(fmt, icc_profile=private))
        assert_same_colours(Image.open(io.BytesIO(plain)).info["icc_profile"])


def test_a_profile_whose_tags_overlap_is_dropped() -> None:
    """Otherwise 200 tags of the same MiB would be written 200 times."""
    body = (b"curv" + bytes(4) + struct.pack(">I", 2**18) + bytes(4)) * 2**16
    names = [b"rTRC", b"gTRC", b"bTRC"] * 66
    table = b"".join(
        struct.pack(">4sII", name, 132 + 12 * len(names) + 16 * i, 2**19 + 16) for i, name in enumerate(names)
    )
    profile = PROFILE[4:128] + struct.pack(">I", len(names)) + table + body
    profile = struct.pack(">I", len(profile) + 4) + profile
    plain = cleaned(saved("WEBP", icc_profile=profile))
    assert "icc_profile" not in Image.open(io.BytesIO(plain)).info


def test_a_small_image_of_jfif_goes_and_its_colours_stay() -> None:
    """Without JFIF, decoders would follow Adobe's word that the values are RGB."""
    data = saved("JPEG")
    small = b"JFIF\0\1\1\0\0\1\0\1\2\2" + b"Jane Doe 123"
    start = b"\xff\xe0" + struct.pack(">H", len(small) + 2) + small + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
    assert data[2:4] == b"\xff\xe0"
    whole = data[:2] + start + data[2 + 2 + int.from_bytes(data[4:6], "big") :]
    plain = cleaned(whole)
    assert b"Jane Doe 123" not in plain
    assert_same_pixels(whole, plain)


@pytest.mark.parametrize("place", ["end", "comment of length 0", "comment of length 1"])
def test_faults_that_decoders_accept_keep_nothing(place: str) -> None:
    data = save(Image.effect_noise((64, 64), 60), "JPEG", comment=b"Secret")
    at = data.index(b"\xff\xda")
    if place == "end":
        data = data[:-2]
    else:
        data = data[:at] + b"\xff\xfe\0" + bytes((int(place[-1]),)) + data[at:]
    plain = cleaned(data)
    assert b"Secret" not in plain
    assert_same_pixels(data, plain)


def test_a_segment_inside_a_scan_is_damage() -> None:
    """Decoders stop there; without it they would go on, and show another image."""
    data = saved("JPEG", restart_marker_rows=1)
    at = data.index(b"\xff\xd0")
    assert without_metadata(data, 1) is not None
    assert without_metadata(data[:at] + b"\xff\xfe\0\x06Jane" + data[at:], 1) is None


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
    return saved(fmt, exif=exif, icc_profile=PROFILE, **settings, **more)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_only_pixels_colours_and_orientation_stay(name: str, orientation: int) -> None:
    data = told(name, orientation)
    assert b"Secret" in data
    assert orientation_of(data) == orientation
    plain = cleaned(data, orientation)
    assert b"Secret" not in plain
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(plain)) as after:
        assert np.array_equal(np.asarray(before), np.asarray(after))
        assert_same_colours(after.info["icc_profile"])
        assert dict(after.getexif()) == ({} if orientation == 1 else {ExifTags.Base.Orientation: orientation})
        assert ImageOps.exif_transpose(after).size == ImageOps.exif_transpose(before).size
    assert without_metadata(plain, orientation) == plain


def test_bytes_after_a_jpeg_are_removed() -> None:
    """Phones put a second image, or a film, behind the first."""
    data = told("baseline")
    assert without_metadata(data + told("baseline") + b"Secret film", 1) == without_metadata(data, 1)


def test_other_formats_are_not_changed() -> None:
    for fmt in ("GIF", "BMP", "TIFF"):
        assert without_metadata(save(draw_image(0), fmt), 1) is None
    assert without_metadata(b"no image", 1) is None


@settings(max_examples=200)
@given(st.sampled_from(sorted(FORMATS)), st.integers(0, 2000), st.binary(min_size=1, max_size=4))
def test_damaged_files_give_a_file_or_none(name: str, place: int, junk: bytes) -> None:
    data = bytearray(told(name))
    place %= len(data)
    for changed in (data[:place], data[:place] + junk + data[place + len(junk) :]):
        found = without_metadata(bytes(changed), 6)
        assert found is None or len(found) < len(data) + 200


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_with(*chunks: bytes) -> bytes:
    """A PNG with chunks behind its header."""
    data = saved("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


@pytest.mark.parametrize(
    "exif", [b"", b"no TIFF at all", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff" + b"a" * 40]
)
def test_invalid_exif_is_ignored(exif: bytes) -> None:
    data = png_with(chunk(b"eXIf", exif))
    assert orientation_of(data) == 1
    assert without_metadata(data, 1) == without_metadata(png_with(), 1)


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files_have_an_orientation_or_are_no_images(name: str) -> None:
    rng = random.Random(0)
    data = told(name)
    others = [told(other) for other in FORMATS]
    for _ in range(200):
        with contextlib.suppress(ImageError):
            assert orientation_of(mutate_bytes(data, others, rng)) in range(1, 9)


def test_photographs(shared: object) -> None:
    folder = shared / "data" / "coco_persons" / "images"  # type: ignore[operator]
    for path in sorted(folder.glob("*.jpg"))[:20]:
        data = path.read_bytes()
        plain = cleaned(data, orientation_of(data))
        assert_same_pixels(data, plain)


def test_unlisted_png_chunks_are_left_out() -> None:
    """C2PA's author and tools, previews, vendors' own, text behind a profile, and the profile's name."""
    named = chunk(b"iCCP", b"Jane Doe's camera\0\0" + zlib.compress(PROFILE) + b"taken at home")
    others = [chunk(name, b"Jane Doe") for name in (b"caBX", b"prVW", b"mkBS", b"gIFx", b"iDOT", b"sPLT", b"zzZz")]
    found = cleaned(png_with(named, *others))
    assert b"Jane" not in found
    assert b"home" not in found
    opened = Image.open(io.BytesIO(found))
    opened.load()
    assert_same_colours(opened.info["icc_profile"])


def test_unlisted_jpeg_segments_and_webp_chunks_are_left_out() -> None:
    """Bytes behind what decoders read of Adobe's segment, and markers that are reserved; WebP's unknown chunks."""
    data = save(draw_image(3).convert("CMYK"), "JPEG")
    at = data.index(b"\xff\xee")
    adobe = data[at + 4 : at + 16] + b"Jane Doe"
    reserved = b"\xff\xf7" + struct.pack(">H", 10) + b"Jane Doe"
    told = data[:at] + struct.pack(">BBH", 0xFF, 0xEE, len(adobe) + 2) + adobe + reserved + data[at + 16 :]
    found = cleaned(told)
    assert b"Jane" not in found
    assert_same_pixels(data, found)

    data = save(draw_image(3), "WEBP", exif=b"Exif\0\0") + struct.pack("<4sI", b"note", 8) + b"Jane Doe"
    data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    found = cleaned(data)
    assert b"Jane" not in found
    Image.open(io.BytesIO(found)).load()


def saved(fmt: str, **settings: object) -> bytes:
    return save(draw_image(3).resize((90, 61)), fmt, **settings)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def in_frame() -> bytes:
    """A film in WebP with a chunk of its own inside its first frame."""
    data = saved("WEBP", save_all=True, append_images=[draw_image(4).resize((90, 61))])
    at = data.index(b"ANMF") + 4
    (length,) = struct.unpack_from("<I", data, at)
    end = at + 4 + length + length % 2
    told = struct.pack("<4sI", b"EXIF", 8) + b"Jane Doe"
    data = data[:at] + struct.pack("<I", end - at - 4 + len(told)) + data[at + 4 : end] + told + data[end:]
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


EXIF_OF_JANE = segment(0xE1, b"Exif\0\0Jane Doe")
HIDDEN = {
    **{f"behind a profile, {fmt}": saved(fmt, icc_profile=PROFILE + b"Jane Doe") for fmt in ("JPEG", "PNG", "WEBP")},
    **{f"no profile, {fmt}": saved(fmt, icc_profile=b"Jane Doe" * 20) for fmt in ("JPEG", "PNG", "WEBP")},
    "behind a byte between segments": saved("JPEG").replace(b"\xff\xdb", b"\0\xff\0" + EXIF_OF_JANE + b"\xff\xdb", 1),
    "lines of JPEG": saved("JPEG").replace(b"\xff\xdb", segment(0xDC, b"Jane Doe") + b"\xff\xdb", 1),
    **{f"long {name}": png_with(chunk(name.encode(), bytes(4) + b"Jane Doe")) for name in ("gAMA", "sRGB", "sBIT")},
    "beside a damaged profile": png_with(chunk(b"iCCP", b"x\0\0damaged"), chunk(b"tEXt", b"Author\0Jane Doe")),
    "PNG that is cut off": png_with(chunk(b"tEXt", b"Author\0Jane Doe"))[:-4],
    "frame of WebP": in_frame(),
}


@pytest.mark.parametrize("where", HIDDEN)
def test_text_where_only_pixels_and_colours_belong_is_left_out(where: str) -> None:
    data = HIDDEN[where]
    assert b"Jane" in data or "profile, PNG" in where  # packed there
    found = cleaned(data)
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(found)) as after:
        np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
        if "behind a profile" in where:
            assert_same_colours(after.info["icc_profile"])
        else:
            assert not after.info.get("icc_profile")
    assert b"Jane" not in found


JANE = b"Jane Doe GPS 48.137N 11.575E"


def profile_with(name: bytes, content: bytes) -> bytes:
    """PROFILE with one tag of another content."""
    count = int.from_bytes(PROFILE[128:132], "big")
    tags = {
        tag: PROFILE[at : at + size] for tag, at, size in struct.iter_unpack(">4sII", PROFILE[132 : 132 + 12 * count])
    }
    tags[name] = content
    table = struct.pack(">I", len(tags))
    values = b""
    for tag, value in tags.items():
        table += struct.pack(">4sII", tag, 132 + 12 * len(tags) + len(values), len(value))
        values += value + bytes(-len(value) % 4)
    whole = PROFILE[4:128] + table + values
    return struct.pack(">I", len(whole) + 4) + whole


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "profile",
    [
        PROFILE[:100] + JANE + PROFILE[128:],
        profile_with(b"wtpt", b"XYZ " + bytes(16) + JANE),
        profile_with(b"rTRC", b"para" + bytes(4) + bytes(2) + bytes(2) + b"\0\1\0\0" + JANE),
        profile_with(b"bkpt", b"text" + bytes(4) + JANE),
        profile_with(b"A2B3", JANE * 9),
        profile_with(b"cicp", b"cicp" + bytes(8) + JANE),
        PROFILE[:128] + struct.pack(">I", 60) + b"wtpt" + JANE,
        PROFILE[:128] + b"\xff\xff\xff\xff" + JANE,
    ],
    ids=["head", "after a point", "after a curve", "text", "table", "cicp", "cut off", "number of tags"],
)
def test_no_text_stays_in_a_profile(profile: bytes, fmt: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = JANE.decode()
    plain = cleaned(saved(fmt, icc_profile=profile, exif=exif))
    held = Image.open(io.BytesIO(plain)).info.get("icc_profile", b"")
    assert JANE not in plain
    assert JANE not in held


def test_no_second_bitstream_and_no_unused_palette_stay() -> None:
    webp = saved("WEBP", lossless=True)
    for name in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF", b"ANIM"):
        more = webp[8:] + name + struct.pack("<I", len(JANE)) + JANE
        plain = cleaned(b"RIFF" + struct.pack("<I", len(more)) + more)
        assert JANE not in plain
        assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(one))) for one in (webp, plain)))
    for name, content in ((b"PLTE", JANE + b"\0\0"), (b"tRNS", bytes(6) + JANE)):
        plain = cleaned(png_with(chunk(name, content)))
        assert JANE not in plain


def test_palettes_that_are_too_long_are_cut() -> None:
    image = Image.effect_noise((16, 16), 60).quantize(16)
    head, palette, *rest = png_chunks(save(image, "PNG", bits=4))
    assert (head[1][8], palette[0]) == (4, b"PLTE")
    data = png_of([head, (b"PLTE", palette[1][:48].ljust(48, b"\0") + bytes(720)), *rest])
    plain = cleaned(data)
    assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in (data, plain)))


def test_a_png_whose_header_is_not_its_first_chunk_stays_as_it_is() -> None:
    """Decoders differ in what they make of it; without its palette it would be black."""
    head, *rest = png_chunks(save(Image.effect_noise((16, 16), 60).quantize(16), "PNG"))
    as_rgb = head[1][:9] + bytes((2,)) + head[1][10:]
    for chunks in ([(b"tEXt", b"Author\0" + JANE), head], [head, head], [(b"IHDR", as_rgb), head], []):
        assert without_metadata(png_of([*chunks, *rest]), 1) is None


def test_an_orientation_after_the_pixels_of_a_png_stays() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Secret"
    chunks = png_chunks(save(draw_image(1), "PNG", exif=exif.tobytes()))
    data = png_of([*chunks[:-1], (b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp), chunks[-1]])
    plain = cleaned(data, orientation_of(data))
    assert b"Secret" not in plain
    assert np.array_equal(*(np.asarray(decode(one)[0]) for one in (data, plain)))


def test_frames_of_a_png_with_bytes_too_many_stay_readable() -> None:
    image = Image.effect_noise((16, 16), 60).convert("RGB")
    chunks = png_chunks(save(image, "PNG", save_all=True, append_images=[image.rotate(90)]))
    data = png_of([(name, content + b"x" * (name == b"fcTL")) for name, content in chunks])
    plain = cleaned(data)
    assert png_chunks(plain) == chunks


def test_a_png_whose_header_is_too_long_stays_readable() -> None:
    head, *rest = png_chunks(save(draw_image(1), "PNG"))
    data = png_of([(b"IHDR", head[1] + b"x"), *rest])
    plain = cleaned(data)
    assert png_chunks(plain)[0] == head
    assert_same_pixels(data, plain)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
def test_adobe_rgb_named_by_exif_stays_without_the_rest(fmt: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 65535, 0x9286: b"ASCII\0\0\0secret", 0xA005: {1: "R03"}}
    exif[0x010F], exif[0x0112] = "secret", orientation
    data = save(draw(), fmt, exif=exif, **({"lossless": True} if fmt == "WEBP" else {}))
    plain = without_metadata(data, orientation)
    assert plain is not None
    assert b"secret" in data
    assert b"secret" not in plain
    assert np.array_equal(np.asarray(decode(plain)[0]), np.asarray(decode(data)[0]))
    assert names_adobe_rgb(open_image(plain, "x"))
    assert not names_adobe_rgb(open_image(save(draw(), fmt), "x"))
