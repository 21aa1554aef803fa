"""ONNX files in onnxruntime. Nothing else here imports onnxruntime: its telemetry is switched off before it loads.

Since 1.31 it otherwise keeps a device id and a queue of events in ~/.cache/Microsoft, with the interpreter's path,
file names and error texts, and sends them to its maker. Switching it off after the import is too late. Who wants it
sets ORT_DISABLE_TELEMETRY=0; processes that this one starts inherit the choice.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnxruntime import InferenceSession, SessionOptions, get_available_providers
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from uniemox.parallel import is_parallel_worker

__all__ = [
    "RUNTIME_ERRORS",
    "InferenceSession",
    "Session",
    "get_available_providers",
    "open_session",
    "quantization_tools",
]

# What opening and running a file raises that is damaged or of another kind; onnxruntime's own classes have no base in
# common but Exception. TypeError: outputs that are no tensors.
RUNTIME_ERRORS = (
    *(runtime.Fail, runtime.InvalidArgument, runtime.InvalidGraph, runtime.InvalidProtobuf, runtime.NoModel),
    *(runtime.NoSuchFile, runtime.NotImplemented, runtime.RuntimeException, RuntimeError, ValueError),
    *(TypeError, OSError),
)


def open_session(path: Path, *, threads: int | None = None) -> InferenceSession:
    """A file that is ready to run.

    threads: of a run; None: one a core.
    Raises one of RUNTIME_ERRORS for a file that onnxruntime can't read.
    """
    options = SessionOptions()
    options.log_severity_level = 4  # errors reach the user as exceptions, not as lines of a log
    options.intra_op_num_threads = threads or 0
    options.enable_mem_pattern = False  # one block for all of a run is no faster, and larger
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Session:
    """A file that is ready to run: on all cores, or on one core in a worker of `parallel_map`. Threads may share it.

    Parallel runs on one thread each are faster than parallel runs on all cores, whose threads wait for each other.
    threads: of every run; None: as above.  Raises one of RUNTIME_ERRORS for a file that onnxruntime can't read.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self.wide = open_session(path, threads=threads)
        self._path, self._threads, self._lock = path, threads, threading.Lock()
        self._narrow = None if threads is None else self.wide

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, Any]) -> list[Any]:
        """Outputs by name, or all. Raises one of RUNTIME_ERRORS."""
        session = self._one_core() if is_parallel_worker() else self.wide
        return session.run(outputs, dict(inputs))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the file's name, which another process opens again."""
        return partial(Session, Path(os.path.abspath(self._path)), threads=self._threads), ()

    def _one_core(self) -> InferenceSession:
        with self._lock:
            if self._narrow is None:
                self._narrow = open_session(self._path, threads=1)
            return self._narrow


def quantization_tools() -> Any:
    """The module onnxruntime.quantization; it needs `onnx`, of the extra train."""
    from onnxruntime import quantization  # noqa: PLC0415 - an extra

    return quantization
