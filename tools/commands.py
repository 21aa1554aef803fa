"""Commands in processes forked from one that has imported torch: they do what fresh ones do, seconds sooner.

Whatever the caller has done stays behind: the process that is forked has only imported modules, on one thread.
"""

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_MODULES = ("cli", "cli.callbacks", "pretrain.run", "finetune.run", "finetune.fitting", "evaluate.run")
_CONTEXT.set_forkserver_preload(["open_clip", *(f"uniemox.{name}" for name in _MODULES)])


def run_command(words: Sequence[str]) -> int:
    """`python -m uniemox WORDS` to its end, at the same terminal; its exit code."""
    process = _CONTEXT.Process(target=_run, args=(list(words), Path.cwd(), dict(os.environ)))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def start_command(
    words: Sequence[str], *, out: Path, err: Path, folder: Path | None = None, environment: Mapping[str, str] = {}
) -> BaseProcess:
    """`python -m uniemox WORDS` in a session of its own.

    Args:
        out: Files for what it says, which may be the same.
        err: Files for what it says, which may be the same.
        folder: Where it runs; None: here.
        environment: Changes of this process's, which must not be about what libraries read when they are imported
            (OMP_NUM_THREADS).
    """
    process = _CONTEXT.Process(
        target=_run_apart, args=(list(words), folder or Path.cwd(), os.environ | environment, out, err)
    )
    process.start()
    return process


def _run_apart(words: list[str], folder: Path, environment: Mapping[str, str], out: Path, err: Path) -> None:
    os.setsid()
    for path, descriptor in ((out, 1), (err, 2)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    _run(words, folder, environment)


def _run(words: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # what a command starts, it starts as ever
    sys.argv = ["uniemox", *words]
    runpy.run_module("uniemox", run_name="__main__", alter_sys=True)
