"""What is no image, or is broken, cut off, too large or misnamed, is refused in one kind of error."""

import io
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.images import draw, png_chunks, png_header, png_of, save
from tests.io.test_images import FILES, difference
from uniemox.errors import ImageError, UniemoxError
from uniemox.io import images
from uniemox.io.images import decode, is_image_name


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "photos/a.jpg: the file is empty"),
        (b"\0", "photos/a.jpg: not an image of a known format"),
        (b"This image is no longer available\n" * 20, "photos/a.jpg: not an image of a known format"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "photos/a.jpg: not an image of a known format"),
        (b"\xff\xd8\xff", "photos/a.jpg: "),
        (b"\x89PNG\r\n\x1a\n", "photos/a.jpg: "),
        (b"GIF89a", "photos/a.jpg: "),
        (b"%PDF-1.7\n", "photos/a.jpg: not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "photos/a.jpg: not an image of a known format"),
    ],
)
def test_what_is_no_image_is_refused_with_its_name(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=re.escape(message)):
        decode(data, "photos/a.jpg")


def test_formats_that_are_not_accepted_are_refused() -> None:
    for fmt in ("ICO", "TGA", "PCX", "SGI", "JPEG2000"):
        with pytest.raises(ImageError, match=r"a: not an image of a known format \(JPEG, PNG, WEBP, GIF, BMP, TIFF"):
            decode(save(draw(), fmt), "a")


def test_a_fresh_process_refuses_and_decodes_alike(tmp_path: Path) -> None:
    """Pillow loads its formats only when they are asked for: what comes first must not matter."""
    (tmp_path / "a.avif").write_bytes(FILES["avif"])
    code = (
        "import sys; from pathlib import Path\n"
        "from uniemox.errors import ImageError; from uniemox.io.images import decode\n"
        "try: decode(b'text')\n"
        "except ImageError as error: print(str(error)[:22])\n"
        "print(decode(Path(sys.argv[1]).read_bytes())[1])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.avif")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout.splitlines() == ["image: not an image of", "(60, 44)"], run.stderr


# Files that may be cut after these many bytes: what is behind are checksums, an end mark, or further frames.
WHOLE_BEFORE_THE_END = {"png": 25, "gif": 2, "tiff": 12, "frames": 10**6}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of cut-off EXIF
def test_cut_off_files_are_refused_or_decoded_completely(name: str) -> None:
    data = FILES[name]
    complete = np.asarray(decode(data)[0])
    spare = max((n for part, n in WHOLE_BEFORE_THE_END.items() if part in name), default=0)
    refused = 0
    for cut in (*range(1, len(data), max(1, len(data) // 40)), len(data) - 1, len(data) - 9):
        try:
            image, _ = decode(data[:cut], "cut.file")
        except ImageError as error:
            assert str(error).startswith("cut.file: ")
            refused += 1
        else:
            assert np.array_equal(np.asarray(image), complete), f"half an image from {cut} of {len(data)} bytes"
            assert len(data) - cut <= spare
    assert refused >= (10 if spare else 40)


def test_a_png_with_corrupt_pixels_is_refused() -> None:
    """The chunk's checksum is right, the compressed pixels are not; looking for EXIF behind them must not hide it."""
    chunks = png_chunks(save(draw(), "PNG"))
    (idat,) = [i for i, (name, _) in enumerate(chunks) if name == b"IDAT"]
    pixels = chunks[idat][1]
    refused = 0
    for at in range(10, len(pixels) - 40, len(pixels) // 20):
        broken = pixels[:at] + b"\xff" * 30 + pixels[at + 30 :]
        with pytest.raises(ImageError, match=r"b\.png: cut off or corrupt"):
            decode(png_of([*chunks[:idat], (b"IDAT", broken), *chunks[idat + 1 :]]), "b.png")
        refused += 1
    assert refused >= 15


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_zeros_instead_of_the_end_of_a_png_are_no_pixels(share: float) -> None:
    """An interrupted download in a file of the full size: zeros decode as black rows; only the checksum is wrong.

    Of other images, zeros are no valid rows, and the decoder stops.
    """
    colours = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    data = save(Image.fromarray(colours).resize((160, 120), Image.Resampling.BICUBIC), "PNG")
    cut = int(share * len(data))
    zeros = data[:cut] + bytes(len(data) - cut)
    Image.open(io.BytesIO(zeros)).load()
    with pytest.raises(ImageError, match=r"b\.png: cut off or corrupt \(its pixels have another checksum\)"):
        decode(zeros, "b.png")


@pytest.mark.parametrize("size", [(50_000, 50_000), (20_000, 20_000), (10_001, 10_000), (50_001, 600)])
def test_decompression_bombs_are_refused_from_their_header(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=r"bomb\.png: .*more than the 100 megapixels that are decoded.*scale it down"):
        decode(png_header(*size), "bomb.png")


@pytest.mark.thorough
def test_a_real_bomb_is_refused_without_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """12,000 x 12,000 px in a file of 0.4 MB; Pillow's own limit lies above it."""
    row = bytes(1 + 3 * 12_000)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(12_000)) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b"")]
    data = png_of(chunks)
    assert len(data) < 600_000
    loaded = []
    monkeypatch.setattr(Image.Image, "load", loaded.append)
    with pytest.raises(ImageError, match="12000 x 12000 px is more than the 100 megapixels"):
        decode(data, "bomb.png")
    assert loaded == []


@pytest.mark.parametrize("size", [(1001, 10), (3, 400)])
def test_strips_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=rf"s\.png: {size[0]} x {size[1]} px is a strip, not a scene"):
        decode(save(Image.new("RGB", size), "PNG"), "s.png")


@pytest.mark.parametrize("size", [(1, 1), (100, 1), (1, 100), (1000, 10)])
def test_small_and_long_images_are_decoded(size: tuple[int, int]) -> None:
    assert decode(save(Image.new("RGB", size, (1, 2, 3)), "PNG"))[0].getpixel((0, 0)) == (1, 2, 3)


def test_files_of_more_than_100_mib_are_refused() -> None:
    assert images.MAX_BYTES == 100 * 2**20
    data = save(draw(), "BMP")
    with pytest.raises(ImageError, match=r"large\.bmp: 100 MiB, more than the 100 MiB that are read"):
        decode(data + bytes(images.MAX_BYTES + 1 - len(data)), "large.bmp")


def test_a_wrong_file_ending_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(save(draw(), "PNG"))
    assert difference(decode(path.read_bytes(), str(path))[0], draw()) == 0


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPEG", "a.b.Png", "a.tif", "a.webp", "a.avif", "a.mpo", "a.pgm", "a.jfif"]
)
def test_image_names_are_recognised(name: str) -> None:
    assert is_image_name(Path(name))


@pytest.mark.parametrize("name", ["a.txt", "jpg", ".jpg", "a.jpg.bak", "a.json", "a", "a.jxl"])
def test_other_names_are_not_images(name: str) -> None:
    assert not is_image_name(Path(name))


def check(data: bytes) -> None:
    """Nothing but an ImageError with the name, or an upright RGB image of the size that the answer says."""
    try:
        image, full = decode(data, "fuzz.bin", shrink=lambda width, height: min(width, height) / 16)
    except UniemoxError as error:
        assert isinstance(error, ImageError)
        assert str(error).startswith("fuzz.bin: ")
    else:
        assert image.mode == "RGB"
        assert 1 <= image.width <= full[0]
        assert 1 <= image.height <= full[1]


HEADS = [data[:16] for data in FILES.values()]


@given(st.sampled_from([b"", *HEADS]), st.binary(max_size=400))
def test_any_bytes_give_an_image_or_our_error(head: bytes, data: bytes) -> None:
    check(head + data)


@settings(max_examples=300)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # Pillow's, of what was broken
@given(st.sampled_from(sorted(FILES)), st.sampled_from(sorted(FILES)), st.data())
def test_changed_files_give_an_image_or_our_error(name: str, other: str, draws: st.DataObject) -> None:
    """Bytes overwritten, a piece cut out, or a piece of another file put in."""
    data = bytearray(FILES[name])
    positions = st.one_of(st.integers(0, min(len(data) - 1, 200)), st.integers(0, len(data) - 1))
    change = draws.draw(st.sampled_from(["flip", "cut", "splice"]))
    at = draws.draw(positions)
    if change == "flip":
        for position, value in draws.draw(st.lists(st.tuples(positions, st.integers(0, 255)), min_size=1, max_size=8)):
            data[position] = value
    elif change == "cut":
        del data[at : at + draws.draw(st.integers(1, 200))]
    else:
        start = draws.draw(st.integers(0, len(FILES[other]) - 1))
        data[at:at] = FILES[other][start : start + draws.draw(st.integers(1, 400))]
    check(bytes(data))
