"""HEIC, the format of phones, with the extra heic and without it."""

import io
import json
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.colours import D65, HLG, P3, PQ, hdr_values, icc_profile, power_values
from tests.images import draw
from tests.io.test_images import difference
from tests.predict.networks import tiny_network
from uniemox.errors import ImageError
from uniemox.io.decoding.pool import DecoderPool, decode_one
from uniemox.io.images import decode, is_image_name
from uniemox.predict.opening import load

WITHOUT = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
"""The beginning of a HEIC."""


@pytest.fixture(scope="module")
def heic() -> bytes:
    """A HEIC as phones write it: in tiles."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install 'uniemox[heic]'")
    pillow_heif.register_heif_opener()
    file = io.BytesIO()
    draw(1000, 700).save(file, "HEIF", quality=90, tile_size=512)
    return file.getvalue()


@pytest.mark.thorough
def test_a_heic_is_decoded_in_a_process_of_its_own(heic: bytes) -> None:
    image, full = decode_one(heic, "photo.heic")
    assert (image.mode, image.size, full) == ("RGB", (1000, 700), (1000, 700))
    assert np.abs(np.asarray(image, float) - np.asarray(draw(1000, 700), float)).mean() < 8
    assert image.tobytes() == decode(heic)[0].tobytes()


@pytest.mark.thorough
def test_a_large_heic_has_the_memory_that_it_needs(heic: bytes) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4032, 3024), "teal").save(file, "HEIF", quality=50, tile_size=512)
    with closing(DecoderPool(1)) as pool:
        assert pool.decode(file.getvalue(), "photo.heic")[1] == (4032, 3024)


def test_a_turned_heic_comes_upright_once(heic: bytes) -> None:
    """The decoder turns it by the file's own property; the orientation in its EXIF is not applied again."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(120, 80).save(file, "HEIF", quality=90, exif=exif.tobytes())
    assert b"irot" in file.getvalue()
    image, full = decode(file.getvalue())
    assert image.size == full == (80, 120)
    expected = draw(120, 80).transpose(Image.Transpose.ROTATE_270)
    assert np.abs(np.asarray(image, float) - np.asarray(expected, float)).mean() < 8


@pytest.mark.thorough
def test_heics_with_damage_or_false_sizes_are_refused_by_name(heic: bytes) -> None:
    for data in (heic[: len(heic) // 2], heic[:-1], heic[:64]):
        with pytest.raises(ImageError, match=r"^cut\.heic: "):
            decode(data, "cut.heic")
    assert decode(heic + b"notes of a phone")[1] == (1000, 700)
    file = io.BytesIO()
    Image.new("RGB", (4000, 4000), "teal").save(file, "HEIF", quality=20)
    size, false = (b"ispe" + struct.pack(">III", 0, side, side) for side in (4000, 64))
    assert size in file.getvalue()
    with pytest.raises(ImageError, match=r"^lie\.heic: .*Security limit exceeded"):
        decode(file.getvalue().replace(size, false), "lie.heic")


def test_folders_and_commands_take_heic(heic: bytes, tmp_path: Path) -> None:
    assert is_image_name(Path("IMG_0001.HEIC"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "IMG_0001.HEIC").write_bytes(heic)
    [answer] = load(tiny_network(tmp_path / "model.onnx"), finder=None).predict_folder(tmp_path / "photos")
    assert (answer.width_px, answer.height_px) == (1000, 700)


def test_without_the_package_the_message_names_the_extra(tmp_path: Path) -> None:
    """In a process where pillow_heif can't be imported; by ending, and by content under another one."""
    (tmp_path / "a.heic").write_bytes(WITHOUT)
    (tmp_path / "b.jpg").write_bytes(WITHOUT)
    code = (
        "import json, sys\n"
        "sys.modules['pillow_heif'] = None\n"
        "import importlib.util\n"
        "importlib.util.find_spec = lambda name, real=importlib.util.find_spec: "
        "None if name == 'pillow_heif' else real(name)\n"
        "from uniemox.io.images import decode, is_image_name\n"
        "from uniemox.errors import ImageError\n"
        "from uniemox.predict.images import read_any\n"
        "from pathlib import Path\n"
        "said = [is_image_name(Path('a.heic'))]\n"
        "for read in (lambda: read_any('a.heic'), lambda: decode(Path('b.jpg').read_bytes(), 'b.jpg')):\n"
        "    try:\n"
        "        read()\n"
        "    except ImageError as error:\n"
        "        said.append(str(error))\n"
        "print(json.dumps(said))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    needs = "HEIC needs pillow-heif; run: pip install 'uniemox[heic]', or save it as JPEG or PNG"
    assert json.loads(done.stdout) == [False, f"a.heic: {needs}", f"b.jpg: {needs}"]


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_of_a_camera_has_reference_white_as_white(heic: bytes, transfer: int) -> None:
    """10 bits with BT.2020 and PQ or HLG, as .hif files of cameras."""
    pillow_heif = pytest.importorskip("pillow_heif")
    image = draw(256, 192)
    values = hdr_values(image, transfer)
    names = ("color_primaries", "transfer_characteristics", "matrix_coefficients", "full_range_flag")
    decoded = {}
    for code_points in ((9, transfer, 9, 1), (1, 13, 1, 1)):
        file = io.BytesIO()
        heif = pillow_heif.from_bytes(mode="RGB;16", size=image.size, data=values.tobytes())
        heif.save(file, quality=95, chroma=444, **dict(zip(names, code_points, strict=True)))
        decoded[code_points[0]] = decode_one(file.getvalue(), "photo.hif")[0]
    assert difference(decoded[9], image) < 6
    assert difference(decoded[1], image) > 15


def test_a_heic_with_a_profile_is_converted(heic: bytes) -> None:
    """Every photograph of an iPhone has the profile Display P3."""
    image = draw(256, 192)
    file = io.BytesIO()
    wide = Image.fromarray(power_values(image, P3, 2.2))
    wide.save(file, "HEIF", quality=95, chroma=444, icc_profile=icc_profile(P3, D65, 2.2))
    decoded = decode_one(file.getvalue(), "photo.heic")[0]
    assert difference(decoded, image) < 4 < difference(decoded, wide)
