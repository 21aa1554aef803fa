"""Killed commands leave complete files or none, and finish when they are repeated."""

import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.drawn import draw_image
from tools.commands import start_command

COUNT = 32
KILLS = 1
SMALL = ("--model", "small", "--no-persons")
COMMANDS = {
    "calibrate": ("calibrate", "--model", "small", "--data", "folder:photos", "--out", "mine.onnx"),
    "survey": ("survey", "photos", *SMALL, "--out", "s.html", "--resume"),
    "embed": ("predict", "photos", *SMALL, "--embeddings", "e.npy"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_command_leaves_complete_files_or_none(name: str, tmp_path: Path) -> None:
    for i in range(COUNT):
        path = tmp_path / "photos" / ("awe", "fear")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_image(i, (60, 48)).save(path)

    def start() -> BaseProcess:
        return start_command(COMMANDS[name], out=tmp_path / "log", err=tmp_path / "log", folder=tmp_path)

    def written() -> dict[str, bytes]:
        ends = (".onnx", ".html", ".npy", ".txt")
        return {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix in ends}

    def finish() -> None:
        process = start()
        process.join()
        assert process.exitcode == 0, (tmp_path / "log").read_text()[-2000:]

    start_time = time.monotonic()
    finish()
    duration_s = time.monotonic() - start_time
    complete = written()
    rng = random.Random(1)
    assert complete
    for kill in range(KILLS):
        for path in [path for path in tmp_path.iterdir() if path.is_file()]:
            path.unlink()
        process = start()
        process.join(duration_s * (kill + rng.uniform(0.3, 0.95)) / KILLS)
        process.kill()
        process.join()
        remaining = written()
        assert {file: complete[file] for file in remaining} == remaining, "a part of a file"
    # The command may have ended just before it was killed.
    for file in remaining:
        (tmp_path / file).unlink()
    finish()
    assert written() == complete
