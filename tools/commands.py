"""Run commands in processes forked from one that has imported torch: as fresh processes do, but seconds sooner.

Nothing that the caller has done is inherited: the forked process has only imported modules, on one thread.
"""

import multiprocessing
import os
import runpy
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from uniemox.cli.program import share_busy_cores

# A command does this before it imports torch; here the server imports it.
share_busy_cores()
# Starting a process also asks the others for their exit codes. Two threads that ask at once can get a wrong one.
_LOCK = threading.Lock()
_CONTEXT = multiprocessing.get_context("forkserver")
_MODULES = ("cli.program", "cli.callbacks", "pretrain.run", "finetune.run", "finetune.fit_methods", "evaluate.run")
# Packages that a training imports only when it fits a head and writes an ONNX file, which takes more than a second.
_LATE = ("sklearn.linear_model", "torch.export._trace", "onnxscript.function_libs.torch_lib.ops")
_CONTEXT.set_forkserver_preload(
    ["open_clip", *(f"uniemox.{name}" for name in _MODULES), *_LATE, "tools.onnx_operators"]
)


def run_command(words: Sequence[str], output: Path | None = None) -> int:
    """Run `python -m uniemox WORDS` to its end, and return its exit code. Several threads may call it.

    Args:
        words: Arguments of the command.
        output: File for standard output and standard error; None: this process's own.
    """
    process = _CONTEXT.Process(target=_run, args=(list(words), Path.cwd(), dict(os.environ), output, output))
    with _LOCK:
        process.start()
    wait([process.sentinel])
    with _LOCK:
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def start_command(
    words: Sequence[str], *, out: Path, err: Path, folder: Path | None = None, environment: Mapping[str, str] = {}
) -> BaseProcess:
    """Start `python -m uniemox WORDS` in a session of its own.

    Args:
        words: Arguments of the command.
        out: File for standard output.
        err: File for standard error, which may be the same.
        folder: Working directory; None: this process's.
        environment: Changes of this process's environment. Variables that libraries read when they are imported, such
            as OMP_NUM_THREADS, have no effect.
    """
    process = _CONTEXT.Process(
        target=_run_apart, args=(list(words), folder or Path.cwd(), os.environ | environment, out, err)
    )
    process.start()
    return process


def _run_apart(words: list[str], folder: Path, environment: Mapping[str, str], out: Path, err: Path) -> None:
    os.setsid()
    _run(words, folder, environment, out, err)


def _run(words: list[str], folder: Path, environment: Mapping[str, str], out: Path | None, err: Path | None) -> None:
    os.chdir(folder)
    for path, descriptor in ((out, 1), (err, 2)):
        if path is not None:
            with path.open("ab") as file:
                os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    # The command's own processes must not be forked from the server that this process comes from.
    multiprocessing.set_start_method(None, force=True)
    sys.argv = ["uniemox", *words]
    runpy.run_module("uniemox", run_name="__main__", alter_sys=True)
