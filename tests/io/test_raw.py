"""Camera raw: reported by name, refused by its bytes without rawpy, and read by its preview with it."""

import io
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.images import draw
from tests.io.test_colour import IN_ADOBE, adobe_exif, difference
from tests.raw_files import dng, jpeg
from uniemox.data.shard_writing import pack_image
from uniemox.errors import ImageError, MissingPackageError, MissingReaderError, UnexpectedImageError
from uniemox.insight.survey.lines import date_taken
from uniemox.io import images, raw_preview
from uniemox.io.decoding.pool import DecoderPool, decode_one
from uniemox.io.images import MinSides, decode, is_image_name
from uniemox.io.raw_preview import RAW_ENDINGS, is_raw
from uniemox.predict.images import FOREIGN, list_images, read_any

ISSUE = ".rw2 .orf .pef .srw .nrw .crw .3fr .iiq .x3f .kdc .mrw .jp2 .psb .nef .dng .cr2 .cr3 .arw .raf .jxl .psd"
PHOTO = draw(900, 600)
NIKON = dng(jpeg(PHOTO), is_dng=False)
"""Known by its maker, its thumbnail and what is inside, as NEF and ARW are; of a maker that LibRaw does not know."""


@pytest.fixture
def without_rawpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_preview, "HAS_RAWPY", False)
    known = {ending: fmt for ending, fmt in images.ENDINGS.items() if ending not in RAW_ENDINGS}
    monkeypatch.setattr(images, "ENDINGS", known)


@pytest.fixture
def with_rawpy() -> None:
    pytest.importorskip("rawpy", reason="needs rawpy: pip install 'uniemox[raw]'")


@pytest.mark.parametrize("ending", ISSUE.split())
@pytest.mark.usefixtures("without_rawpy")
def test_unreadable_formats_are_reported_with_a_remedy(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"IMG_1{ending.upper()}"
    path.write_bytes(NIKON)
    assert ending in FOREIGN
    assert list(list_images([str(tmp_path)])) == [str(path)]
    if ending in RAW_ENDINGS:
        remedy = r"pip install 'uniemox\[raw\]', or save it as JPEG or PNG"
    else:
        remedy = "save it as JPEG"
    with pytest.raises(ImageError, match=remedy) as raised:
        read_any(path)
    assert isinstance(raised.value, MissingPackageError) == (ending in RAW_ENDINGS)


@pytest.mark.parametrize("data", [dng(jpeg(PHOTO)), NIKON, b"IIU\0" + bytes(900), b"FUJIFILMCCD-RAW " + bytes(900)])
@pytest.mark.usefixtures("without_rawpy")
def test_bytes_of_a_raw_do_not_give_the_answer_of_its_thumbnail(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(data)
    for source in (data, tmp_path / "a.tif"):
        with pytest.raises(MissingReaderError, match=r"camera raw needs rawpy; run: pip install 'uniemox\[raw\]'"):
            read_any(source, decode_file=decode)


def test_ordinary_tiffs_are_no_raws() -> None:
    file = io.BytesIO()
    PHOTO.save(file, "TIFF", tiffinfo={271: "Maker", 272: "Model", 254: 0})
    assert not is_raw(file.getvalue())
    assert not any(
        map(is_raw, (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", jpeg(PHOTO), struct.pack("<4sIH", b"II*\0", 8, 999)))
    )
    assert is_raw(NIKON)
    assert is_raw(dng(None))


@pytest.mark.parametrize("photometric", [2, 32803])
def test_a_bigtiff_with_the_values_of_a_sensor_is_a_raw(photometric: int) -> None:
    header = struct.pack("<4sHHQ", b"II+\0", 8, 0, 16)
    directory = struct.pack("<QHHQQQ", 1, 262, 3, 1, photometric, 0)
    assert is_raw(header + directory) == (photometric == 32803)


@pytest.mark.usefixtures("with_rawpy")
@pytest.mark.parametrize(("orientation", "turn"), [(1, None), (3, "ROTATE_180"), (6, "ROTATE_270"), (8, "ROTATE_90")])
def test_the_full_preview_is_read_upright(orientation: int, turn: str | None) -> None:
    expected = PHOTO if turn is None else PHOTO.transpose(Image.Transpose[turn])
    data = dng(jpeg(PHOTO), orientation=orientation)
    image, full = decode(data, "a.dng")
    assert full == image.size == expected.size
    difference = np.abs(np.asarray(image, int) - np.asarray(expected, int))
    assert difference.mean() < 3
    with closing(DecoderPool(1)) as pool:
        assert pool.decode(data, "a.dng")[0].tobytes() == image.tobytes()
    assert decode_one(data, "a.dng", shrink=MinSides(short_px=100))[0].size == (
        expected.width // 4,
        expected.height // 4,
    )


@pytest.mark.usefixtures("with_rawpy")
def test_a_preview_that_is_turned_already_is_not_turned_again() -> None:
    upright = draw(600, 900)
    assert decode(dng(jpeg(upright), orientation=6), "a.nef")[1] == (600, 900)
    exif = Image.Exif()
    exif[0x0112] = 6
    written = jpeg(PHOTO, exif=exif)
    as_cameras_do = written[:2] + written[20:]  # without JFIF before the EXIF, which LibRaw would replace
    assert decode(dng(as_cameras_do, orientation=1), "a.nef")[1] == (600, 900)


@pytest.mark.usefixtures("with_rawpy")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dng(None), "only a thumbnail of 160 x 120 px"),
        (dng(jpeg(draw(320, 240))), "only a thumbnail of 320 x 240 px"),
        (dng(jpeg(PHOTO))[:150_000], "can't be read|damaged|thumbnail|cut off|known format"),
        (NIKON, "no preview that can be read"),
        (b"FUJIFILMCCD-RAW " + b"\xff" * 900, "no preview that can be read"),
    ],
)
def test_a_raw_without_a_preview_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=rf"^a\.dng: .*({message})") as raised:
        decode(data, "a.dng")
    assert not isinstance(raised.value, UnexpectedImageError)


@pytest.mark.usefixtures("with_rawpy")
def test_folders_and_surveys_take_raws(tmp_path: Path) -> None:
    assert is_image_name(Path("IMG.NEF"))
    (tmp_path / "IMG.NEF").write_bytes(dng(jpeg(PHOTO)))
    assert read_any(tmp_path / "IMG.NEF")[1] == (900, 600)
    assert date_taken(tmp_path / "IMG.NEF") == "2021-07-08"
    file = io.BytesIO()
    draw(160, 120).save(file, "TIFF")
    (tmp_path / "b.kdc").write_bytes(file.getvalue())
    with pytest.raises(ImageError, match=r"b\.kdc: a camera raw of an unknown kind"):
        read_any(tmp_path / "b.kdc")


def test_importing_the_readers_does_not_import_rawpy() -> None:
    code = "import sys; import uniemox.io.images; raise SystemExit('rawpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "fmt", "mode"),
    [
        ("a.apng", "PNG", "RGB"),
        ("a.pbm", "PPM", "1"),
        ("a.pnm", "PPM", "RGB"),
        ("a.dib", "DIB", "RGB"),
        ("b.dib", "BMP", "L"),
    ],
)
def test_other_endings_of_accepted_formats_are_images(tmp_path: Path, name: str, fmt: str, mode: str) -> None:
    image = draw().convert(mode)
    image.save(tmp_path / name, fmt)
    assert is_image_name(tmp_path / name)
    assert list(list_images([str(tmp_path)])) == [str(tmp_path / name)]
    assert read_any(tmp_path / name)[0].tobytes() == image.convert("RGB").tobytes()


@pytest.mark.usefixtures("with_rawpy")
def test_shards_hold_the_preview() -> None:
    data, ending, scale = pack_image(dng(jpeg(PHOTO)), "a.dng", None)
    assert (ending, scale) == ("jpg", 1.0)
    assert data.startswith(b"\xff\xd8")
    assert decode(data)[1] == PHOTO.size


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.usefixtures("with_rawpy")
def test_adobe_rgb_named_by_the_exif_of_the_preview_counts(orientation: int) -> None:
    """LibRaw puts an EXIF of its own before it."""
    photo = IN_ADOBE.resize((600, 440))
    named = dng(jpeg(photo, exif=adobe_exif(65535, "R03"), subsampling=0), orientation=orientation)
    plain = dng(jpeg(photo, exif=adobe_exif(1, "R98"), subsampling=0), orientation=orientation)
    expected = decode(jpeg(photo, exif=adobe_exif(65535, "R03"), subsampling=0)).image
    if orientation == 6:
        expected = expected.transpose(Image.Transpose.ROTATE_270)
    assert difference(decode(named).image, expected) == 0
    assert difference(decode(plain).image, expected) > 4
