"""Decoding in other processes: the same pixels, and an end to what takes too long or too much memory."""

import io
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.decoders import Child as NewChild
from tests.hostile_images import LYING_AVIF, progressive_jpeg
from tests.images import draw, every_file, save, with_orientation
from tests.processes import is_there, peak_mib, wait_until
from uniemox.errors import ImageError
from uniemox.io.decoding import process
from uniemox.io.decoding.pool import Child, DecoderPool, decode_one, look_here
from uniemox.io.decoding.shared import NONE, SHARED_BYTES, make_shared, map_shared
from uniemox.io.images import MinSides, decode

pytestmark = pytest.mark.usefixtures("new_decoders")
FILES = every_file()
LYING = LYING_AVIF.read_bytes()


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with closing(DecoderPool(2)) as decoders:
        yield decoders


@pytest.fixture(scope="module")
def slow_file() -> bytes:
    """Within all limits; seconds of work."""
    return progressive_jpeg(90, 4000, 4000)


@pytest.mark.parametrize("shrink", [None, MinSides(short_px=20), MinSides(long_px=20)])
def test_pixels_are_the_same_in_every_format(pool: DecoderPool, shrink: MinSides | None) -> None:
    large = {"large": save(draw(1500, 700), "PNG"), "turned": with_orientation(draw(1500, 700), "JPEG", 6)}
    for name, data in (FILES | large).items():
        here = look_here(data, name, shrink=shrink, counts_frames=True)
        there = pool.look(data, name, shrink=shrink, counts_frames=True)
        assert np.array_equal(np.asarray(here.image), np.asarray(there.image)), name
        assert there.image.mode == "RGB"
        assert here.full_size == there.full_size
        assert (here.format, here.mode, here.frames) == (there.format, there.mode, there.frames)


@pytest.mark.parametrize("data", [b"", b"text", FILES["jpeg"][:300], FILES["png"][:-40]])
def test_refusals_have_the_same_message_as_in_this_process(pool: DecoderPool, data: bytes) -> None:
    with pytest.raises(ImageError) as here:
        decode(data, "photos/{0}.jpg")
    with pytest.raises(ImageError) as there:
        pool.decode(data, "photos/{0}.jpg")
    assert str(there.value) == str(here.value)


def test_a_refused_file_does_not_end_its_process(pool: DecoderPool) -> None:
    pool.decode(FILES["jpeg"])
    before = pids_of(pool)
    for _ in range(5):
        with pytest.raises(ImageError):
            pool.decode(b"text")
    assert pids_of(pool) == before


def test_threads_share_a_pool(pool: DecoderPool) -> None:
    names = list(FILES) * 4
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda name: pool.decode(FILES[name], name), names))
    for name, (image, full) in zip(names, results, strict=True):
        expected, size = decode(FILES[name])
        assert full == size
        assert np.array_equal(np.asarray(image), np.asarray(expected)), name
    assert len(pids_of(pool)) <= 2


def test_a_file_that_takes_too_long_is_ended_and_the_next_is_decoded(slow_file: bytes) -> None:
    with closing(DecoderPool(1, wait_s=0.2)) as pool:
        pool.start_all()
        [first] = pids_of(pool)
        with pytest.raises(ImageError, match=r"^slow\.jpg: decoding took longer than 0\.2 s; save it again"):
            pool.decode(slow_file, "slow.jpg")
        assert not is_there(first)
        pool.wait_s = 60
        assert pool.decode(FILES["jpeg"])[1] == (60, 44)


def pids_of(pool: DecoderPool) -> set[int]:
    return {child.process.pid for child in list(pool._children)}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of processor time")
def test_processor_time_is_limited() -> None:
    endless = "from uniemox.io.limits import limit_cpu; limit_cpu(0)\nwhile True: pass"
    assert subprocess.run([sys.executable, "-c", endless], check=False, timeout=60).returncode == -signal.SIGXCPU


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of processor time")
def test_a_file_that_takes_too_much_processor_time_is_reported() -> None:
    with closing(DecoderPool(1)) as pool, ThreadPoolExecutor(1) as thread:
        pool.start_all()
        [pid] = pids_of(pool)
        os.kill(pid, signal.SIGSTOP)  # nothing is decoded before the signal is there
        answer = thread.submit(pool.decode, FILES["jpeg"], "slow")
        os.kill(pid, signal.SIGXCPU)
        os.kill(pid, signal.SIGCONT)
        with pytest.raises(ImageError, match="slow: decoding took more than 5 s of processor time"):
            answer.result()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process so")
def test_a_file_that_takes_more_memory_than_its_header_explains_is_refused() -> None:
    with closing(DecoderPool(1)) as pool:
        with pytest.raises(ImageError, match=r"^lying\.avif: cut off or corrupt"):
            pool.decode(LYING, "lying.avif")
        [pid] = pids_of(pool)
        assert peak_mib(pid) < 150  # 555 in a process without a limit
    with pytest.raises(ImageError, match="cut off or corrupt"):
        decode_one(LYING)


@pytest.mark.thorough
def test_large_images_have_the_memory_that_they_need(pool: DecoderPool) -> None:
    """A WebP takes 17 bytes a pixel, some before its size is known to Pillow."""
    rgba = draw(3000, 2500).convert("RGBA")
    for fmt, options in (("WEBP", {"lossless": True}), ("AVIF", {"speed": 10}), ("PNG", {}), ("TIFF", {})):
        data = save(rgba, fmt, **options)
        assert np.array_equal(np.asarray(pool.decode(data)[0]), np.asarray(decode(data)[0])), fmt


def test_a_process_that_was_killed_is_replaced(pool: DecoderPool) -> None:
    pool.start_all()
    for pid in pids_of(pool):
        os.kill(pid, signal.SIGKILL)
    assert [pool.decode(FILES["png"])[1] for _ in range(3)] == [(60, 44)] * 3


def test_a_file_whose_process_is_killed_is_tried_once_more(slow_file: bytes) -> None:
    with closing(DecoderPool(1)) as pool, ThreadPoolExecutor(1) as threads:
        pool.start_all()
        answer = threads.submit(pool.decode, slow_file, "a")
        killed = set()
        while len(killed) < 2:
            wait_until(lambda: any(not child.is_idle and child.is_ready for child in list(pool._children)))
            [child] = pool._children
            os.kill(child.process.pid, signal.SIGKILL)
            killed.add(child.process.pid)
            wait_until(lambda child=child: child not in pool._children)
        with pytest.raises(ImageError, match=r"a: its decoder ended \(exit code -9\)"):
            answer.result()
        assert pool.decode(FILES["png"])[1] == (60, 44)


def test_closing_ends_files_in_progress(slow_file: bytes) -> None:
    pool = DecoderPool(1)
    pool.start_all()
    [pid] = pids_of(pool)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(pool.decode, slow_file, "a") for _ in range(2)]
        wait_until(lambda: any(not child.is_idle for child in list(pool._children)))
        pool.close()
        for answer in waiting:
            with pytest.raises(ImageError, match=r"a: its decoder ended|the work was stopped"):
                answer.result()
    assert not is_there(pid)
    with pytest.raises(ImageError, match="the work was stopped"):
        pool.decode(FILES["png"])


def test_closing_while_a_process_starts_is_an_image_error_and_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = DecoderPool(1)
    monkeypatch.setattr(Child, "wait_until_ready", close_first(pool, Child.wait_until_ready))
    with pytest.raises(ImageError, match="the work was stopped"):
        pool.decode(FILES["png"])
    assert pool._free.qsize() == 1


def close_first(pool: DecoderPool, wait_until_ready: Callable[[Child], None]) -> Callable[[Child], None]:
    def wait(child: Child) -> None:
        pool.close()
        wait_until_ready(child)

    return wait


def test_closing_leaves_no_thread_and_no_process() -> None:
    threads = set(threading.enumerate())
    with closing(DecoderPool(3)) as pool:
        pool.start_all()
        children = pids_of(pool)
        assert len(children) == 3
    assert not any(map(is_there, children))
    wait_until(lambda: set(threading.enumerate()) <= threads)  # those of earlier tests may end meanwhile


PARENT = """
import sys, threading
from pathlib import Path
from uniemox.io.decoding.pool import DecoderPool
pool = DecoderPool(1)
pool.start_all()
threading.Thread(target=pool.decode, args=(Path(sys.argv[1]).read_bytes(),), daemon=True).start()
print(next(iter(pool._children)).process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there the end of input is seen between two files")
def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path, slow_file: bytes) -> None:
    (tmp_path / "slow.jpg").write_bytes(slow_file)
    words = [sys.executable, "-c", PARENT, str(tmp_path / "slow.jpg")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_there(pid)
        parent.kill()
    wait_until(lambda: not is_there(pid))


def test_a_script_needs_no_main_guard_and_imports_nothing_from_the_images_folder(tmp_path: Path) -> None:
    """Images of strangers may lie beside a numpy.py of theirs."""
    for name in ("numpy.py", "PIL.py", "uniemox.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the working folder')")
    (tmp_path / "a.jpg").write_bytes(FILES["jpeg"])
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts/script.py"
    script.write_text(
        "import uniemox\nprint([a.width_px for a in uniemox.load(finder=None).predict_many(['a.jpg'] * 3)])"
    )
    words = [sys.executable, str(script)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "[60, 60, 60]\n", done.stderr


def test_a_process_that_fails_within_an_answer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent would read a message after half of the pixels as the rest of them."""

    class Full:
        size = (4, 4)

        def crop(self, box: object) -> Image.Image:
            raise MemoryError

    class EndedHereError(Exception):
        pass

    def end(code: int) -> None:
        raise EndedHereError

    monkeypatch.setattr(process, "limit_memory", lambda more: None)
    monkeypatch.setattr(process, "decode_opened", lambda *_, **__: (Full(), (4, 4)))
    monkeypatch.setattr("os._exit", end)
    with pytest.raises(EndedHereError):
        process._answer(io.BytesIO(), save(draw(), "PNG"), None, None, counts_frames=False)


@pytest.mark.parametrize("shared_bytes", [3 * 40 * 30, 3 * 40 * 30 - 1, 0])
def test_pixels_are_the_same_in_shared_memory_and_through_the_pipe(
    shared_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that just fits, one that does not, and no shared memory."""
    image = draw().resize((40, 30))
    shared = mmap.mmap(-1, shared_bytes) if shared_bytes else None
    # Strips of two rows, and of a last one.
    monkeypatch.setattr(process, "STRIP_BYTES", 3 * 40 * 7)
    monkeypatch.setattr(process, "limit_memory", lambda more: None)
    answers = io.BytesIO()
    process._answer(answers, save(image, "PNG"), None, shared, counts_frames=False)
    answers.seek(0)
    status, size = process.ANSWER.unpack(answers.read(process.ANSWER.size))
    answers.seek(process.IMAGE.size, io.SEEK_CUR)
    fits = shared_bytes == 3 * 40 * 30
    assert status == (process.SHARED if fits else process.DONE)
    assert size == process.IMAGE.size + (0 if fits else 3 * 40 * 30)
    pixels = bytes(shared or b"") if fits else answers.read()
    assert pixels == image.tobytes()


@pytest.mark.skipif(make_shared() == NONE, reason="needs memory that can be sealed: Linux")
def test_shared_memory_can_not_be_cut_off() -> None:
    """Reading it would otherwise end the parent."""
    handle = make_shared()
    for size in (0, SHARED_BYTES - 1, SHARED_BYTES + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(handle, size)
    memory = map_shared(handle, is_writer=False)
    assert memory is not None
    assert len(memory) == SHARED_BYTES
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(handle)


def test_a_process_that_names_more_pixels_than_are_shared_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = DecoderPool(1)
    pool.start_all()
    [child] = pool._children
    for shared in (child._shared, None):
        monkeypatch.setattr(child, "_shared", shared)
        with pytest.raises(EOFError):
            child._shared_image(2**20, 2**20)
    pool.close()


def test_images_are_the_same_without_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniemox.io.decoding.pool.Child", NewChild)
    monkeypatch.setattr("uniemox.io.decoding.pool.make_shared", lambda: NONE)
    data = save(draw(), "PNG")
    with closing(DecoderPool(1)) as pool:
        assert pool.decode(data).image.tobytes() == decode(data)[0].tobytes()
        assert next(iter(pool._children))._shared is None
