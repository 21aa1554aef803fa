"""Files that would keep a decoder busy for long are refused by their bytes; those at the limit are read."""

import struct
import zlib

import pytest
from PIL import Image

from tests.hostile_images import after_the_start, animated_webp, jpeg_in_tiff, progressive_jpeg, tiled_tiff, webp_of
from tests.images import animate, draw, every_file, png_chunks, png_of, save
from uniemox.errors import ImageError
from uniemox.io import image_limits
from uniemox.io.image_limits import check_bytes, webp_pixels
from uniemox.io.images import decode

IMAGE = draw()
JPEG = save(IMAGE, "JPEG")
GIF = save(IMAGE, "GIF")
PNG = png_chunks(save(IMAGE, "PNG"))
GIF_START = 13 + (3 << (GIF[10] & 7) + 1)
FRAME = GIF.index(b",", GIF_START)
OWN_SCANS = progressive_jpeg(0, 64, 64).count(b"\xff\xda")


def png_with(count: int) -> bytes:
    """So many chunks in all, one of them the last."""
    return png_of([PNG[0], *[(b"abCd", b"")] * (count - len(PNG)), *PNG[1:]])


def png_with_texts(kind: bytes, count: int) -> bytes:
    """So many chunks that Pillow unpacks, with wrong checksums: those count against no limit of its own."""
    packed = zlib.compress(bytes(1000))[:-4] + b"abcd"
    text = b"a\0\0" if kind != b"iTXt" else b"a\0\1\0\0\0"
    return png_of([PNG[0], *[(kind, text + packed)] * count, *PNG[1:]])


def jpeg_with(piece: bytes, times: int) -> bytes:
    return after_the_start(JPEG, 2, piece * times)


def jpeg_ending(piece: bytes) -> bytes:
    """A JPEG with more between its scan and its end."""
    return (data := jpeg_with(b"", 0))[:-2] + piece + data[-2:]


def gif_with(piece: bytes) -> bytes:
    return after_the_start(GIF, GIF_START, piece)


def tiff_of_strips(count: int, pages: int = 1) -> bytes:
    """A grey TIFF of 64 rows with so many strips of one row, and as many directories as pages."""
    content = bytes(range(64)) + struct.pack(f"<{count}I", *[8] * count) + struct.pack(f"<{count}I", *[64] * count)
    offsets, lengths = (8, 64) if count == 1 else (72, 72 + 4 * count)
    tags = [(256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, count, offsets)]
    tags += [(277, 3, 1, 1), (278, 3, 1, 1 if count > 1 else 64), (279, 4, count, lengths)]
    first = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    at = 8 + len(content)
    starts = [at, *(at + len(first) + 4 + 6 * i for i in range(pages - 1)), 0]
    bodies = [first, *[struct.pack("<H", 0)] * (pages - 1)]
    directories = b"".join(one + struct.pack("<I", next_at) for one, next_at in zip(bodies, starts[1:], strict=True))
    return b"II*\0" + struct.pack("<I", at) + content + directories


def test_a_large_pfm_of_colours_is_of_an_unknown_format() -> None:
    data = b"PF\n100 100\n-1.0\n" + bytes(120_000)
    with pytest.raises(ImageError, match="not an image of a known format"):
        decode(data)


def ppm_with(comment: int) -> bytes:
    return b"P6\n" + b"#" * comment + b"\n10 10 255\n" + bytes(600)


@pytest.mark.parametrize(
    ("just_read", "refused", "why"),
    [
        (*(progressive_jpeg(count - OWN_SCANS, 64, 64) for count in (100, 101)), "more than 100 scans"),
        (*(jpeg_with(b"\xff\xe5\x00\x02", count) for count in (9_000, 10_000)), "more than 10,000 segments"),
        (*(jpeg_ending(b"\xff\xfe\x00\x02" * count) for count in (9_000, 10_000)), "more than 10,000 segments"),
        (*(jpeg_with(b"\xff", count) for count in (65_536, 65_537)), "more than 65,536 bytes between"),
        (*(jpeg_with(b"\xff\x00", count) for count in (32_768, 32_769)), "more than 65,536 bytes between"),
        (png_with(50_000), png_with(50_001), "more than 50,000 chunks"),
        *((*(png_with_texts(kind, count) for count in (100, 101)), "more than 100 iCCP, zTXt and iTXt chunks")
          for kind in (b"iCCP", b"zTXt", b"iTXt")),
        (*(jpeg_with(b"\xff\xe1\x00\x0aExif\0\0aa", count) for count in (100, 101)), "more than 100 Exif segments"),
        (*(gif_with(b"!\xfe" + b"\1a" * count + b"\0") for count in (49_000, 50_000)), "more than 50,000 blocks"),
        (gif_with(bytes(49_000)), gif_with(bytes(50_000)), "more than 50,000 blocks"),
        (ppm_with(65_000), ppm_with(65_536), "a header of more than 65,536 bytes"),
        (b"P1\n200 200\n" + b"1 " * 40_000, b"P1\n3000 3000\n" + b"1" * 9_000_000, "a PPM in text of 9 MiB"),
        *((tiff_of_strips(128), tiff_of_strips(count), why) for count, why in
          ((200, "200 strips or tiles, where 64 are enough"), (200_001, "more than 200,000 values for tag 273"))),
        *((tiff_of_strips(1, pages=pages), tiff_of_strips(1, pages=more), why) for pages, more, why in
          ((5_000, 5_001, "more than 5,000 pages"),)),
        (tiled_tiff(64, 2048), tiled_tiff(64, 2064), "tiles of 2064 x 2064 px in an image of 4,096 px"),
    ],
)  # fmt: skip
def test_a_file_at_the_limit_is_read_and_one_beyond_is_not(just_read: bytes, refused: bytes, why: str) -> None:
    assert decode(just_read)[0].mode == "RGB"
    with pytest.raises(ImageError, match=f"^a/b.jpg: {why}"):
        decode(refused, "a/b.jpg")


def test_scans_times_pixels_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    data = progressive_jpeg(20, 100, 80)
    monkeypatch.setattr(image_limits, "MAX_SCANNED_PIXELS", (20 + OWN_SCANS) * 8000)
    decode(data)
    monkeypatch.setattr(image_limits, "MAX_SCANNED_PIXELS", (20 + OWN_SCANS) * 8000 - 1)
    with pytest.raises(ImageError, match="megapixels in all its scans"):
        decode(data)


def test_scans_of_jpegs_in_a_tiff_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg_in_tiff(20, 64)
    monkeypatch.setattr(image_limits, "MAX_SCANNED_PIXELS", (20 + OWN_SCANS) * 64 * 64)
    assert decode(data)[1] == (64, 64)
    monkeypatch.setattr(image_limits, "MAX_SCANNED_PIXELS", (20 + OWN_SCANS) * 64 * 64 - 1)
    with pytest.raises(ImageError, match="all scans of its strips"):
        decode(data)


def test_scans_in_thumbnails_and_behind_the_end_do_not_count() -> None:
    """An EXIF thumbnail is a JPEG in a segment; an MPO's further images follow the end of the first."""
    thumbnail = b"Exif\0\0" + progressive_jpeg(200, 64, 64)
    inside = after_the_start(JPEG, 2, b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail)
    for data in (inside, JPEG + progressive_jpeg(200, 64, 64), animate("MPO", [IMAGE] * 30)):
        check_bytes(data, "a")
        assert decode(data)[1] == (60, 44)


def test_markers_are_found_as_libjpeg_finds_them() -> None:
    """Fill bytes before a marker, stuffed bytes and restarts inside a scan."""
    hostile = progressive_jpeg(200, 64, 64).replace(b"\xff\xda", b"\xff\xff\xff\xda")
    with pytest.raises(ImageError, match="more than 100 scans"):
        check_bytes(hostile, "a")
    restarts = save(draw(400, 300), "JPEG", restart_marker_blocks=1)
    assert restarts.count(b"\xff\xd0") > 50
    check_bytes(restarts, "a")


@pytest.mark.parametrize("name", every_file())
def test_every_format_passes_cut_anywhere_without_another_error(name: str) -> None:
    data = every_file()[name]
    for end in range(0, len(data), max(1, len(data) // 200)):
        check_bytes(data[:end], name)
        webp_pixels(data[:end])


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"quality": 80}, {"lossless": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}]
)
def test_pixels_of_a_webp(options: dict[str, object]) -> None:
    assert webp_pixels(save(draw(123, 77), "WEBP", **options)) == 123 * 77
    assert webp_pixels(JPEG) == 0


def test_small_files_may_not_take_much_memory() -> None:
    small = save(IMAGE, "WEBP", lossless=True)[12:]
    large = animated_webp(9900, 60, small)
    with pytest.raises(ImageError, match=r"9900 x 9900 px in \d+ bytes; a WEBP of that size takes 1588 MiB"):
        decode(large, "a")
    header = struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)
    png = png_of([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")])
    with pytest.raises(ImageError, match="a PNG of that size takes 617 MiB, and files below 10 MiB may take 600"):
        decode(png, "a")
    with pytest.raises(ImageError, match="cut off or corrupt"):  # a file of its size may hold so many pixels
        decode(png + bytes(10 * 2**20), "a")


def test_frames_of_a_webp_are_no_larger_than_its_canvas() -> None:
    content = save(Image.new("RGB", (2000, 2000)), "WEBP", lossless=True)[12:]
    for data in (animated_webp(64, 2000, content), animated_webp(64, 64, content)):
        with pytest.raises(ImageError, match="can't be read"):
            decode(data)
    chunk = content[8 : 8 + struct.unpack("<I", content[4:8])[0]]
    with pytest.raises(ImageError, match="can't be read"):
        decode(webp_of([(b"VP8X", bytes(4) + b"\x3f\0\0" * 2), (b"VP8L", chunk)]))


def test_a_gif_is_as_large_as_its_first_frame_needs() -> None:
    far_off = GIF[: FRAME + 1] + struct.pack("<HH", 9000, 9000) + GIF[FRAME + 5 :]
    with pytest.raises(ImageError, match="9060 x 9044 px"):
        decode(far_off)
