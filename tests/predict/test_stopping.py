"""A folder of files that keep their decoders busy: Ctrl-C and SIGTERM end the command and its processes at once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile_images import LYING_AVIF, progressive_jpeg
from tests.images import draw, save
from tests.processes import children_of, is_there, peak_mib, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
# Peak memory that a process exceeds once it decodes a large file.
DECODING_MIB = 45


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    data = progressive_jpeg(90, 4000, 4000)
    for number in range(12):
        (folder / f"{number}.jpg").write_bytes(data)
    return folder


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_predict_ends_with_its_processes(folder: Path, sent: signal.Signals, code: int) -> None:
    words = [sys.executable, "-m", "uniemox", "predict", str(folder), "--json", "--no-persons"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        wait_until(lambda: any(peak_mib(child) > DECODING_MIB for child in children_of(process.pid)))
        children = children_of(process.pid)
        # Terminals and service managers signal the whole group too.
        os.killpg(process.pid, sent)
        out, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert out == b""
    assert b"Traceback" not in errors
    assert sent == signal.SIGTERM or errors == b"stopped after 0 images\n"
    wait_until(lambda: not any(map(is_there, children)), seconds=20)


def test_a_slow_file_in_a_folder_is_one_failure(tmp_path: Path) -> None:
    """A file beyond the limits of memory that its header explains, between two that are read."""
    (tmp_path / "b.avif").write_bytes(LYING_AVIF.read_bytes())
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(save(draw(), "JPEG"))
    words = [sys.executable, "-m", "uniemox", "predict", str(tmp_path), "--json", "--no-persons"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert ["error" in answer for answer in answers] == [False, True, False]
    assert answers[1]["error"].startswith(f"{tmp_path / 'b.avif'}: cut off or corrupt")
