"""Films: moments, shots, tables over time, timelines; broken ones give what can be read."""

import csv
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import uniemox
from tests.drawn import draw_image
from tests.predict.films import shots
from tests.runs import uniemox_here
from uniemox.errors import ConfigError, DataError, MissingPackageError
from uniemox.io.decoding.film import moments
from uniemox.io.decoding.film_frames import DecodedFrame
from uniemox.predict import film
from uniemox.predict.film import Frame, parse_time, read_film
from uniemox.predict.timeline import draw_timelines

SMALL = ("--model", "small", "--no-persons")
RATE = 10


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """f.mkv, f.mp4: three shots of two seconds; f.gif, f.webp: the same at five frames a second."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    folder = tmp_path_factory.mktemp("films")
    for name in ("f.mkv", "f.mp4", "long.mkv"):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream("mpeg4", rate=RATE)
            stream.width = 96
            stream.height = 64
            stream.pix_fmt = "yuv420p"
            for image in shots() * (10 if name == "long.mkv" else 1):
                for _ in range(2 * RATE):
                    container.mux(stream.encode(av.VideoFrame.from_image(image)))
            container.mux(stream.encode())
    frames = [one for image in shots() for one in [image] * 10]
    for name in ("f.gif", "f.webp"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:], duration=200, loop=0)
    return folder


@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG"])
def test_a_small_animation_may_not_take_much_memory(fmt: str, tmp_path: Path) -> None:
    path = tmp_path / f"f.{fmt.lower()}"
    small = draw_image(1).resize((60, 60))
    small.save(path, fmt, save_all=True, append_images=[small.rotate(90)], duration=100, lossless=True)
    data = bytearray(path.read_bytes())
    at, size = {"GIF": (6, struct.pack("<HH", 9999, 9999)), "WEBP": (24, struct.pack("<I", 9998)[:3] * 2)}.get(
        fmt, (16, struct.pack(">II", 9999, 9999))
    )
    data[at : at + len(size)] = size
    if fmt == "PNG":
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    [only] = read_film(str(path), 1)
    assert only.image is None
    assert "may take 600" in str(only.error)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["f.mkv", "f.mp4", "f.gif", "f.webp"])
def test_moments_and_shots(films: Path, name: str) -> None:
    found = list(read_film(str(films / name), 0.5))
    assert [one.time_s for one in found] == [place / 2 for place in range(12)]
    assert [one.shot for one in found] == [1] * 4 + [2] * 4 + [3] * 4
    for one in found:
        assert one.image is not None
        assert one.size == one.image.size == (96, 64)
        expected = np.asarray(shots()[one.shot - 1], float)
        assert np.abs(np.asarray(one.image, float) - expected).mean() < 30
    assert found[3].path == f"{films / name}#t={found[3].time_s:g}"


@pytest.mark.thorough
def test_frames_of_an_animation_that_last_10_ms_last_100_ms_as_in_browsers(tmp_path: Path) -> None:
    pictures = [draw_image(i) for i in range(12)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=10)
    assert [one.time_s for one in read_film(str(tmp_path / "a.gif"), 0.5)] == [0, 0.5, 1]


def test_moments_beyond_the_end_are_left_out(films: Path) -> None:
    assert [one.time_s for one in read_film(str(films / "f.mkv"), 100)] == [0]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), None),
        ((0, 1, -1, 0), Image.Transpose.ROTATE_270),
        ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
        ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
        ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
        ((1, 0, 0, -1), Image.Transpose.FLIP_TOP_BOTTOM),
        ((0, 1, 1, 0), Image.Transpose.TRANSPOSE),
        ((0, -1, -1, 0), Image.Transpose.TRANSVERSE),
    ],
)
def test_films_of_a_turned_or_mirrored_camera_are_upright(
    films: Path, tmp_path: Path, matrix: tuple[int, ...], turn: Image.Transpose | None
) -> None:
    """The matrix of the track in an mp4 turns its pictures."""
    content = bytearray((films / "f.mp4").read_bytes())
    a, b, c, d = (one << 16 for one in matrix)
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(content)
    _, shown, _ = (one.image for one in read_film(str(tmp_path / "turned.mp4"), 2))
    assert shown is not None
    wanted = shots()[1] if turn is None else shots()[1].transpose(turn)
    assert shown.size == wanted.size
    assert np.abs(np.asarray(shown, np.float32) - np.asarray(wanted, np.float32)).mean() < 25  # of 68 and more


def test_large_films_are_scaled_down_and_boxes_are_in_their_px(tmp_path: Path) -> None:
    image = draw_image(1).resize((1600, 1200))
    image.save(tmp_path / "f.gif", save_all=True, append_images=[draw_image(2).resize((1600, 1200))], duration=500)
    [first, _] = read_film(str(tmp_path / "f.gif"), 0.5)
    assert first.image is not None
    assert (first.size, first.image.size) == ((1600, 1200), (960, 720))
    answer = uniemox.load("small", finder=None).predict(first)
    assert (answer.width_px, answer.height_px, answer.time_s, answer.shot, answer.source) == (1600, 1200, 0, 1, None)


def test_a_cut_off_film_ends_with_an_error_frame(films: Path, tmp_path: Path) -> None:
    whole = (films / "long.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    *frames, last = read_film(str(tmp_path / "cut.mkv"), 1)
    assert len(frames) > 10
    assert all(frame.image is not None for frame in frames)
    assert last.image is None
    assert "can't be read beyond" in last.error
    assert "it should last 60 s" in last.error


@pytest.mark.parametrize("name", ["none.mp4", "noise.mp4", "empty.mkv", "text.gif", "folder.mp4"])
def test_files_that_are_no_films_give_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.mkv").touch()
    (tmp_path / "text.gif").write_text("GIF89a and no more")
    (tmp_path / "folder.mp4").mkdir()
    pytest.importorskip("av")
    [only] = read_film(str(tmp_path / name), 1)
    assert only.image is None
    assert only.path == str(tmp_path / name)
    assert name in only.error


@pytest.mark.thorough
@settings(max_examples=12)
@given(st.binary(max_size=64), st.integers(0, 10**6))
def test_damaged_films_fail_alone(films: Path, junk: bytes, place: int) -> None:
    whole = bytearray((films / "f.mkv").read_bytes())
    start = place % len(whole)
    whole[start : start + len(junk)] = junk
    damaged = films / "damaged.mkv"
    damaged.write_bytes(whole)
    found = list(read_film(str(damaged), 1))
    assert all(one.image is not None for one in found[:-1])


@given(st.lists(st.integers(0, 500), min_size=1, max_size=30), st.sampled_from([0.1, 0.25, 1.0]))
def test_a_moment_shows_the_frame_that_began_last(gaps_ms: list[int], every_s: float) -> None:
    gaps = [gap / 1000 for gap in gaps_ms]
    begins = np.cumsum([0, *gaps_ms[:-1]]) / 1000
    grey = np.zeros((36, 64), np.int16)
    frames = [DecodedFrame(start, gap, grey, (1, 1), draw_image) for start, gap in zip(begins, gaps, strict=True)]  # type: ignore[arg-type]
    told = [(time_s, shown.time_s) for time_s, _, shown in moments(frames, every_s) if shown is not None]
    assert [time_s for time_s, _ in told] == [every_s * place for place in range(len(told))]
    for time_s, start in told:
        assert start == max(begin for begin in begins if begin <= time_s + 1e-5)


def test_a_frame_that_claims_to_last_for_years_is_cut_short() -> None:
    still = DecodedFrame(0.0, 1e9, np.zeros((36, 64), np.int16), (1, 1), lambda: shots()[0])
    assert len([one for one in moments([still], 100) if one[2] is not None]) == 6
    late = still._replace(time_s=1e8, duration_s=1.0)
    assert [one[0] for one in moments([still, late], 100) if one[2] is not None] == [0, 100, 200, 300, 400, 500, 1e8]


def test_a_timeline_of_centuries_is_drawn_at_once(tmp_path: Path) -> None:
    lines = [
        {"path": f"a.mp4#t={t:.12g}", "time_s": t, "shot": 0, "scene": {"awe": 0.5, "fear": 0.5}} for t in (0, 9e15)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = draw_timelines(tmp_path / "a.jsonl")
    assert drawn is not None
    assert drawn.width == 1200


@pytest.mark.parametrize(
    ("change", "where"),
    [
        *(({"time_s": wrong}, ":2: field time_s: ") for wrong in ("x", None, [], 10**400, float("inf"), 1e308)),
        *(({"valence": wrong}, ":2: field valence: ") for wrong in ("x", {}, 10**400, float("nan"))),
        ({"path": None}, ":2: a frame without path"),
        ({"scene": None}, ":2: field scene: expected an object, got null"),
        ({"scene": {"joy": 1.0}}, ": a field"),
        ({"time_s": 0}, ": a field"),
    ],
)
def test_a_timeline_names_a_line_with_a_wrong_field(tmp_path: Path, change: dict[str, object], where: str) -> None:
    line = {"path": "a.mp4#t=0", "time_s": 0, "shot": 0, "scene": {"awe": 1.0}}
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (line, line | {"time_s": 1} | change)))
    with pytest.raises(DataError, match=rf"a\.jsonl{where}"):
        draw_timelines(tmp_path / "a.jsonl")


def test_a_timeline_has_all_moments_of_a_resumed_film(tmp_path: Path) -> None:
    times = [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("a", 2), ("a", 3)]
    drawn = []
    for order in (times, sorted(times)):
        lines = [
            {"path": f"{name}.mp4#t={t}", "time_s": t, "shot": 0, "scene": {"awe": t / 4, "fear": 1 - t / 4}}
            for name, t in order
        ]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        drawn.append(np.asarray(draw_timelines(tmp_path / "a.jsonl")))
    assert np.array_equal(*drawn)


def test_moments_long_after_the_start_have_paths_of_their_own() -> None:
    paths = {Frame("a.mp4", time_s, 0, Image.new("RGB", (1, 1)), (1, 1)).path for time_s in (0.5, 1e6, 1e6 + 1)}
    assert paths == {"a.mp4#t=0.5", "a.mp4#t=1000000", "a.mp4#t=1000001"}


@pytest.mark.thorough
def test_the_command_gives_a_table_and_a_timeline_and_resumes(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.csv"
    words = ("predict", films / "f.mkv", films / "f.gif", *SMALL, "--every", "1s", "--out", out)
    done = uniemox_here(*words, "--timeline", tmp_path / "c.png")
    assert done.returncode == 0, done.stderr
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["time_s"]) for row in rows] == [*range(6), *range(6)]
    assert [row["shot"] for row in rows[:6]] == ["1", "1", "2", "2", "3", "3"]
    with Image.open(tmp_path / "c.png") as drawn:
        assert drawn.width == 1200
        assert len(drawn.convert("RGB").getcolors(1 << 20)) > 8
    lines = tmp_path / "c.csv.jsonl"
    kept = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join(kept[:4]))
    assert "12 images (4 of them already existed)" in uniemox_here(*words, "--resume").stderr
    assert sorted(lines.read_text().splitlines(keepends=True)) == sorted(kept)
    # All frames of a video that was written since are predicted again.
    written_ns = lines.stat().st_mtime_ns
    os.utime(films / "f.gif", ns=(written_ns, written_ns + 1))
    assert "12 images (6 of them already existed)" in uniemox_here(*words, "--resume").stderr
    assert sorted(lines.read_text().splitlines(keepends=True)) == sorted(kept)
    assert "with moments of films" in uniemox_here("predict", films / "f.gif", *SMALL, "--out", out, "--resume").stderr


def test_a_broken_film_is_a_failure_beside_its_answers(films: Path, tmp_path: Path) -> None:
    whole = (films / "long.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    done = uniemox_here("predict", tmp_path / "cut.mkv", *SMALL, "--every", "5s", "--json")
    assert done.returncode == 3
    *answers, failure = map(json.loads, done.stdout.splitlines())
    assert len(answers) >= 3
    assert "cut off" in failure["error"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("f.mp4",), "a video; uniemox predict --every 1s reads one frame per second"),
        (("f.mp4", "--every", "soon"), "expected a time such as 1s, 500ms or 2min"),
        (("f.mp4", "--every", "0"), "expected a time such as 1s"),
        (("f.mp4", "--every", "1s", "--save-images", "x"), "do not work with videos"),
        (("f.mp4", "--every", "1s", "--timeline", "x.png"), "give --every and --out too"),
        (("f.mp4", "--out", "x.csv", "--timeline", "x.png"), "give --every and --out too"),
        (("f.png", "--every", "1s", "--out", "x.csv", "--timeline", "f.png"), "f.png is one of the videos"),
    ],
)
def test_what_can_t_be_asked(
    films: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(films)
    done = uniemox_here("predict", *words, *SMALL)
    assert done.returncode in (2, 3)
    assert message in " ".join(done.stderr.split())
    assert not (films / "x.csv").exists()


@given(st.integers(1, 10**4))
def test_times_are_parsed_in_all_units(number: int) -> None:
    assert parse_time(f"{number}") == parse_time(f"{number}s") == parse_time(f"{1000 * number}ms") == number
    assert parse_time(f" {number} min ") == 60 * number


def test_a_still_image_is_named_as_one(tmp_path: Path) -> None:
    pytest.importorskip("av")
    Image.new("RGB", (64, 48), (200, 20, 20)).save(tmp_path / "a.jpg")
    [only] = read_film(str(tmp_path / "a.jpg"), 1)
    assert str(only.error).endswith("it has the name of an image, which is predicted without --every")


@pytest.mark.parametrize("text", ["", "s", "-1s", "1h", "1e3", "0.001s", "inf", "1s1"])
def test_invalid_times_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected a time"):
        parse_time(text)


def test_without_pyav_it_says_what_to_install(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"uniemox\[video\]"):
        next(read_film(str(films / "f.mkv"), 1))
    assert isinstance(next(read_film(str(films / "f.gif"), 1)), Frame)


@pytest.mark.thorough
@pytest.mark.parametrize(("ratio", "width"), [((4, 3), 128), ((1, 2), 48), ((1, 1), 96), ((50, 1), 96)])
def test_pixels_that_are_not_square_are_stretched(tmp_path: Path, ratio: tuple[int, int], width: int) -> None:
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    with av.open(str(tmp_path / "a.mp4"), "w") as film:
        stream = film.add_stream("libx264", 1, width=96, height=64, pix_fmt="yuv420p")
        stream.codec_context.sample_aspect_ratio = Fraction(*ratio)
        film.mux(stream.encode(av.VideoFrame.from_image(shots()[0])))
        film.mux(stream.encode())
    [only] = read_film(str(tmp_path / "a.mp4"), 1)
    assert only.image is not None
    assert (only.image.size, only.size) == ((width, 64), (width, 64))


def test_the_shape_of_pixels_may_change_in_a_broadcast(tmp_path: Path) -> None:
    """A film in 16:9 follows an advertisement in 4:3."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    for part, ratio in enumerate((Fraction(1), Fraction(4, 3))):
        with av.open(str(tmp_path / f"{part}.ts"), "w") as film:
            stream = film.add_stream("mpeg2video", 25, width=96, height=72, pix_fmt="yuv420p")
            stream.codec_context.sample_aspect_ratio = ratio
            for number in range(25):
                frame = av.VideoFrame.from_image(shots()[0].resize((96, 72)))
                frame.pts = 25 * part + number
                frame.time_base = Fraction(1, 25)
                film.mux(stream.encode(frame))
            film.mux(stream.encode())
    (tmp_path / "a.ts").write_bytes(b"".join((tmp_path / f"{part}.ts").read_bytes() for part in range(2)))
    assert [one.size for one in read_film(str(tmp_path / "a.ts"), 1)] == [(96, 72), (128, 72)]


def test_a_decoder_that_dies_is_a_failure(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = read_film(str(films / "long.mkv"), 0.1)
    first = next(reading)
    assert first.image is not None
    monkeypatch.setattr(film, "WAIT_S", 0.0)  # the process is ended before it can say more
    *_, last = reading
    assert last.image is None
    assert "died" in last.error


@pytest.mark.thorough
def test_a_strip_that_would_take_gigabytes_is_refused(tmp_path: Path) -> None:
    rows = zlib.compress(bytes(138_001) * 720)
    header = struct.pack(">IIBBBBB", 138_000, 720, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    body = b"".join(
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big") for name, data in chunks
    )
    (tmp_path / "wide.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    [last] = read_film(str(tmp_path / "wide.png"), 1)
    assert "138000 x 720 px" in last.error


def test_a_small_file_does_not_ask_for_a_million_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames claim eleven minutes each. The limit is the decoder's: its program runs here."""
    frames = [draw_image(i % 2, (32, 24)) for i in range(40)]
    frames[0].save(tmp_path / "long.gif", save_all=True, append_images=frames[1:], duration=655_000)
    code = (
        "import sys; from uniemox.io.decoding import film; film.MAX_ANSWERS = 50; "
        f"sys.argv = ['film', {str(tmp_path / 'long.gif')!r}, '10']; film.main()"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60).stdout
    assert "more than 50 moments; ask for fewer" in json.loads(out[out.rindex(b'{"end_s"') :])["error"]


@pytest.mark.parametrize(
    ("change", "duration", "why"),
    [("film.TOTAL_CPU_S = -1e9", 100, "of processor time"), ("pass", 2e15, "more than 30 years")],
)
def test_a_film_without_an_end_is_refused(tmp_path: Path, change: str, duration: float, why: str) -> None:
    """Its decoding would take days; or a text in it sets the time of a frame, which no table of answers holds."""
    file = tmp_path / "far.png"
    draw_image(0).save(file, save_all=True, append_images=[draw_image(1), draw_image(2)], duration=100)
    text = b"duration\0" + str(duration).encode()
    data = file.read_bytes()
    chunk = struct.pack(">I", len(text)) + b"tEXt" + text + struct.pack(">I", zlib.crc32(b"tEXt" + text))
    at = data.index(b"IDAT") - 4
    file.write_bytes(data[:at] + chunk + data[at:])
    code = (
        f"import sys; from uniemox.io.decoding import film; {change}; "
        f"sys.argv = ['film', {str(file)!r}, '300']; film.main()"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60).stdout
    assert why in json.loads(out[out.rindex(b'{"end_s"') :])["error"]


def test_signs_of_life_do_not_extend_the_time_for_an_answer(tmp_path: Path) -> None:
    """A film whose frames take the processor for ever, each for less than a minute, has no answer at all."""
    code = (
        "import sys, time; from uniemox.io.decoding import film; film.CPU_S = film.CPU_PER_S = 0\n"
        "def endless(path):\n  while True: yield film.DecodedFrame(0.0, 0.001, None, (1, 1), None)\n"
        "film.read_animation = endless; film.moments = lambda frames, every_s: ((0.0, 1, None) for _ in frames)\n"
        f"sys.argv = ['film', {str(tmp_path / 'a.gif')!r}, '1']; film.main()"
    )
    (tmp_path / "a.gif").touch()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGXCPU


@pytest.mark.parametrize(
    ("size", "sent"), [((3000, 300), (2048, 205)), ((1600, 1200), (960, 720)), ((90, 60), (90, 60))]
)
def test_frames_are_sent_in_a_limited_size(tmp_path: Path, size: tuple[int, int], sent: tuple[int, int]) -> None:
    draw_image(0).resize(size).save(tmp_path / "a.gif")
    first = next(read_film(str(tmp_path / "a.gif"), 1))
    assert first.image is not None
    assert (first.image.size, first.size) == (sent, size)


def test_a_frame_may_not_enlarge_a_small_animation(tmp_path: Path) -> None:
    """587 bytes of GIF took a minute and a half and 2.8 GiB."""
    head = b"GIF89a" + struct.pack("<HHBBB", 96, 64, 0x80, 0, 0) + bytes(6)

    def frame(x: int, y: int) -> bytes:
        return b"\x2c" + struct.pack("<HHHHB", x, y, 1, 1, 0) + b"\x02\x02\x44\x01\x00"

    (tmp_path / "far.gif").write_bytes(head + frame(0, 0) + frame(60_000, 2_900) * 20 + b";")
    *_, last = read_film(str(tmp_path / "far.gif"), 1)
    assert last.image is None
    assert "60001 x 2901 px is more than the 100 megapixels" in str(last.error)
