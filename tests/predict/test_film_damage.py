"""Films that are damaged or cut off, and whole ones that look so."""

import os
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.drawn import draw_image, jpeg_of
from tests.predict.films import film_of, read_here, slides
from uniemox.io.decoding import film_file
from uniemox.io.decoding.film import Shown, moments
from uniemox.predict.film import read_film


def test_a_short_slide_show_that_is_cut_off_is_noticed(tmp_path: Path) -> None:
    whole = slides(tmp_path / "slides.mkv", 3, 30).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    *found, last = read_film(str(tmp_path / "cut.mkv"), 10)
    assert "cut off" in str(last.error)
    assert len(found) < 9  # the last picture does not stand for those that are lost


@pytest.mark.parametrize("rest", [bytes, random.Random(0).randbytes], ids=["zeros", "random"])
@pytest.mark.parametrize("ending", ["mkv", "webm", "avi"])
def test_a_film_whose_end_was_overwritten_is_cut_off(tmp_path: Path, ending: str, rest: Callable[[int], bytes]) -> None:
    """A download that reserved its space has the right length."""
    path = film_of(tmp_path / f"film.{ending}", list(range(27)), codec="libvpx" if ending == "webm" else "mpeg4")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + rest(len(whole) - len(whole) // 2))
    *found, last = read_film(str(path), 1)
    assert "cut off" in str(last.error)
    assert 5 < len(found) < 20


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
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, codec, options = KINDS[request.param]
    return film_of(tmp_path_factory.mktemp("whole") / name, list(range(275)), 25, codec, options)


def test_a_whole_film_gives_no_error(whole: Path) -> None:
    assert read_here(whole) == (list(range(11)), "")


@pytest.mark.parametrize("name", [b"free", b"uuid", b"mfra", b"moov"])
@pytest.mark.parametrize("is_last", [True, False])
def test_large_boxes_beside_the_pictures_of_fragments_are_no_damage(tmp_path: Path, name: bytes, is_last: bool) -> None:
    """An index is longer than 2 % of a film with a fragment for each picture."""
    options = {"movflags": "frag_keyframe+empty_moov"}
    data = film_of(tmp_path / "film.mp4", list(range(275)), 25, options=options).read_bytes()
    at = len(data) if is_last else data.rindex(b"moof") - 4
    box = (8 + 200_000).to_bytes(4, "big") + name + bytes(200_000)
    (tmp_path / "more.mp4").write_bytes(data[:at] + box + data[at:])
    assert read_here(tmp_path / "more.mp4") == (list(range(11)), "")


@pytest.mark.parametrize("first", [b"moof", b"mdat"])
def test_fragments_whose_beginning_is_damaged_are_noticed(tmp_path: Path, first: bytes) -> None:
    """The rest of the file can't be found, and what is before it holds few pictures or none."""
    path = film_of(tmp_path / "film.mp4", list(range(275)), 25, options={"movflags": "frag_keyframe+empty_moov"})
    data = path.read_bytes()
    at = data.index(first) - 4
    path.write_bytes(data[:at] + bytes(len(data) // 20) + data[at + len(data) // 20 :])
    times, error = read_here(path)
    assert len(times) < 11
    assert error


def test_a_file_without_a_picture_is_an_error(tmp_path: Path) -> None:
    path = film_of(tmp_path / "film.mp4", list(range(50)), 25, options={"movflags": "frag_keyframe+empty_moov"})
    path.write_bytes(path.read_bytes().partition(b"moof")[0][:-4])  # recording ended right after it began
    assert read_here(path) == ([], "ValueError: not one picture could be read")


def test_transparency_beside_the_pictures_of_webm_is_no_damage(tmp_path: Path) -> None:
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


def test_attachments_before_the_pictures_are_no_damage(tmp_path: Path) -> None:
    """A cover comes as a picture of another stream, without a place in the file."""
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


@pytest.mark.parametrize("rest", [bytes, random.Random(0).randbytes], ids=["zeros", "random"])
def test_damage_in_the_middle_is_not_skipped_in_silence(
    tmp_path: Path, whole: Path, rest: Callable[[int], bytes]
) -> None:
    content = whole.read_bytes()
    path = tmp_path / whole.name
    third = len(content) // 3
    path.write_bytes(content[:third] + rest(third) + content[2 * third :])
    times, error = read_here(path)
    assert error
    assert "BlockingIOError" not in error  # a transport stream goes on after the hole
    assert 3 < len(times) <= 11


@pytest.mark.parametrize(
    ("ending", "options"),
    [("mp4", {"movflags": "faststart"}), ("mp4", {"movflags": "frag_keyframe+empty_moov"})]
    + [(ending, {}) for ending in ("mkv", "webm", "avi", "wmv", "flv")],
)
def test_the_last_pictures_of_a_film_are_missed(tmp_path: Path, ending: str, options: dict[str, str]) -> None:
    """They are less than 5 % of it, but the file says that it is longer."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    codec = {"webm": "libvpx", "wmv": "wmv2", "flv": "flv"}.get(ending, "mpeg4")
    path = film_of(tmp_path / f"film.{ending}", list(range(240)), 4, codec, options)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux() if packet.size]
    os.truncate(path, places[-4] + (40 if ending == "flv" else 10))
    times, error = read_here(path)
    assert "cut off" in error
    assert 57 <= len(times) <= 60


def test_an_avi_that_is_cut_off_is_noticed(tmp_path: Path) -> None:
    path = film_of(tmp_path / "film.avi", list(range(27)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *found, last = read_film(str(path), 1)
    assert "it should last 27 s" in str(last.error)
    assert 5 < len(found) < 20


@pytest.mark.parametrize(("stated", "share", "problem"), [(0, 1, ""), (0, 0.97, "cut off"), (2**30, 1, "")])
def test_an_avi_that_does_not_state_its_pictures(tmp_path: Path, stated: int, share: float, problem: str) -> None:
    """DV of type 1 states none; ffmpeg writes 2^30 if its output is a pipe, and no index."""
    path = film_of(tmp_path / "film.avi", list(range(275)), 25)
    data = path.read_bytes()
    at = data.index(b"strh") + 8 + 32
    data = data[:at] + stated.to_bytes(4, "little") + data[at + 4 :]
    data = data.partition(b"idx1")[0] if stated else data
    path.write_bytes(data[: int(share * len(data))])
    times, error = read_here(path)
    assert (problem in error, bool(error)) == (True, bool(problem))
    assert times == list(range(11))


def chunk(name: bytes, content: bytes) -> bytes:
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


AFTER = {  # the last picture of AVI
    "info": chunk(b"LIST", b"INFO" + chunk(b"ISFT", bytes(9_000))),
    "xmp": chunk(b"_PMX", bytes(9_000)),
    "nothing shown": chunk(b"00dc", b"") * 1_000,
    "next part": chunk(b"RIFF", b"AVIX" + chunk(b"LIST", b"movi" + chunk(b"JUNK", bytes(9_000)))),
}


@pytest.mark.parametrize("after", AFTER)
def test_what_may_follow_the_pictures_of_avi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    monkeypatch.setattr(film_file, "HOLE_BYTES", (2**10, 100_000))  # as in a larger film
    path = film_of(tmp_path / "film.avi", list(range(275)), 25)
    path.write_bytes(path.read_bytes().partition(b"idx1")[0] + AFTER[after])
    assert read_here(path) == (list(range(11)), "")


def test_empty_chunks_may_follow_a_long_chunk_of_sound(tmp_path: Path) -> None:
    """FFmpeg divides a chunk of half a second, as VirtualDub writes them, into packets of 1,024 samples."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    path = tmp_path / "film.avi"
    with av.open(str(path), "w") as film:
        pictures = film.add_stream("mpeg4", rate=25)
        sound = film.add_stream("pcm_s16le", rate=44_100, layout="mono")
        pictures.width = 64
        pictures.height = 48
        pictures.pix_fmt = "yuv420p"
        for number in range(250):
            frame = av.VideoFrame.from_image(draw_image(number // 25, (64, 48)))
            frame.pts = number
            frame.time_base = Fraction(1, 25)
            film.mux(pictures.encode(frame))
        film.mux(pictures.encode())
        noise = np.random.default_rng(0).integers(-9_000, 9_000, (1, 22_050), np.int16)
        for number in range(20):
            frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
            frame.sample_rate = 44_100
            frame.pts = number * 22_050
            frame.time_base = Fraction(1, 44_100)
            film.mux(sound.encode(frame))
        film.mux(sound.encode())
    data = path.read_bytes().partition(b"idx1")[0]
    at = data.index(b"strh") + 8 + 32  # number of pictures
    data = data[8:at] + (500).to_bytes(4, "little") + data[at + 4 :] + chunk(b"00dc", b"") * 250
    path.write_bytes(chunk(b"RIFF", data))
    assert read_here(path) == (list(range(20)), "")


@pytest.mark.parametrize("lost", [b"sound", bytes(9_000)])
def test_an_empty_chunk_before_lost_pictures_is_no_end(tmp_path: Path, lost: bytes) -> None:
    path = film_of(tmp_path / "film.avi", list(range(250)), 10)
    data = path.read_bytes()
    at = data.index(b"00dc", len(data) // 2)
    lost = chunk(b"01wb", lost) if lost.strip(b"\0") else lost
    path.write_bytes(data[:at] + chunk(b"00dc", b"") + lost)
    times, error = read_here(path)
    assert "it should last 25 s" in error
    assert len(times) < 20


@pytest.mark.parametrize("end", [bytes(4), b"", bytes(20), b"\n"], ids=["zero", "missing", "padded", "line"])
def test_the_last_bytes_of_flv_may_be_odd(tmp_path: Path, end: bytes) -> None:
    path = film_of(tmp_path / "film.flv", list(range(275)), 25, codec="flv")
    path.write_bytes(path.read_bytes()[:-4] + end)
    assert read_here(path) == (list(range(11)), "")


@pytest.mark.parametrize("ending", ["avi", "mkv", "wmv"])
def test_a_film_of_full_length_whose_last_pictures_are_zeros_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(film_file, "HOLE_BYTES", (2**10, 100_000))  # as in a larger film
    codec, options = ("wmv2", {"packet_size": "400"}) if ending == "wmv" else ("mpeg4", {})
    path = film_of(tmp_path / f"film.{ending}", list(range(290)), 4, codec=codec, options=options)
    data = path.read_bytes()
    kept = int((0.92 if ending == "avi" else 0.96) * len(data))  # 4 % of this AVI are its index
    path.write_bytes(data[:kept] + bytes(len(data) - kept))
    times, error = read_here(path)
    assert "of the file can't be read" in error
    assert 68 <= len(times) <= 73


def test_zeros_in_mov_are_damage(tmp_path: Path) -> None:
    """The decoder of MPEG-2 leaves such pictures out, and the others would be shown longer."""
    path = film_of(tmp_path / "film.mov", list(range(100)), 10, "mpeg2video", {"movflags": "faststart"})
    assert read_here(path) == (list(range(10)), "")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert "of the file can't be read" in read_here(path)[1]


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
    def broken() -> Iterator[Shown]:
        for place in range(2):
            yield Shown(place, 1, np.zeros((36, 64), np.int16), (8, 8), lambda: Image.new("RGB", (8, 8)))
        raise ValueError("damaged")

    sampled = (time_s for time_s, _, frame in moments(broken(), 0.5) if frame is not None)
    assert [next(sampled) for _ in range(4)] == [0, 0.5, 1, 1.5]
    with pytest.raises(ValueError, match="damaged"):
        next(sampled)
