"""Metadata of an ONNX file are replaced without the package onnx, and nothing else."""

from pathlib import Path

import onnx
import pytest

from tests.predict.networks import tiny_network
from uniemox.io.onnx_metadata import with_metadata


@pytest.mark.parametrize("length", [0, 5, 200, 70_000])
def test_one_value_is_replaced_and_all_else_stays(tmp_path: Path, length: int) -> None:
    path = tiny_network(tmp_path / "m.onnx", metadata={"first": "1", "uniemox": "old", "last": "3"})
    before = onnx.load(path)
    written = with_metadata(path.read_bytes(), "uniemox", "ä" * length)
    after = onnx.load_from_string(written)
    onnx.checker.check_model(after)
    assert {one.key: one.value for one in after.metadata_props} == {"first": "1", "last": "3", "uniemox": "ä" * length}
    assert after.graph == before.graph
    assert after.opset_import == before.opset_import


def test_a_key_that_was_not_there_is_added(tmp_path: Path) -> None:
    path = tiny_network(tmp_path / "m.onnx", metadata={})
    written = onnx.load_from_string(with_metadata(path.read_bytes(), "k", "v"))
    assert [(one.key, one.value) for one in written.metadata_props] == [("k", "v")]


def test_what_is_no_protocol_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="no protocol buffer"):
        with_metadata(b"\xff" * 20, "k", "v")
