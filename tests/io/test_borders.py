"""Whatever fails while one image is read costs this image, with a message that says what happened; never the job."""

import re
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.drawn import draw_image, jpeg_of
from tests.images import FILE_STARTS, HUGE
from tests.runs import uniemox_here
from tests.serve.serving import image, predictor_of, running
from uniemox.data.inspection import inspect_image
from uniemox.data.sample import Broken, ImageFile, Sample, decode_sample
from uniemox.data.shard_writing import pack_image
from uniemox.errors import BoxError, ImageError, UnexpectedImageError, UniemoxError
from uniemox.evaluate.outputs import run_each
from uniemox.insight.explain.maps import heat_map
from uniemox.insight.survey.lines import date_taken
from uniemox.insight.survey.page import row_of_images
from uniemox.insight.survey.summary import SurveyImage
from uniemox.io import images
from uniemox.io.borders import MAX_SHOWN, image_border, shorten
from uniemox.io.decoding.pool import DecoderPool, look_here
from uniemox.io.images import MinSides, count_frames, decode, open_image
from uniemox.io.metadata import without_metadata
from uniemox.io.progress import silent
from uniemox.io.sized_image import SizedImage
from uniemox.predict.images import read_any
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.predictor import Predictor
from uniemox.views.loader import ViewDataset
from uniemox.views.transforms import EvalViews, ViewConfig

UNFORESEEN = [OverflowError("too large"), RecursionError("too deep"), LookupError("no such codec"), StopIteration(3)]


class StrangeError(Exception):
    """An exception of a library that nobody foresaw."""


def contents() -> st.SearchStrategy[bytes]:
    """The start of a format, then bytes of which many are extreme."""
    piece = st.one_of(
        st.binary(max_size=40), st.sampled_from([HUGE, bytes(8), b"\x7f" + b"\xff" * 7, b"Exif\0\0II*\0"])
    )
    tail = st.lists(piece, max_size=8).map(b"".join)
    return st.builds(bytes.__add__, st.sampled_from(sorted(FILE_STARTS.values())), tail)


def readers(path: Path) -> dict[str, Callable[[bytes], object]]:
    """Every function that reads the bytes of an image; path: a file that holds them."""
    sample = Sample(key=path.name, image=ImageFile(path))
    return {
        "open_image": lambda data: open_image(data, "a"),
        "decode": lambda data: decode(data, "a"),
        "decode, smaller": lambda data: decode(data, "a", shrink=MinSides(short_px=8)),
        "count_frames": lambda data: count_frames(open_image(data, "a"), "a"),
        "look_here": lambda data: look_here(data, "a", counts_frames=True),
        "read_any": read_any,
        "read_any, by path": lambda _: read_any(path, decode_file=decode),
        "inspect_image": lambda _: inspect_image(sample),
        "decode_sample": lambda _: decode_sample(sample),
        "pack_image": lambda data: pack_image(data, "a", 16),
        "date_taken": lambda _: date_taken(path),
        "without_metadata": lambda data: without_metadata(data, "a"),
    }


@given(contents())
@example(FILE_STARTS["BigTIFF"] + HUGE)
@example(FILE_STARTS["BigTIFF, big-endian"] + b"\0\0" + HUGE)
@example(b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + b"\x7f" + HUGE)
@settings(max_examples=60)
def test_random_bytes_behind_every_start_raise_only_our_errors(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "behind-a-start"
    path.write_bytes(data)
    for name, read in readers(path).items():
        # The processes of a pool are started for AVIF and HEIC: see the test below.
        if name == "read_any" and data[4:8] == b"ftyp":
            continue
        with suppress(UniemoxError):
            read(data)


@pytest.mark.parametrize("name", sorted(FILE_STARTS))
def test_extreme_numbers_behind_every_start_raise_only_errors_that_were_foreseen(name: str) -> None:
    for fill in (HUGE * 64, bytes(512), b"\x7f" * 512, b"\x80" + bytes(7)):
        with pytest.raises(ImageError) as raised:
            decode(FILE_STARTS[name] + fill, "a")
        assert not isinstance(raised.value, UnexpectedImageError), raised.value


def test_the_decoding_process_refuses_extreme_numbers_too() -> None:
    with closing(DecoderPool(1)) as pool:
        for start in FILE_STARTS.values():
            with pytest.raises(ImageError, match=r"^a: "):
                pool.decode(start + HUGE * 4, "a")


@pytest.mark.parametrize(
    "error", [*UNFORESEEN, StrangeError("x" * 1000), OSError(5, "Input/output error"), ValueError()]
)
def test_an_unforeseen_error_becomes_one_line_with_type_text_and_a_request(error: Exception) -> None:
    with pytest.raises(UnexpectedImageError) as raised, image_border("a.tif"):
        raise error
    message = str(raised.value)
    assert message.startswith(f"a.tif: can't be read ({type(error).__name__}")
    assert str(error)[:50] in message
    assert "please report this line" in message
    assert len(message) < 500
    assert "\n" not in message


class SilentError(Exception):
    """An exception whose text can't be made."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_an_error_without_a_text_still_gives_a_line() -> None:
    line = r"^a\.tif: can't be read \(SilentError\)\. .*please report"
    with pytest.raises(UnexpectedImageError, match=line), image_border("a.tif"):
        raise SilentError


def test_our_errors_and_interrupts_pass_the_border_unchanged() -> None:
    for error in (BoxError("no box"), ImageError("no image"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(error)) as raised, image_border("a.tif"):
            raise error
        assert raised.value is error
    with pytest.raises(ImageError, match=r"^a\.tif: .* memory") as raised, image_border("a.tif"):
        raise MemoryError
    assert not isinstance(raised.value, UnexpectedImageError)


@pytest.fixture
def broken_reader(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An image at which the check of bytes fails as it never should; others are checked as always."""
    from uniemox.io import images

    data = jpeg_of(draw_image(5))
    check = images.check_bytes

    def fail(content: bytes, name: str) -> None:
        if content == data:
            raise StrangeError("a wheel came off")
        check(content, name)

    monkeypatch.setattr(images, "check_bytes", fail)
    return data


def test_one_image_fails_and_the_others_are_answered(
    predictor: Predictor, broken_reader: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(broken_reader)
    draw_image(1).save(tmp_path / "b.jpg")
    message = r"a\.jpg: can't be read \(StrangeError: a wheel came off\)\. .*please report"
    with pytest.raises(ImageError, match=message):
        predictor.predict(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=message):
        heat_map(predictor, tmp_path / "a.jpg")
    assert "a wheel came off" in inspect_image(Sample(key="a.jpg", image=ImageFile(tmp_path / "a.jpg"))).problem
    assert date_taken(tmp_path / "a.jpg") is None
    monkeypatch.setattr(
        "uniemox.predict.images.DecoderPool.decode", lambda _, data, name, shrink=None: decode(data, name)
    )
    failed, answered = predictor.predict_many([tmp_path / "a.jpg", tmp_path / "b.jpg"])
    assert isinstance(failed, Failure)
    assert "StrangeError: a wheel came off" in failed.error
    assert isinstance(answered, Prediction)
    image_places = [SurveyImage(str(tmp_path / name), "awe", 0.5) for name in ("a.jpg", "b.jpg")]
    assert [row["name"] for row in row_of_images(image_places, tmp_path, str)] == ["b.jpg"]
    samples = [Sample(key=name, image=ImageFile(tmp_path / name)) for name in ("a.jpg", "b.jpg")]
    _, read, broken = run_each(predictor.network, samples, (), "", silent)
    assert [sample.key for sample in read] == ["b.jpg"]
    assert "a wheel came off" in broken[0].reason


def test_a_failure_behind_decoding_costs_one_image_too(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    look = type(predictor.network).image_views

    def fail(network: object, sized: SizedImage, people: object) -> object:
        if sized.full_size == (33, 44):
            raise ZeroDivisionError("no width")
        return look(network, sized, people)  # type: ignore[arg-type]

    monkeypatch.setattr(type(predictor.network), "image_views", fail)
    failed, answered = predictor.predict_many([draw_image(1, (33, 44)), draw_image(1)])
    assert isinstance(failed, Failure)
    assert failed.error.startswith("image: can't be read (ZeroDivisionError: no width)")
    assert isinstance(answered, Prediction)


@pytest.fixture
def boom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Bytes at which reading fails as it never should, in this process and in those that it starts."""
    (tmp_path / "sitecustomize.py").write_text(
        "import uniemox.io.image_limits as limits\n"
        "check = limits.check_bytes\n"
        "def fail(data, name):\n"
        "    if data.startswith(b'boom'):\n"
        "        raise LookupError('no such codec')\n"
        "    check(data, name)\n"
        "limits.check_bytes = fail\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    check = images.check_bytes

    def fail(data: bytes, name: str) -> None:
        if data.startswith(b"boom"):
            raise LookupError("no such codec")
        check(data, name)

    monkeypatch.setattr(images, "check_bytes", fail)
    return b"boom"


BOOM = "can't be read (LookupError: no such codec). uniemox does not expect this error: please report this line"


def test_an_unforeseen_error_in_the_decoding_process_has_the_same_message(boom: bytes) -> None:
    with closing(DecoderPool(1)) as pool:
        with pytest.raises(UnexpectedImageError, match=rf"^a\.jpg: {re.escape(BOOM)}"):
            pool.decode(boom, "a.jpg")
        assert pool.decode(jpeg_of(draw_image(1)), "b.jpg")[1] == draw_image(1).size


@pytest.fixture
def photos(tmp_path: Path, boom: bytes) -> Path:
    """Two good images, one whose reading fails, and the file of 16 bytes that once ended every job."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in (1, 2):
        draw_image(number).save(folder / f"{number}.jpg")
    (folder / "boom.jpg").write_bytes(boom)
    (folder / "bad.tif").write_bytes(FILE_STARTS["BigTIFF"] + HUGE)
    return folder


SMALL = ("--model", "small")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("predict", "photos", *SMALL, "--no-persons", "--out", "out.csv"), 3),
        (("survey", "photos", *SMALL, "--no-persons", "--out", "out.html"), 3),
        (("search", "photos", *SMALL, "--emotion", "awe", "--out", "out.html"), 3),
        (("explain", "photos", *SMALL, "--out", "out.html"), 3),
        (("data", "check", "folder:photos", "--json"), 0),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_commands_report_the_bad_files_and_answer_the_others(
    photos: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int
) -> None:
    monkeypatch.chdir(photos.parent)
    done = uniemox_here(*words)
    assert done.returncode == code, done.stderr
    output = " ".join((done.stdout + done.stderr).split())
    assert BOOM in output
    assert "bad.tif" in output
    assert "Traceback" not in output
    if words[0] == "predict":
        rows = (photos.parent / "out.csv").read_text("utf-8").splitlines()
        assert [row.split(",")[0] for row in rows[1:]] == [
            f"photos/{name}" for name in ("1.jpg", "2.jpg", "bad.tif", "boom.jpg")
        ]
        again = uniemox_here(*words, "--resume")
        assert again.returncode == 3
        assert "(2 of them already existed)" in again.stderr


def test_a_training_loader_leaves_out_the_bad_image(photos: Path) -> None:
    samples = [Sample(key=path.name, image=ImageFile(path)) for path in sorted(photos.iterdir())]
    data = ViewDataset(samples, EvalViews(ViewConfig(size=32)))
    items = [data[0, index] for index in range(len(samples))]
    assert [isinstance(item, Broken) for item in items] == [False, False, True, True]
    assert BOOM in items[3].reason  # type: ignore[union-attr]


def test_other_files_of_a_request_are_answered(boom: bytes, tmp_path: Path) -> None:
    good = image(1)
    bad = FILE_STARTS["BigTIFF"] + HUGE
    with running([predictor_of(tmp_path)]) as server:
        answers = server.post("/predict", good, boom, bad, good).json
        assert server.post("/predict", boom).code == (422, "unreadable_picture")
        assert server.ask("POST", "/explain", boom, Content_Type="image/jpeg").code == (422, "unreadable_picture")
    assert ["scene" in answer for answer in answers] == [True, False, False, True]
    assert BOOM in answers[1]["error"]


def test_names_are_shortened_to_their_start_and_end() -> None:
    assert shorten("a" * MAX_SHOWN) == "a" * MAX_SHOWN
    assert shorten("a" * 10_000 + "/photo.jpg").endswith("/photo.jpg")
    assert len(shorten("a" * 10_000)) == MAX_SHOWN
