"""Films that are damaged or cut off, and whole ones that look so."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.drawn import draw_image, jpeg_of
from tests.predict.films import film_of, read_here, slides
from uniemox.io.decoding import film_frames
from uniemox.io.decoding.film import moments
from uniemox.io.decoding.film_frames import DecodedFrame
from uniemox.predict.film import read_film

FILLERS = [bytes, random.Random(0).randbytes]
FILLER_NAMES = ["zeros", "random"]


@pytest.fixture
def no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the small files of tests be checked as those of 10 MB are."""
    monkeypatch.setattr(film_frames, "MAX_TAIL_BYTES", 2**10)


def test_slide_show_that_is_cut_off_ends_with_an_error(tmp_path: Path) -> None:
    data = slides(tmp_path / "slides.mkv", 3, 30).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    *frames, last = read_film(str(tmp_path / "cut.mkv"), 10)
    assert "cut off" in str(last.error)
    assert len(frames) < 9  # the last picture does not stand for those that are lost


@pytest.mark.thorough
@pytest.mark.parametrize("filler", FILLERS, ids=FILLER_NAMES)
@pytest.mark.parametrize("ending", ["mkv", "webm", "avi"])
def test_film_whose_second_half_was_overwritten_gives_the_first_half_and_an_error(
    tmp_path: Path, ending: str, filler: Callable[[int], bytes]
) -> None:
    """A download that reserved its space has the right length."""
    path = film_of(tmp_path / f"film.{ending}", list(range(27)), codec="libvpx" if ending == "webm" else "mpeg4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + filler(len(data) - len(data) // 2))
    *frames, last = read_film(str(path), 1)
    assert str(path) in last.error
    assert "it should last 27 s" in last.error
    assert 5 < len(frames) < 20


KINDS = {  # file name and codec, and options of the container
    "mkv": ("film.mkv", "mpeg4", {}),
    "webm": ("film.webm", "libvpx", {}),
    "fragments": ("film.mp4", "mpeg4", {"movflags": "frag_keyframe+empty_moov"}),
    "ts": ("film.ts", "mpeg2video", {}),
    "null packets": ("film.ts", "mpeg2video", {"muxrate": "4000000"}),
    "m2ts": ("film.ts", "mpeg2video", {"mpegts_m2ts_mode": "1"}),
    "mpg": ("film.mpg", "mpeg2video", {}),
    "flv": ("film.flv", "flv", {}),
    "wmv": ("film.wmv", "wmv2", {}),
}


@pytest.fixture(scope="module", params=KINDS)
def undamaged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, codec, options = KINDS[request.param]
    return film_of(tmp_path_factory.mktemp("undamaged") / name, list(range(275)), 25, codec, options)


@pytest.mark.thorough
@pytest.mark.usefixtures("no_margin")
def test_undamaged_film_gives_no_error(undamaged: Path) -> None:
    assert read_here(undamaged) == (list(range(11)), "")


@pytest.mark.parametrize("filler", FILLERS, ids=FILLER_NAMES)
def test_damage_in_the_middle_leaves_the_frames_before_it(
    tmp_path: Path, undamaged: Path, filler: Callable[[int], bytes]
) -> None:
    data = undamaged.read_bytes()
    path = tmp_path / undamaged.name
    third = len(data) // 3
    path.write_bytes(data[:third] + filler(third) + data[2 * third :])
    times, error = read_here(path)
    assert times == list(range(len(times)))
    assert 3 < len(times) <= 11
    assert "BlockingIOError" not in error  # a transport stream continues after the hole


@pytest.mark.usefixtures("no_margin")
@pytest.mark.parametrize("name", ["film.mkv", "film.flv", "film.wmv", "null packets.ts", "fragments.mp4"])
def test_file_that_can_not_be_read_after_half_of_it_is_an_error(tmp_path: Path, name: str) -> None:
    codec = {".flv": "flv", ".wmv": "wmv2", ".ts": "mpeg2video"}.get(Path(name).suffix, "mpeg4")
    options = {
        "null packets.ts": {"muxrate": "4000000"},
        "fragments.mp4": {"movflags": "frag_keyframe+empty_moov"},
    }.get(name, {})
    path = film_of(tmp_path / name, list(range(275)), 25, codec, options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    times, error = read_here(path)
    assert 4 < len(times) < 7
    assert error


@pytest.mark.parametrize("name", [b"free", b"uuid", b"mfra", b"moov"])
@pytest.mark.parametrize("is_last", [True, False])
def test_large_boxes_beside_the_frames_of_fragments_are_no_damage(tmp_path: Path, name: bytes, is_last: bool) -> None:
    """The index is large if each picture is a fragment."""
    options = {"movflags": "frag_keyframe+empty_moov"}
    data = film_of(tmp_path / "film.mp4", list(range(275)), 25, options=options).read_bytes()
    at = len(data) if is_last else data.rindex(b"moof") - 4
    box = (8 + 90_000).to_bytes(4, "big") + name + bytes(90_000)
    (tmp_path / "more.mp4").write_bytes(data[:at] + box + data[at:])
    assert read_here(tmp_path / "more.mp4") == (list(range(11)), "")


@pytest.mark.usefixtures("no_margin")
@pytest.mark.parametrize("first", [b"moof", b"mdat"])
def test_fragments_whose_beginning_is_damaged_are_an_error(tmp_path: Path, first: bytes) -> None:
    """FFmpeg does not find the fragments that follow, and those before hold few pictures or none."""
    path = film_of(tmp_path / "film.mp4", list(range(275)), 25, options={"movflags": "frag_keyframe+empty_moov"})
    data = path.read_bytes()
    at = data.index(first) - 4
    path.write_bytes(data[:at] + bytes(len(data) // 20) + data[at + len(data) // 20 :])
    times, error = read_here(path)
    assert len(times) < 11
    assert error


def test_file_without_a_frame_is_an_error(tmp_path: Path) -> None:
    path = film_of(tmp_path / "film.mp4", list(range(50)), 25, options={"movflags": "frag_keyframe+empty_moov"})
    path.write_bytes(path.read_bytes().partition(b"moof")[0][:-4])  # recording ended right after it began
    assert read_here(path) == ([], "ValueError: not one picture could be read")


def test_transparency_of_webm_is_no_damage(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    noise = np.random.default_rng(0)
    with av.open(str(tmp_path / "film.webm"), "w") as film:
        stream = film.add_stream("libvpx-vp9", rate=1, width=320, height=240, pix_fmt="yuva420p")
        for number in range(4):
            pixels = np.full((240, 320, 4), 40 * number, np.uint8)
            pixels[..., 3] = noise.integers(0, 256, (240, 320))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba")
            frame.pts = number
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    assert read_here(tmp_path / "film.webm") == ([0, 1, 2, 3], "")


def test_attachments_before_the_frames_are_no_damage(tmp_path: Path) -> None:
    """A cover comes as a picture of another stream, without a position in the file."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    film_of(tmp_path / "film.mkv", list(range(6)))
    with av.open(str(tmp_path / "film.mkv")) as film, av.open(str(tmp_path / "more.mkv"), "w") as more:
        stream = more.add_stream_from_template(film.streams.video[0])
        more.add_attachment("cover.jpg", "image/jpeg", jpeg_of(draw_image(0)))
        more.add_attachment("font.ttf", "application/x-truetype-font", bytes(10**6))
        for packet in film.demux():
            if packet.size:
                packet.stream = stream
                more.mux(packet)
    assert read_here(tmp_path / "more.mkv") == (list(range(6)), "")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("ending", "options", "is_reported"),
    [("mp4", {"movflags": "faststart"}, True), ("mp4", {"movflags": "frag_keyframe+empty_moov"}, True)]
    + [(ending, {}, True) for ending in ("avi", "flv")]
    + [(ending, {}, False) for ending in ("mkv", "webm", "wmv")],
)
def test_film_that_lacks_its_last_frames_gives_the_others(
    tmp_path: Path, ending: str, options: dict[str, str], is_reported: bool
) -> None:
    """Less than 5 % of it is missing. Some containers read the incomplete last packet, which FFmpeg reports."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    codec = {"webm": "libvpx", "wmv": "wmv2", "flv": "flv"}.get(ending, "mpeg4")
    path = film_of(tmp_path / f"film.{ending}", list(range(240)), 4, codec, options)
    with av.open(str(path)) as container:
        positions = [packet.pos for packet in container.demux() if packet.size]
    os.truncate(path, positions[-4] + (40 if ending == "flv" else 10))
    times, error = read_here(path)
    assert ("cut off" in error) == is_reported
    assert 57 <= len(times) <= 60


def test_avi_that_is_cut_off_ends_with_an_error(tmp_path: Path) -> None:
    """FFmpeg reports the duration of the remaining part; the number of pictures is that of the header."""
    path = film_of(tmp_path / "film.avi", list(range(27)))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"00dc", len(data) // 2)])
    *frames, last = read_film(str(path), 1)
    assert "it should last 27 s" in str(last.error)
    assert 5 < len(frames) < 20


@pytest.mark.parametrize("stated", [0, 2**30])
def test_avi_may_state_a_wrong_number_of_frames(tmp_path: Path, stated: int) -> None:
    """DV of type 1 states none; ffmpeg writes 2^30 if its output is a pipe, and no index."""
    path = film_of(tmp_path / "film.avi", list(range(275)), 25)
    data = path.read_bytes()
    at = data.index(b"strh") + 8 + 32
    data = data[:at] + stated.to_bytes(4, "little") + data[at + 4 :]
    path.write_bytes(data.partition(b"idx1")[0] if stated else data)
    assert read_here(path) == (list(range(11)), "")


def chunk(name: bytes, content: bytes) -> bytes:
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


AFTER = {  # the last picture of AVI
    "info": chunk(b"LIST", b"INFO" + chunk(b"ISFT", bytes(9_000))),
    "xmp": chunk(b"_PMX", bytes(9_000)),
    "empty": chunk(b"00dc", b"") * 1_000,
    "next part": chunk(b"RIFF", b"AVIX" + chunk(b"LIST", b"movi" + chunk(b"JUNK", bytes(9_000)))),
}


@pytest.mark.usefixtures("no_margin")
@pytest.mark.parametrize("after", AFTER)
def test_other_chunks_may_follow_the_frames_of_avi(tmp_path: Path, after: str) -> None:
    path = film_of(tmp_path / "film.avi", list(range(275)), 25)
    path.write_bytes(path.read_bytes().partition(b"idx1")[0] + AFTER[after])
    assert read_here(path) == (list(range(11)), "")


@pytest.mark.parametrize("end", [bytes(4), b"", bytes(20), b"\n"], ids=["zero", "missing", "padded", "line"])
def test_the_last_bytes_of_flv_may_be_odd(tmp_path: Path, end: bytes) -> None:
    path = film_of(tmp_path / "film.flv", list(range(275)), 25, codec="flv")
    path.write_bytes(path.read_bytes()[:-4] + end)
    assert read_here(path) == (list(range(11)), "")


def test_black_pixels_are_no_damage(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    with av.open(str(tmp_path / "film.mov"), "w") as film:
        stream = film.add_stream("rawvideo", rate=1)
        stream.width = 64
        stream.height = 64
        stream.pix_fmt = "rgb24"
        for _ in range(3):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
    assert read_here(tmp_path / "film.mov") == ([0, 1, 2], "")


def test_an_error_comes_after_all_moments_before_it() -> None:
    def broken() -> Iterator[DecodedFrame]:
        for time_s in range(2):
            yield DecodedFrame(time_s, 1, np.zeros((36, 64), np.int16), (8, 8), lambda: Image.new("RGB", (8, 8)))
        raise ValueError("damaged")

    times = (time_s for time_s, _, frame in moments(broken(), 0.5) if frame is not None)
    assert [next(times) for _ in range(4)] == [0, 0.5, 1, 1.5]
    with pytest.raises(ValueError, match="damaged"):
        next(times)
