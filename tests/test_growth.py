"""Strangers' files: time and memory grow with their size, and what other libraries load passes a wrapper of ours."""

import ast
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uniemox.data.perceptual import groups_of_copies, small_grey
from uniemox.data.readers.csv_table import read_csv
from uniemox.insight.tag.document import RDF
from uniemox.insight.tag.fields import NAMESPACE, Tags
from uniemox.insight.tag.sidecar import remove_tags, write_tags
from uniemox.io.arrays import load_arrays
from uniemox_ask.answer_reader import without_thoughts
from uniemox_curate.collect.candidates import text_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("uniemox", "uniemox_serve", "uniemox_ask", "uniemox_curate", "uniemox_paper")
TAGS = Tags(
    keyword="emotion|awe", probability=0.5, valence=5, arousal=5, kind="evoked", model="embedded", model_hash="0"
)
# Twice the size may take this many times as much: a square would take four times as much.
MAX_RATIO = 2.5
# Other programs disturb a measurement of time, so the least of several counts, of both sizes in turns: as many as are
# needed, because work that grows by the square exceeds the ratio in all of them.
MAX_ROUNDS = 40


def packet(attributes: str, content: str) -> bytes:
    """A sidecar with one rdf:Description."""
    start = f'<rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" xmlns:u="{NAMESPACE}" {attributes}>'
    return f"{start}{content}</rdf:Description></rdf:RDF>".encode()


def tag_and_undo(data: bytes) -> None:
    remove_tags(write_tags(data, TAGS))
    remove_tags(data)


def nested_namespaces(size: int, _folder: Path) -> Callable[[], object]:
    data = packet("", "".join(f'<a xmlns:p{i}="x">' for i in range(size)) + "</a>" * size)
    return lambda: tag_and_undo(data)


def many_attributes(size: int, _folder: Path) -> Callable[[], object]:
    data = packet(" ".join(f'u:a{i}="x"' for i in range(size)), "")
    return lambda: tag_and_undo(data)


def many_properties(size: int, _folder: Path) -> Callable[[], object]:
    data = packet("", "<u:K>1</u:K>" * size)
    return lambda: tag_and_undo(data)


def wide_header(size: int, folder: Path) -> Callable[[], object]:
    (folder / "a.jpg").touch()
    table = folder / f"{size}.csv"
    table.write_text("path,label" + "," * size + "\na.jpg,awe" + "," * size + "\n")
    return lambda: read_csv(table)


def open_tags(size: int, _folder: Path) -> Callable[[], object]:
    return lambda: text_of("<" * size)


def long_answer(size: int, _folder: Path) -> Callable[[], object]:
    return lambda: without_thoughts("The picture shows a dog. " * size)


def equal_images(size: int, _folder: Path) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    thumb = small_grey(Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)))
    return lambda: groups_of_copies([thumb] * size)


SHAPES = {
    nested_namespaces: 1500,
    many_attributes: 4000,
    many_properties: 4000,
    wide_header: 8000,
    open_tags: 200_000,
    long_answer: 4000,
    equal_images: 3000,
}


def seconds_of(work: Callable[[], object]) -> float:
    """Return the processor time of this thread."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def grows_with_the_size(small: Callable[[], object], large: Callable[[], object]) -> bool:
    """Return True if twice the size takes little more than twice the time."""
    one = two = float("inf")
    for _ in range(MAX_ROUNDS):
        one = min(one, seconds_of(small))
        two = min(two, seconds_of(large))
        # A few milliseconds are as good as none.
        if two < MAX_RATIO * one + 0.01:
            return True
    return False


def peak_of(work: Callable[[], object]) -> int:
    """Return the most memory in use at a time, in bytes."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_time_and_memory_grow_with_the_size(shape: Callable[[int, Path], Callable[[], object]], tmp_path: Path) -> None:
    size = SHAPES[shape]
    works = []
    for factor in (1, 2):
        folder = tmp_path / str(factor)
        folder.mkdir()
        works.append(shape(factor * size, folder))
    with warnings.catch_warnings(action="ignore"):
        for work in works:
            work()
        one, two = map(peak_of, works)
        # A megabyte is as good as none.
        assert two < MAX_RATIO * one + 2**20
        assert grows_with_the_size(*works)


def test_work_that_grows_by_the_square_is_noticed() -> None:
    def of(size: int) -> Callable[[], object]:
        return lambda: [row * column for row in range(size) for column in range(size)]

    assert not grows_with_the_size(of(400), of(800))


def test_small_files_of_arrays_do_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(2**29, np.uint8))
    assert path.stat().st_size < 2**20
    # A process of its own has no freed memory, which the system does not count again.
    code = "import sys, pathlib, uniemox.io.arrays as arrays; arrays.load_arrays(pathlib.Path(sys.argv[1]))"
    ended = subprocess.run([sys.executable, "-c", code, str(path)], stderr=subprocess.PIPE, text=True, check=False)
    assert "ValueError: it needs more than" in ended.stderr
    np.savez(path, a=np.arange(3), b=np.arange(4))
    assert load_arrays(path, ["b", "c"])["b"].tolist() == [0, 1, 2, 3]
    np.save(tmp_path / "b.npy", np.arange(3))
    with pytest.raises(ValueError, match="one array"):
        load_arrays(tmp_path / "b.npy")


# Where functions of other libraries that read strangers' files are called: inside a limit of memory, in a process of
# its own, or after a check of the file. A new place needs one of them, and a line here.
LOADERS = {
    "loadmat": {"uniemox/data/readers/emotic_matlab.py"},
    "np.load": {"uniemox/io/arrays.py"},
    "pa.parquet.ParquetFile": {"uniemox/data/readers/arrow_tables.py"},
    "pa.ipc.open_stream": {"uniemox/data/readers/arrow_tables.py"},
    "InferenceSession": {"uniemox/io/onnx_sessions.py"},
    "expat.ParserCreate": {"uniemox/insight/tag/document.py"},
    "av.open": {"uniemox/io/decoding/film_frames.py"},
    "rawpy.imread": {"uniemox/io/raw_preview.py"},
    "cv2.dnn.readNetFromDarknet": {"uniemox/persons/darknet.py"},
    "torch.load": {"uniemox/checkpoints/reading.py", "uniemox/training/state.py"},
    "zipfile.ZipFile": {"uniemox/io/weight_archives.py"},
    "IptcImagePlugin.getiptcinfo": {"uniemox/insight/tag/inside.py"},
    # Only writes.
    "tarfile.open": {"uniemox/data/shard_writing.py"},
}
# Modules whose functions read files of a format; those of images, JSON, CSV and weights have rules of their own.
FORMATS = {"np", "numpy", "torch", "av", "rawpy", "zipfile", "tarfile", "expat", "pickle", "yaml", "ET", "ElementTree"}
READS = {"load", "open", "imread", "ZipFile", "ParserCreate", "fromstring", "parse", "iterparse", "safe_load"}


def test_files_of_strangers_are_read_in_known_places() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                name = ast.unparse(node.func)
                module, _, function = name.rpartition(".")
                if name in LOADERS or (module in FORMATS and function in READS):
                    places[name].add(path.relative_to(ROOT).as_posix())
    assert places == LOADERS
