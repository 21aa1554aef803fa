"""Films: time stamps that begin late or again, joined parts, last pictures, and what is read beside pictures."""

import gc
import io
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.drawn import draw_image
from tests.predict.films import film_of, read_here, shots, slides
from uniemox.io.decoding import film_frames
from uniemox.io.decoding.film_frames import PacketReader, read_video
from uniemox.predict.film import read_film


def test_the_first_frame_is_at_0_however_late_its_time_stamp(tmp_path: Path) -> None:
    """Recordings of broadcasts begin at any time."""
    late = film_of(tmp_path / "late.mkv", list(range(50_000, 50_006)))
    assert [one.time_s for one in read_film(str(late), 1)] == [0, 1, 2, 3, 4, 5]


def test_joined_films_are_read_to_their_end(tmp_path: Path) -> None:
    """Time stamps begin anew where one transport stream follows another in a file."""
    once = film_of(tmp_path / "once.ts", list(range(6))).read_bytes()
    (tmp_path / "twice.ts").write_bytes(once * 2)
    found = [one.time_s for one in read_film(str(tmp_path / "twice.ts"), 1) if one.image is not None]
    assert len(found) >= 2 * 6 - 1
    assert found == sorted(found)


def test_films_joined_with_a_gap_do_not_wait_for_it(tmp_path: Path) -> None:
    """The second recording began an hour later."""
    parts = [film_of(tmp_path / f"{at}.ts", list(range(at, at + 20)), per_s=10) for at in (0, 36_000)]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    found = list(read_film(str(tmp_path / "both.ts"), 0.5))
    assert len(found) in (7, 8)
    assert found[-1].time_s <= 4
    assert all(one.image is not None for one in found)


def test_the_last_frame_of_joined_films_ends_with_its_part(tmp_path: Path) -> None:
    """The container declares the duration of the first part, which is longer."""
    parts = [film_of(tmp_path / f"{count}.mkv", list(range(count)), per_s=10) for count in (27, 5)]
    (tmp_path / "both.mkv").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert [one.time_s for one in read_film(str(tmp_path / "both.mkv"), 0.5)][-1] == 3


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("ending", "codec"),
    [("mp4", "mpeg4"), ("mp4", "libvpx-vp9"), ("mov", "mpeg4"), ("mkv", "mpeg4"), ("webm", "libvpx")],
)
@pytest.mark.parametrize("count", [1, 3])
def test_the_last_frame_may_last_long(tmp_path: Path, ending: str, codec: str, count: int) -> None:
    film = slides(tmp_path / f"slides.{ending}", count, 10, codec=codec, last_s=60)
    found = list(read_film(str(film), 10))
    assert [one.time_s for one in found if one.image is not None] == [10 * place for place in range(count + 5)]
    assert found[-1].image is not None


@pytest.mark.parametrize("ending", ["avi", "wmv"])
def test_a_long_last_frame_of_avi_and_wmv_is_reported_as_a_missing_end(tmp_path: Path, ending: str) -> None:
    """Their packets do not say how long the last picture lasts, so nothing tells it from a film that is cut off."""
    codec = "wmv2" if ending == "wmv" else "mpeg4"
    times, error = read_here(slides(tmp_path / f"slides.{ending}", 3, 10, codec=codec, last_s=60))
    assert times == list(range(21))
    assert "it should last 80 s" in error


@pytest.mark.parametrize("ending", ["ts", "mkv", "mp4"])
def test_a_frame_may_last_long_while_the_sound_goes_on(tmp_path: Path, ending: str) -> None:
    """In a transport stream, a picture's packet is complete only when the next one begins."""
    stamps = [*range(50), *range(350, 400)]  # two seconds of film, a picture of 12 s, and two seconds of film
    found = list(read_film(str(film_of(tmp_path / f"film.{ending}", stamps, 25, sound_s=16)), 1))
    assert [one.time_s for one in found] == list(range(16))


@pytest.mark.thorough
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_sound_may_be_longer_than_the_frames(tmp_path: Path, ending: str) -> None:
    found = list(read_film(str(slides(tmp_path / f"song.{ending}", 1, 1, sound_s=30)), 1))
    assert found
    assert all(one.image is not None for one in found)


def test_subtitles_may_be_longer_than_the_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    lines = (
        f"{n + 1}\n00:00:{3 * n:02},000 --> 00:00:{3 * n + 2:02},500\n{'What is said. ' * 20}\n" for n in range(15)
    )
    (tmp_path / "said.srt").write_text("\n".join(lines))
    film_of(tmp_path / "silent.mkv", list(range(6)))
    with (
        av.open(str(tmp_path / "silent.mkv")) as film,
        av.open(str(tmp_path / "said.srt")) as said,
        av.open(str(tmp_path / "both.mkv"), "w") as both,
    ):
        streams = [both.add_stream_from_template(source.streams[0]) for source in (film, said)]
        for source, stream in zip((film, said), streams, strict=True):
            for packet in source.demux():
                if packet.size:
                    packet.stream = stream
                    both.mux(packet)
    found = [(one.time_s, one.error) for one in read_film(str(tmp_path / "both.mkv"), 1)]
    assert found == [(n, "") for n in range(6)]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, ""),
        ({"mpegts_start_pid": "512"}, "of the file, after its last picture, can't be read"),
        (
            {"mpegts_start_pid": "512", "mpegts_pmt_start_pid": "8000"},
            "of the file, after its last picture, can't be read",
        ),
    ],
    ids=["the same", "another stream", "another list of streams"],
)
def test_recordings_of_two_channels_are_not_half_read_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], error: str
) -> None:
    monkeypatch.setattr(film_frames, "MAX_TAIL_BYTES", 2**10)
    paths = [
        film_of(tmp_path / f"{start}.ts", list(range(start, start + 75)), 25, codec="mpeg2video", options=part_options)
        for start, part_options in ((0, {}), (75, options))
    ]
    (tmp_path / "both.ts").write_bytes(b"".join(path.read_bytes() for path in paths))
    times, actual_error = read_here(tmp_path / "both.ts")
    assert error in actual_error
    assert len(times) == (3 if error else 6)


@pytest.mark.parametrize("ending", ["wmv", "flv"])
def test_durations_may_count_from_0_and_stamps_begin_late(tmp_path: Path, ending: str) -> None:
    codec = {"wmv": "wmv2", "flv": "flv"}[ending]
    options = {"flvflags": "no_duration_filesize"} if ending == "flv" else {}
    late = film_of(tmp_path / f"late.{ending}", list(range(300, 320)), per_s=10, codec=codec, options=options)
    found = list(read_film(str(late), 0.5))
    assert [one.time_s for one in found] == [0, 0.5, 1, 1.5]
    assert all(one.image is not None for one in found)


@pytest.mark.parametrize("late", [0, 1])
def test_sound_of_wmv_may_begin_later_than_the_frames(tmp_path: Path, late: int) -> None:
    """FFmpeg adds the difference to the duration of the film."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    path = film_of(tmp_path / "film.wmv", list(range(200)), 25, codec="wmv2", sound_s=8)
    with av.open(str(path)) as film, av.open(str(tmp_path / "late.wmv"), "w") as shifted:
        streams = [shifted.add_stream_from_template(one) for one in film.streams]
        for packet in film.demux():
            if packet.dts is not None:
                packet.pts += 5000 * (packet.stream.index == late)
                packet.dts = packet.pts
                packet.stream = streams[packet.stream.index]
                shifted.mux(packet)
    assert read_here(tmp_path / "late.wmv") == (list(range(8)), "")


def test_a_film_that_is_read_without_finding_frames_reports_progress(tmp_path: Path) -> None:
    """Skipping zeros may take longer than a minute, after which a silent process is ended."""
    path = film_of(tmp_path / "film.ts", list(range(275)), 25, codec="mpeg2video")
    reports = list[bool]()
    path.write_bytes(path.read_bytes() + bytes(2**24))
    times, error = read_here(path, lambda: reports.append(True))
    assert len(reports) >= 200
    assert times == list(range(11))
    assert "of the file, after its last picture, can't be read" in error


def test_frames_with_exif_are_read(tmp_path: Path) -> None:
    """PyAV does not know the kind of side data that they bring."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    about = Image.Exif()
    about[0x010F] = "a camera"
    with av.open(str(tmp_path / "film.mov"), "w") as film:
        stream = film.add_stream("mjpeg", 1, width=64, height=48, pix_fmt="yuvj420p")
        for number in range(3):
            image = io.BytesIO()
            draw_image(number, (64, 48)).save(image, "JPEG", exif=about)
            packet = av.Packet(image.getvalue())
            packet.stream = stream
            packet.pts = number
            packet.dts = number
            packet.time_base = Fraction(1)
            packet.is_keyframe = True
            film.mux(packet)
    assert read_here(tmp_path / "film.mov") == ([0, 1, 2], "")


def test_frames_are_freed_at_once(tmp_path: Path) -> None:
    """Each one holds threads, which would use up the process's memory before garbage is collected."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    path = film_of(tmp_path / "film.mp4", list(range(40)))
    gc.collect()
    gc.disable()
    try:
        assert len(read_here(path)[0]) == 40
        assert sum(isinstance(one, av.VideoFrame) for one in gc.get_objects()) <= 2
    finally:
        gc.enable()


def test_an_empty_packet_shows_the_frame_before_it_again() -> None:
    """Theora writes one where a picture did not change; FFmpeg's decoder refuses it."""
    stream = SimpleNamespace(index=0, type="video", time_base=Fraction(1))

    def packet(size: int, pts: int | None) -> SimpleNamespace:
        about = {"pts": pts, "dts": pts, "duration": 1, "pos": pts, "stream": stream, "is_corrupt": False}
        return SimpleNamespace(size=size, decode=lambda: [(size, pts)], **about)

    packets = [packet(9, 0), packet(0, 1), packet(9, 2), packet(0, None)]  # the last one flushes the decoder
    container = SimpleNamespace(format=SimpleNamespace(name="ogg"), streams=[stream], demux=lambda: packets)
    assert list(PacketReader(container, stream, lambda: None).frames()) == [(9, 0), (9, 2), (0, None)]


@pytest.mark.thorough
def test_a_frame_with_long_sound_reports_progress(tmp_path: Path) -> None:
    path = film_of(tmp_path / "song.mkv", [0], sound_s=120)
    reports = list[bool]()
    read_here(path, lambda: reports.append(True))
    assert reports


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])  # libx264: its decoder gives frames later
@pytest.mark.parametrize("seconds", [0.9, 0.5])
def test_joined_clips_of_less_than_a_second_are_read_to_their_end(tmp_path: Path, seconds: float, codec: str) -> None:
    once = film_of(tmp_path / "once.ts", list(range(round(seconds * 10))), per_s=10, codec=codec).read_bytes()
    (tmp_path / "joined.ts").write_bytes(once * 20)
    found = [one.time_s for one in read_film(str(tmp_path / "joined.ts"), 1) if one.image is not None]
    assert len(found) >= 20 * seconds - 2
    assert found == sorted(found)


def with_b_frames(
    path: Path, kind: str, codec: str, count: int, per_s: int, step: int = 1, pictures: int = 100
) -> Path:
    """A film of pictures in shots of 25, step / per_s seconds apart, with up to `count` B-frames in a row."""
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=per_s)
        stream.width = 96
        stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.max_b_frames = count
        for i in range(pictures):
            frame = av.VideoFrame.from_image(shots()[i // 25 % len(shots())])
            frame.pts = step * i
            frame.time_base = Fraction(1, per_s)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_one_time_stamp_far_ahead_costs_at_most_two_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
    path = film_of(tmp_path / "film.ts", list(range(60)))
    with av.open(str(path)) as film, av.open(str(tmp_path / "wild.ts"), "w") as wild:
        stream = wild.add_stream_from_template(film.streams[0])
        packets = [packet for packet in film.demux() if packet.size]
        for number, packet in enumerate(packets):
            packet.stream = stream
            if number == 20:
                packet.pts = packet.pts + 60 * 90_000
            wild.mux(packet)
    assert len(list(read_video(tmp_path / "wild.ts", lambda: None))) >= 58


def test_films_joined_long_after_a_hole_lose_no_frame(tmp_path: Path) -> None:
    first = film_of(tmp_path / "first.ts", [0, 1, 2, *range(5, 40)])
    film_of(tmp_path / "second.ts", list(range(20, 30)))
    with first.open("ab") as film:
        film.write((tmp_path / "second.ts").read_bytes())
    assert len(list(read_video(first, lambda: None))) == 48


@pytest.mark.thorough
def test_times_go_on_after_a_hole(tmp_path: Path) -> None:
    """A decoder gives a picture that it had held before, later than those after the hole."""
    path = with_b_frames(tmp_path / "film.ts", "mpegts", "mpeg2video", 2, 25, pictures=750)
    data = path.read_bytes()
    first, after = (int(share * len(data)) // 188 * 188 for share in (0.3, 0.3 + 2 / 30))
    path.write_bytes(data[:first] + data[after:])
    assert read_here(path)[0] == list(range(30))


@pytest.mark.parametrize(("per_s", "step"), [(1, 1), (25, 1), (1, 5)])
def test_frames_of_avi_are_in_the_order_in_which_they_are_shown(tmp_path: Path, per_s: int, step: int) -> None:
    """AVI has no presentation times, and B-frames are stored after the frame that they precede."""
    path = with_b_frames(tmp_path / "film.avi", "avi", "libx264", 3, per_s, step)
    found = [frame.time_s for frame in read_video(path, lambda: None)]
    assert found == pytest.approx([step * number / per_s for number in range(100)])


@pytest.mark.parametrize(
    ("kind", "codec", "count"), [("asf", "mpeg2video", 2), ("avi", "libx264", 3), ("avi", "libx264", 16)]
)
def test_b_frames_are_no_joined_films(tmp_path: Path, kind: str, codec: str, count: int) -> None:
    """Their time stamps go back and forth if a container was written without their order."""
    path = with_b_frames(tmp_path / "b", kind, codec, count, 25)
    found = [one.time_s for one in read_film(str(path), 0.5) if one.image is not None]
    assert len(found) <= 9
    assert found == sorted(found)
