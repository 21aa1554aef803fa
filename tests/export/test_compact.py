"""Weights in 16 or 8 bits take less space and change the outputs little."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.export.networks import SIZE, Convolutions, classify, info_of
from uniemox.errors import CheckpointError, ConfigError
from uniemox.export.compact import FEW_VALUES, store_as_float16, store_as_int8
from uniemox.export.onnx import METADATA_KEY, export_classifier


def matrices(path: Path, *values: np.ndarray) -> Path:
    """An ONNX file that multiplies (N, 40) by matrices."""
    names = [f"weight{i}" for i in range(len(values))]
    steps = ["x", *(f"x{i}" for i in range(1, len(values))), "y"]
    nodes = [helper.make_node("MatMul", [steps[i], name], [steps[i + 1]]) for i, name in enumerate(names)]
    stored = [numpy_helper.from_array(value, name) for value, name in zip(values, names, strict=True)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 40])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 40])]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", inputs, outputs, stored), opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    onnx.save(model, path)
    return path


def types(path: Path) -> list[int]:
    return [tensor.data_type for tensor in onnx.load(path).graph.initializer]


def run(path: Path, x: np.ndarray) -> np.ndarray:
    return sessions_of(path)[0].run(None, {"x": x})[0]


def weights() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((40, 40)).astype(np.float32)


def sessions_of(*paths: Path) -> list[onnxruntime.InferenceSession]:
    return [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in paths]


def test_float16_halves_the_size_and_keeps_the_outputs(tmp_path: Path) -> None:
    """Logits within 2e-2, the same label for every image, for any batch; metadata, inputs and outputs as before."""
    torch.manual_seed(0)
    before = tmp_path / "before.onnx"
    after = tmp_path / "after.onnx"
    export_classifier(classify(Convolutions(1500), 1500), info_of(), before)
    store_as_float16(before, after)
    onnx.checker.check_model(onnx.load(after))
    assert after.stat().st_size < 0.55 * before.stat().st_size
    sessions = sessions_of(before, after)
    metadata = [session.get_modelmeta().custom_metadata_map for session in sessions]
    assert metadata[0] == metadata[1]
    assert set(metadata[0]) == {METADATA_KEY}
    for count in (1, 2, 40):
        pixels = np.random.default_rng(count).standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)
        (logits, maps), (small_logits, small_maps) = [
            session.run(["logits", "maps"], {"scene": pixels}) for session in sessions
        ]
        assert small_logits.dtype == np.float32
        np.testing.assert_allclose(small_logits, logits, atol=2e-2)
        np.testing.assert_allclose(small_maps, maps, atol=5e-2)
        assert (small_logits.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_int8_quarters_the_size_with_a_scale_per_channel(tmp_path: Path) -> None:
    """Channels of very different size keep their precision; what float32 would compute with these weights comes out."""
    torch.manual_seed(0)
    network = classify(Convolutions(1500), 1500)
    with torch.no_grad():
        network.encoder.second.weight *= torch.logspace(-3, 0, 1500)[:, None, None, None]
    before = tmp_path / "before.onnx"
    after = tmp_path / "after.onnx"
    export_classifier(network, info_of(), before)
    store_as_int8(before, after)
    onnx.checker.check_model(onnx.load(after))
    assert after.stat().st_size < 0.3 * before.stat().st_size
    pixels = np.random.default_rng(0).standard_normal((9, 3, SIZE, SIZE)).astype(np.float32)
    logits, small = (session.run(["logits"], {"scene": pixels})[0] for session in sessions_of(before, after))
    np.testing.assert_allclose(small, logits, atol=0.1)
    assert (small.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_training_that_started_from_8_bits_is_not_undone(tmp_path: Path) -> None:
    """Every weight moved by a quarter of a step; the nearest value would be where it started."""
    rng = np.random.default_rng(0)
    start = rng.integers(-120, 121, (40, 400)).astype(np.float32)
    # The scale of each channel stays.
    start[:, 0] = 127
    moved = start.copy()
    moved[:, 1:] += 0.25
    path = matrices(tmp_path / "model.onnx", moved, moved.T.copy())
    store_as_int8(path, tmp_path / "small.onnx")
    [stored] = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "small.onnx").graph.initializer
        if tensor.name == "weight0.int8"
    ]
    stored = stored.reshape(start.shape)
    assert (stored[:, 1:] - start[:, 1:]).mean() == pytest.approx(0.25, abs=0.02)
    assert np.abs(stored - moved).max() <= 1
    store_as_int8(path, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "small.onnx").read_bytes()


def test_kernels_that_are_named_stay_in_16_bits(tmp_path: Path) -> None:
    kernels = [np.random.default_rng(i).standard_normal((40, 200)).astype(np.float32) for i in range(2)]
    path = matrices(tmp_path / "model.onnx", kernels[0], kernels[1].T.copy())
    store_as_int8(path, tmp_path / "mixed.onnx", keep_float16="weight1")
    types = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "mixed.onnx").graph.initializer}
    assert (types["weight0.int8"], types["weight1.float16"]) == (TensorProto.INT8, TensorProto.FLOAT16)
    for wrong, message in (("weight2", "matches no kernel's name"), ("(", "is not a regular expression")):
        with pytest.raises(ConfigError, match=message):
            store_as_int8(path, tmp_path / "none.onnx", keep_float16=wrong)
    assert not (tmp_path / "none.onnx").exists()


def test_packed_file_computes_in_float32_with_rounded_weights(tmp_path: Path) -> None:
    before = matrices(tmp_path / "before.onnx", weights())
    after = tmp_path / "after.onnx"
    x = weights()[:7]
    store_as_float16(before, after)
    assert types(after) == [TensorProto.FLOAT16]
    rounded = matrices(tmp_path / "rounded.onnx", weights().astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(run(after, x), run(rounded, x))


def test_small_tensors_and_other_types_stay_unchanged(tmp_path: Path) -> None:
    few = np.zeros((40, FEW_VALUES // 40), np.float32)
    more = np.ones((FEW_VALUES // 40, 41), np.float32)
    path = matrices(tmp_path / "model.onnx", few, more, np.ones((41, 40), np.float32))
    store_as_float16(path, path)
    assert types(path) == [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT16]


@pytest.mark.parametrize("value", [70_000.0, np.inf, np.nan])
def test_values_beyond_float16_stay_unchanged(tmp_path: Path, value: float) -> None:
    large = weights()
    large[3, 5] = value
    path = matrices(tmp_path / "model.onnx", large)
    store_as_float16(path, tmp_path / "small.onnx")
    assert types(tmp_path / "small.onnx") == [TensorProto.FLOAT]


def test_packed_weights_are_not_packed_again(tmp_path: Path) -> None:
    path = matrices(tmp_path / "model.onnx", np.ones((40, 200), np.float32), np.ones((200, 40), np.float32))
    for store in (store_as_float16, store_as_int8):
        store(path, tmp_path / "fewer.onnx")
        with pytest.raises(CheckpointError, match="already stored in 16 or 8 bits"):
            store_as_int8(tmp_path / "fewer.onnx", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_packing_twice_changes_nothing(tmp_path: Path) -> None:
    path = matrices(tmp_path / "model.onnx", weights())
    once = tmp_path / "once.onnx"
    twice = tmp_path / "twice.onnx"
    store_as_float16(path, once)
    store_as_float16(once, twice)
    store_as_float16(path, path)
    assert once.read_bytes() == twice.read_bytes() == path.read_bytes()


def test_a_broken_or_missing_file_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    for path in (broken, tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(CheckpointError, match="can't be read as ONNX"):
            store_as_float16(path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
