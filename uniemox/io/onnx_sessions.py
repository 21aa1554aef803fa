"""ONNX files in onnxruntime. Only this module imports onnxruntime, after switching off its telemetry.

Since 1.31 it otherwise stores a device id and a queue of events in ~/.cache/Microsoft, with the interpreter's path,
file names and error texts, and sends them to its maker. Switching it off after the import is too late. To allow
telemetry set ORT_DISABLE_TELEMETRY=0; child processes inherit the setting.
"""

import gc
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnxruntime import GraphOptimizationLevel, InferenceSession, RunOptions, SessionOptions, get_available_providers
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from uniemox.errors import ConfigError
from uniemox.io.files import open_regular
from uniemox.io.parallel import is_parallel_worker
from uniemox.io.shortage import naming_shortage

# Freeing a session waits for its threads. A forked process has the session but not the threads, so its garbage
# collector would block forever on one that its parent has dropped.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=gc.freeze)

# What opening and running a file raises that is damaged or of another kind; onnxruntime's own classes have no base in
# common but Exception. TypeError: outputs that are no tensors.
RUNTIME_ERRORS = (
    *(runtime.Fail, runtime.InvalidArgument, runtime.InvalidGraph, runtime.InvalidProtobuf, runtime.NoModel),
    *(runtime.NoSuchFile, runtime.NotImplemented, runtime.RuntimeException, RuntimeError, ValueError),
    *(TypeError, OSError),
)


# onnxruntime's provider, and the fallback for the parts of a network that it does not support.
PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "cpu": (),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
    "coreml": ("CoreMLExecutionProvider",),
    "openvino": ("OpenVINOExecutionProvider",),
}
CPU = "CPUExecutionProvider"
# Maximum time of one run: an untrusted file may contain an endless loop.
MAX_RUN_S = 120.0
CHECK_EVERY_S = 1.0


def open_session(path: Path, *, threads: int | None = None, provider: str = "cpu") -> InferenceSession:
    """Open a file, ready to run.

    A file that onnxruntime can't read raises one of RUNTIME_ERRORS.

    Args:
        path: The ONNX file.
        threads: Number of threads of a run; None: one per core.
        provider: One of PROVIDERS.

    Raises:
        ConfigError: If the installed onnxruntime lacks the provider, or it does not start on this machine.
        ShortageError: If the machine allows no more threads or open files.
    """
    execution_providers = PROVIDERS[pick_provider(provider)]
    # onnxruntime would wait forever for a pipe, which open_regular refuses.
    with naming_shortage():
        open_regular(path).close()
    options = SessionOptions()
    # Errors reach the user as exceptions, not as lines of a log.
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    # One block of memory per run is larger and no faster.
    options.enable_mem_pattern = False
    if not _has_instructions("vnni"):
        options.add_session_config_entry("session.x64quantprecision", "1")
    provider_options = _openvino_options(threads) if provider == "openvino" else {}
    available = get_available_providers()
    usable = [(name, provider_options) for name in execution_providers if name in available]
    with naming_shortage():
        session = InferenceSession(path, options, providers=[*usable, CPU])
    # onnxruntime falls back to the CPU in silence.
    if execution_providers and execution_providers[0] not in session.get_providers():
        raise ConfigError(
            f"onnxruntime can't start {execution_providers[0]} on this machine: its driver or its libraries are missing"
        )
    return session


def _openvino_options(threads: int | None) -> dict[str, str]:
    """Return OpenVINO's options: bfloat16 if the processor can, which takes about 0.6 of the time of float32."""
    has_bfloat16 = _has_instructions("avx512_bf16") or _has_instructions("amx_bf16")
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if has_bfloat16 else "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": settings})}


@cache
def _has_instructions(flag: str) -> bool:
    """Return True if the processor has instructions of this name.

    Without vnni, products of 8 bits overflow, unless slower ones are used.
    """
    try:
        with open("/proc/cpuinfo", "rb") as file:
            # The flags of the first core are within these bytes.
            return flag.encode() in file.read(8192)
    except OSError:
        return False


def pick_provider(name: str | None) -> str:
    """Return the name of a provider that the installed onnxruntime has.

    Args:
        name: One of PROVIDERS; None: cuda if it is available, else cpu.

    Raises:
        ConfigError: If the installed onnxruntime lacks the provider.
    """
    available = set(get_available_providers())
    names = [known_name for known_name, parts in PROVIDERS.items() if not parts or parts[0] in available]
    if name is None:
        return "cuda" if "cuda" in names else "cpu"
    if name not in names:
        raise ConfigError(
            f"the installed onnxruntime has no provider {name}, only {', '.join(names)}; replace it by another "
            "package, such as onnxruntime-gpu or onnxruntime-openvino"
        )
    return name


# Deadlines and options of the runs in this process.
_running: dict[object, tuple[float, RunOptions]] = {}
# One thread watches all runs: one thread per run would cost a tenth of its time.
_watchers: list[threading.Thread] = []


def _watch() -> None:
    """Start the thread that stops runs at their deadline, unless it is running; a forked process has none."""
    if _watchers and _watchers[-1].is_alive():
        return
    _watchers[:] = [threading.Thread(target=_stop_overdue, name="uniemox-watch", daemon=True)]
    with naming_shortage():
        _watchers[-1].start()


def _stop_overdue() -> None:
    while True:
        time.sleep(CHECK_EVERY_S)
        for deadline, options in list(_running.values()):
            if time.monotonic() > deadline:
                options.terminate = True


class Session:
    """File that is ready to run: on all cores, or on one core in a worker of `parallel_map`. Threads may share it.

    Parallel runs on one thread each are faster than parallel runs on all cores, whose threads wait for each other.
    `wide` is the session on all cores. Errors are those of `open_session`.

    Args:
        path: The ONNX file.
        threads: Number of threads of every run; None: all cores, or one in a worker.
        provider: One of PROVIDERS.
    """

    def __init__(self, path: Path, *, threads: int | None = None, provider: str = "cpu") -> None:
        self.wide = open_session(path, threads=threads, provider=provider)
        self._path = path
        self._threads = threads
        self._provider = provider
        self._lock = threading.Lock()
        # The session on one core is opened by the first worker that needs it.
        opens_narrow = threads is None and provider == "cpu"
        self._narrow = None if opens_narrow else self.wide

    def run(self, outputs: Sequence[str] | None, inputs: Mapping[str, Any]) -> list[Any]:
        """Run the network. An error is one of RUNTIME_ERRORS, also for a run of more than two minutes.

        Args:
            outputs: Names of the outputs to return; None: all.
            inputs: Arrays by the name of their input.
        """
        session = self._one_core() if is_parallel_worker() else self.wide
        options = RunOptions()
        run = object()
        _watch()
        _running[run] = time.monotonic() + MAX_RUN_S, options
        try:
            return session.run(outputs, dict(inputs), options)
        except RUNTIME_ERRORS as error:
            if options.terminate:
                raise RuntimeError(f"it took more than {MAX_RUN_S:g} s and was stopped") from error
            raise
        finally:
            del _running[run]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the file's name, which another process opens again."""
        return partial(Session, Path(os.path.abspath(self._path)), threads=self._threads, provider=self._provider), ()

    def _one_core(self) -> InferenceSession:
        with self._lock:
            if self._narrow is None:
                self._narrow = open_session(self._path, threads=1)
            return self._narrow


def unpack_weights(src: Path, dst: Path) -> None:
    """Write a file again with float32 weights: casts of those in fewer bits are computed. Metadata are lost.

    An error is one of RUNTIME_ERRORS.

    Args:
        src: The ONNX file.
        dst: The file to write.
    """
    options = SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(dst)
    InferenceSession(src, options, providers=[CPU])


def quantization_tools() -> Any:
    """Return the module onnxruntime.quantization; it needs `onnx`, of the extra train."""
    from onnxruntime import quantization  # noqa: PLC0415 - an extra

    return quantization
