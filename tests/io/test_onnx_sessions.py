"""Sessions of onnxruntime: a run that never ends is stopped."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from uniemox.io import onnx_sessions


def endless(path: Path, shape: tuple[int, ...] = (1,)) -> Path:
    """Write a network whose loop ends after 2^62 rounds.  shape: of its input and output."""
    value = helper.make_tensor_value_info("value", TensorProto.FLOAT, shape)
    continued = helper.make_tensor_value_info("continued", TensorProto.BOOL, [])
    rounds = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    continues = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    result = helper.make_tensor_value_info("next", TensorProto.FLOAT, shape)
    steps = [helper.make_node("Identity", ["on"], ["continued"]), helper.make_node("Neg", ["value"], ["next"])]
    body = helper.make_graph(steps, "body", [rounds, continues, value], [continued, result])
    constants = [
        helper.make_tensor("count", TensorProto.INT64, [], [2**62]),
        helper.make_tensor("start", TensorProto.BOOL, [], [True]),
    ]
    loop = helper.make_node("Loop", ["count", "start", "x"], ["y"], body=body)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([loop], "endless", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_an_endless_network_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_sessions, "MAX_RUN_S", 0.5)
    session = onnx_sessions.Session(endless(tmp_path / "endless.onnx"))
    with pytest.raises(onnx_sessions.RUNTIME_ERRORS, match=r"more than 0.5 s and was stopped"):
        session.run(None, {"x": np.ones(1, np.float32)})
