"""Pipes, devices and files of gigabytes in a folder: refused at once, by every reader of files."""

import json
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drawn import draw_image, jpeg_of
from tests.predict.networks import tiny_network
from tests.runs import uniemox_here
from uniemox.checkpoints.reading import read_weight_file
from uniemox.data.inspection import inspect_image
from uniemox.data.readers.shards import read_shards
from uniemox.data.sample import ImageFile, Sample
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.data.sidecar import Sidecar, json_line
from uniemox.data.source import open_data
from uniemox.data.text_files import read_text
from uniemox.errors import UniemoxError
from uniemox.insight.survey.lines import date_taken
from uniemox.io.files import read_limited
from uniemox.io.limits import limit_memory
from uniemox.io.onnx_sessions import RUNTIME_ERRORS, open_session
from uniemox.io.run_record import read_json_object
from uniemox.persons.detector import load_detector
from uniemox.predict.images import read_any
from uniemox.predict.network import Network
from uniemox.predict.opening import load
from uniemox.predict.predictor import Predictor
from uniemox.predict.writing import AnswerHeader, ResultFile
from uniemox.teacher.features import StoredTeacher
from uniemox.training.journal import read_metrics

MAX_WAIT_S = 10
MAX_MORE_BYTES = 500 * 2**20
SPARSE_BYTES = 6 * 2**30
KINDS = ("pipe", "device", "sparse")
WRITTEN = (("--out", ".csv"), ("--out", ".jsonl"), ("--embeddings", ".npy"), ("--save-images", ""))


@pytest.fixture
def bounded() -> Iterator[None]:
    """A test that hangs or takes 500 MiB fails."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"still at work after {MAX_WAIT_S} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, late)
    limit_memory(MAX_MORE_BYTES)
    signal.alarm(MAX_WAIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, before)


def make(path: Path, kind: str) -> Path:
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(SPARSE_BYTES)
    return path


def scanned(path: Path) -> None:
    problem = inspect_image(Sample(key="a", image=ImageFile(path))).problem
    if problem:
        raise UniemoxError(problem)


def metrics(path: Path) -> None:
    read_metrics(path.rename(path.with_name("metrics.jsonl")).parent)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "predict": ("a.jpg", read_any),
    "data check": ("a.jpg", scanned),
    "table": ("a.csv", read_text),
    "csv": ("a.csv", lambda path: open_data(f"csv:{path}")),
    "weights": ("a.pth", read_weight_file),
    "safetensors": ("a.safetensors", read_weight_file),
    "model": ("model.onnx", load),
    "detector": ("finder.onnx", load_detector),
    "settings": ("config.json", read_json_object),
    "metrics": ("a", metrics),
    "features": ("a.npz", StoredTeacher),
}


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_readers_refuse_pipes_devices_and_oversized_files(tmp_path: Path, reader: str, kind: str) -> None:
    if (reader, kind) == ("safetensors", "sparse"):
        pytest.skip("safetensors maps the file: its size takes addresses, not memory")
    name, read = READERS[reader]
    with pytest.raises(UniemoxError, match=r"not a file|more than|expected|read|MiB|no file|cut off"):
        read(make(tmp_path / name, kind))


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("kind", KINDS)
def test_date_taken_is_none_for_special_files(tmp_path: Path, kind: str) -> None:
    assert date_taken(make(tmp_path / "a.jpg", kind)) is None


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_onnx_session_refuses_special_files(tmp_path: Path, kind: str) -> None:
    with pytest.raises(RUNTIME_ERRORS, match="not a file"):
        open_session(make(tmp_path / "a.onnx", kind))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for word in ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness"):
        (tmp_path / "fi" / "train" / word).mkdir(parents=True)
        draw_image(1).save(tmp_path / "fi" / "train" / word / "1.jpg")
    write_shards(open_data(f"fi:{tmp_path / 'fi'}"), tmp_path / "shards", ShardConfig())
    return tmp_path / "shards"


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".json", ".jsonl", ".tar"])
def test_shards_refuse_special_files(shards: Path, ending: str, kind: str) -> None:
    path = next(path for path in sorted(shards.iterdir()) if path.suffix == ending)
    make(path, kind)
    with pytest.raises(UniemoxError, match=r"not a file|MiB|cut off"):
        read_shards(str(shards))


@pytest.mark.usefixtures("bounded")
def test_a_shard_that_becomes_a_pipe_is_refused_when_it_is_read(shards: Path) -> None:
    image = read_shards(str(shards)).samples[0].image
    make(next(shards.glob("*.tar")), "pipe")
    with pytest.raises(OSError, match="not a file"):
        image.read()


def test_no_more_than_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    with pytest.raises(OSError, match="MiB, more than"):
        read_limited(path, 4)
    with pytest.raises(OSError, match="more than"):
        read_limited("/proc/self/maps", 100)  # its size is given as 0
    with pytest.raises(IsADirectoryError):
        read_limited(tmp_path, 4)


@pytest.mark.parametrize(
    "words",
    [
        *(("predict", "PHOTOS", "--model", "small", option, f"FILE/x{end}") for option, end in WRITTEN),
        ("survey", "PHOTOS", "--model", "small", "--no-persons", "--out", "FILE/x.html"),
        ("calibrate", "--model", "small", "--data", "folder:PHOTOS", "--out", "FILE/x.onnx"),
        ("data", "check", "folder:PHOTOS", "--html", "FILE/x.html"),
        ("data", "shard", "folder:PHOTOS", "FILE/x"),
        ("curate", "init", "FILE/x"),
    ],
)
def test_unwritable_output_is_reported_in_one_line(words: tuple[str, ...], tmp_path: Path) -> None:
    """A file stands in place of the folder: the tests may run as root, whom permissions do not stop."""
    for i in range(40):
        path = tmp_path / "photos" / ("awe", "fear")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_image(i, (40, 40)).save(path)
    (tmp_path / "file").write_text("x")
    paths = {"PHOTOS": str(tmp_path / "photos"), "FILE": str(tmp_path / "file")}
    done = uniemox_here(*(word.replace("PHOTOS", paths["PHOTOS"]).replace("FILE", paths["FILE"]) for word in words))
    assert done.returncode in (1, 2), done.stderr
    assert re.search(r"^error: .*file", done.stderr, re.MULTILINE), done.stderr
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("lock", [False, True])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_nothing_is_appended_through_a_link_or_a_pipe(lock: bool, kind: str, tmp_path: Path) -> None:
    """In a stranger's folder it may lead to a file that a shell reads; a pipe would hang."""
    target = tmp_path / "home"
    files = {"sidecar": tmp_path / "persons.jsonl", "results": tmp_path / "answers.jsonl"}
    for path in files.values():
        odd = path.with_name(path.name + ".lock") if lock else path
        odd.symlink_to(target) if kind == "link" else os.mkfifo(odd)
    with pytest.raises(UniemoxError, match=r"persons\.jsonl:? can't be (written|read)"):
        Sidecar(files["sidecar"], {})
    predictor = Predictor(Network.open(tiny_network(tmp_path / "m.onnx")))
    with pytest.raises(UniemoxError, match=r"answers\.jsonl(\.lock)?:? (can't be (written|read)|is a link|is a pipe)"):
        ResultFile(files["results"], resume=True, answered=AnswerHeader.for_predictor(predictor, None, None))
    assert not target.exists()


def test_a_file_behind_a_link_is_not_cut_off(tmp_path: Path) -> None:
    """Its end looks like a line at which a run was stopped."""
    target = tmp_path / "other"
    target.write_bytes(json_line({"detector": "a"}) + b"and more")
    (tmp_path / "persons.jsonl").symlink_to(target)
    with pytest.raises(UniemoxError, match=r"persons\.jsonl can't be written"):
        Sidecar(tmp_path / "persons.jsonl", {"detector": "a"})
    assert target.read_bytes().endswith(b"and more")


@pytest.mark.thorough
def test_prediction_over_ten_thousand_mostly_broken_files(tmp_path: Path) -> None:
    intact = jpeg_of(draw_image(1, (40, 40)))
    for i in range(10_000):
        if i % 500 == 0:
            content = intact
        else:
            content = (b"", intact[:50], b"\0" * 30, b"GIF89a")[i % 4]
        (tmp_path / f"{i}\x1b[31m<b>={i}.jpg").write_bytes(content)
    out = tmp_path / "out.jsonl"
    done = uniemox_here("predict", tmp_path, "--model", "small", "--no-persons", "--out", out)
    assert done.returncode == 3
    assert "9,980 of 10,000 images could not be read" in done.stderr
    assert "\x1b" not in done.stderr
    assert len(done.stderr.splitlines()) < 50
    assert sum("scene" in json.loads(line) for line in out.read_bytes().splitlines()) == 20
