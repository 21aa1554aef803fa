"""Colours of videos: HDR and wide gamuts give the pixels of the same film in sRGB."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.colours import BT2020, HLG, P3, PQ, SRGB, hdr_values, light_in, power_values
from tests.images import draw, png_chunks, png_of
from tests.io.test_colour import GAMMA_1, png_with
from tests.io.test_images import difference
from uniemox.io.images import decode
from uniemox.predict.film import read_film

PHOTO = draw(128, 96)
SRGB_CURVE = 13
BT709 = 1


def write_film(path: Path, values: np.ndarray, primaries: int, transfer: int) -> None:
    """Write two frames with 10 bits, losslessly but for the halved resolution of colours.

    values: (H, W, 3), uint16.
    """
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    matrix = 9 if primaries == 9 else 1
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=1, width=values.shape[1], height=values.shape[0])
        stream.pix_fmt = "yuv444p10le"
        stream.options = {"qp": "0"}
        context = stream.codec_context
        context.color_primaries = primaries
        context.color_trc = transfer
        context.colorspace = matrix
        context.color_range = 1
        for number in range(2):
            rgb = av.VideoFrame.from_ndarray(values, format="rgb48le")
            frame = rgb.reformat(format="yuv444p10le", dst_colorspace=matrix, dst_color_range=1)
            frame.pts = number
            frame.colorspace = matrix
            frame.color_range = 1
            frame.color_primaries = primaries
            frame.color_trc = transfer
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def first_frame(path: Path) -> Image.Image:
    frame = next(iter(read_film(path, 1.0)))
    assert frame.image is not None, frame.error
    return frame.image


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_films_have_reference_white_as_white(tmp_path: Path, transfer: int) -> None:
    write_film(tmp_path / "hdr.mp4", hdr_values(PHOTO, transfer), 9, transfer)
    write_film(tmp_path / "plain.mp4", hdr_values(PHOTO, transfer), 9, BT709)
    assert difference(first_frame(tmp_path / "hdr.mp4"), PHOTO) < 6
    assert difference(first_frame(tmp_path / "plain.mp4"), PHOTO) > 12


@pytest.mark.parametrize(("primaries", "space"), [(9, BT2020), (12, P3)])
def test_wide_gamuts_of_films_are_converted(tmp_path: Path, primaries: int, space: tuple) -> None:
    light = light_in(PHOTO, space)
    signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    write_film(tmp_path / "wide.mp4", (65535 * signal).round().astype(np.uint16), primaries, SRGB_CURVE)
    assert difference(first_frame(tmp_path / "wide.mp4"), PHOTO) < 4


@pytest.mark.parametrize(("primaries", "transfer"), [(1, 1), (5, 5), (6, 6), (2, 2)])
def test_ordinary_films_are_unchanged(tmp_path: Path, primaries: int, transfer: int) -> None:
    write_film(tmp_path / "sdr.mp4", np.asarray(PHOTO).astype(np.uint16) * 257, primaries, transfer)
    assert difference(first_frame(tmp_path / "sdr.mp4"), PHOTO) < 3


@pytest.mark.parametrize(("size", "matrix"), [((1280, 720), 1), ((720, 576), 5)])
def test_unmarked_films_have_the_colours_that_players_show(tmp_path: Path, size: tuple[int, int], matrix: int) -> None:
    """Large ones those of BT.709, others those of BT.601 (5)."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    colours = Image.new("RGB", size, (200, 60, 30))
    with av.open(str(tmp_path / "film.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=1, width=size[0], height=size[1])
        stream.pix_fmt = "yuv420p"
        stream.options = {"qp": "0"}
        for number in range(2):
            frame = av.VideoFrame.from_image(colours).reformat(format="yuv420p", dst_colorspace=matrix)
            frame.pts = number
            frame.colorspace = 2
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    assert difference(first_frame(tmp_path / "film.mp4"), colours) < 3


def animated(png: bytes) -> bytes:
    """Return an animated PNG that shows a PNG twice, one second each."""
    chunks = png_chunks(png)
    size = chunks[0][1][:8]
    [pixels] = [content for kind, content in chunks if kind == b"IDAT"]

    def control(number: int) -> tuple[bytes, bytes]:
        return b"fcTL", struct.pack(">I8sIIHHBB", number, size, 0, 0, 1, 1, 0, 0)

    start = [chunk for chunk in chunks if chunk[0] not in (b"IDAT", b"IEND")]
    first = [(b"acTL", struct.pack(">II", 2, 0)), control(0), (b"IDAT", pixels)]
    second = [control(1), (b"fdAT", struct.pack(">I", 2) + pixels)]
    return png_of([*start, *first, *second, (b"IEND", b"")])


GREY = np.asarray(PHOTO.convert("L"))
STILLS = {
    "PQ": png_with(hdr_values(PHOTO, PQ), (b"cICP", bytes([9, PQ, 0, 1]))),
    "grey of 16 bits": png_with(GREY.astype(np.uint16) * 257),
    "linear light": png_with(power_values(PHOTO, SRGB, 1.0), GAMMA_1),
    "plain": png_with(np.asarray(PHOTO)),
}


@pytest.mark.parametrize("still", STILLS.values(), ids=STILLS)
def test_frames_of_an_animated_png_equal_the_still_image(tmp_path: Path, still: bytes) -> None:
    (tmp_path / "a.png").write_bytes(animated(still))
    frames = list(read_film(tmp_path / "a.png", 1.0))
    assert [frame.time_s for frame in frames] == [0, 1]
    for frame in frames:
        assert frame.image is not None, frame.error
        assert difference(frame.image, decode(still)[0]) == 0
