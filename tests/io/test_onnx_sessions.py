"""Sessions of onnxruntime: in forked processes, and without end."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from uniemox.io import onnx_sessions

FORK = """
import gc, os, time
from uniemox.io.onnx_sessions import open_session
from uniemox.predict.opening import embedded_file
class Cycle: pass
dropped = Cycle()
dropped.itself, dropped.session = dropped, open_session(embedded_file("small.onnx"), threads=2)
gc.disable()
del dropped
child = os.fork()
if child == 0:
    gc.collect()
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_forked_process_does_not_wait_for_the_threads_of_a_dropped_session() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60)


def endless(path: Path) -> Path:
    """Write a network whose loop ends after 2^62 rounds."""
    value = helper.make_tensor_value_info("value", TensorProto.FLOAT, [1])
    went_on = helper.make_tensor_value_info("went_on", TensorProto.BOOL, [])
    rounds, goes_on = (
        helper.make_tensor_value_info(*one, []) for one in (("i", TensorProto.INT64), ("on", TensorProto.BOOL))
    )
    result = helper.make_tensor_value_info("next", TensorProto.FLOAT, [1])
    steps = [helper.make_node("Identity", ["on"], ["went_on"]), helper.make_node("Neg", ["value"], ["next"])]
    body = helper.make_graph(steps, "body", [rounds, goes_on, value], [went_on, result])
    constants = [
        helper.make_tensor("count", TensorProto.INT64, [], [2**62]),
        helper.make_tensor("start", TensorProto.BOOL, [], [True]),
    ]
    loop = helper.make_node("Loop", ["count", "start", "x"], ["y"], body=body)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([loop], "endless", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_an_endless_network_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_sessions, "MAX_RUN_S", 0.5)
    session = onnx_sessions.Session(endless(tmp_path / "endless.onnx"))
    with pytest.raises(onnx_sessions.RUNTIME_ERRORS, match=r"more than 0.5 s and was stopped"):
        session.run(None, {"x": np.ones(1, np.float32)})
