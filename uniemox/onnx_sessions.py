"""ONNX files in onnxruntime, on the CPU."""

from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

# What opening and running a file raises that is damaged or of another kind; onnxruntime's own classes have no base in
# common but Exception. TypeError: outputs that are no tensors.
RUNTIME_ERRORS = (
    *(runtime.Fail, runtime.InvalidArgument, runtime.InvalidGraph, runtime.InvalidProtobuf, runtime.NoModel),
    *(runtime.NoSuchFile, runtime.NotImplemented, runtime.RuntimeException, RuntimeError, ValueError),
    *(TypeError, OSError),
)


def open_session(path: Path, *, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A file that is ready to run.

    threads: of a run; None: one a core.
    Raises one of RUNTIME_ERRORS for a file that onnxruntime can't read.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors reach the user as exceptions, not as lines of a log
    options.intra_op_num_threads = threads or 0
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
