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
_MODULES = ("cli", "cli.callbacks", "pretrain.run", "finetune.run", "finetune.probe", "evaluate.run")
_CONTEXT.set_forkserver_preload([f"uniemox.{name}" for name in _MODULES])


def start_command(
    words: Sequence[str], *, out: Path, err: Path, folder: Path | None = None, environment: Mapping[str, str] = {}
) -> BaseProcess:
    """`python -m uniemox WORDS` in a session of its own.

    out, err: files for what it says, which may be the same.  folder: where it runs; None: here.  environment: changes
    of this process's, which must not be about what libraries read when they are imported (OMP_NUM_THREADS).
    """
    process = _CONTEXT.Process(
        target=_run, args=(list(words), out, err, folder or Path.cwd(), os.environ | environment)
    )
    process.start()
    return process


def _run(words: list[str], out: Path, err: Path, folder: Path, environment: Mapping[str, str]) -> None:
    os.setsid()
    for path, descriptor in ((out, 1), (err, 2)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # what a command starts, it starts as ever
    sys.argv = ["uniemox", *words]
    runpy.run_module("uniemox", run_name="__main__", alter_sys=True)
