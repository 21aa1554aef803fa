"""Which files an ONNX file takes weights from, wherever in it they are named and however that is written."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.predict.networks import tiny_network
from uniemox.errors import CheckpointError, DetectorError, TeacherError
from uniemox.io.onnx_external import external_files, leaves_folder, with_metadata
from uniemox.persons.detector import load_detector
from uniemox.predict.network import Network

NAME = "weights.bin"
X = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])]
Y = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])]
OPERATORS = [helper.make_opsetid("", 20)]


def elsewhere(name: str = NAME) -> TensorProto:
    """A tensor whose values are in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", name), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def sparse() -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=elsewhere(), indices=TensorProto(), dims=[4])


def graph_of(nodes: list[onnx.NodeProto], **more: object) -> onnx.GraphProto:
    return helper.make_graph(nodes, "g", X, Y, **more)


def node_with(**attributes: object) -> onnx.NodeProto:
    return helper.make_node("Anything", ["x"], ["y"], **attributes)


def model_of(graph: onnx.GraphProto, **more: object) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=OPERATORS, **more)


def function_with(**attributes: object) -> onnx.ModelProto:
    function = helper.make_function("d", "F", ["x"], ["y"], [node_with(**attributes)], OPERATORS)
    return model_of(graph_of([]), functions=[function])


def training() -> onnx.ModelProto:
    model = model_of(graph_of([]))
    model.training_info.add(algorithm=graph_of([], initializer=[elsewhere()]))
    return model


def default_attribute() -> onnx.ModelProto:
    model = function_with()
    model.functions[0].attribute_proto.append(helper.make_attribute("value", elsewhere()))
    return model


MODELS = {
    "an initializer": lambda: model_of(graph_of([], initializer=[elsewhere()])),
    "a sparse initializer": lambda: model_of(graph_of([], sparse_initializer=[sparse()])),
    "a constant": lambda: model_of(graph_of([node_with(value=elsewhere())])),
    "a list of constants": lambda: model_of(graph_of([node_with(values=[elsewhere()])])),
    "a sparse constant": lambda: model_of(graph_of([node_with(value=sparse())])),
    "a graph in a node": lambda: model_of(graph_of([node_with(body=graph_of([], initializer=[elsewhere()]))])),
    "a graph of several": lambda: model_of(graph_of([node_with(bodies=[graph_of([node_with(value=elsewhere())])])])),
    "a function": lambda: function_with(value=elsewhere()),
    "a function's default": default_attribute,
    "a training graph": training,
}


@pytest.mark.parametrize("place", MODELS)
def test_external_files_are_listed_for_every_place_of_a_tensor(place: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(MODELS[place]().SerializeToString())
    assert external_files(tmp_path / "m.onnx") == [NAME]


def field(number: int, content: bytes, *, padding: int = 0) -> bytes:
    """A field as bytes, its length with this number of needless bytes."""
    length = len(content)
    digits = [length & 0x7F, length >> 7] if padding or length > 0x7F else [length]
    return bytes([number << 3 | 2, *(d | 0x80 for d in digits[:-1]), *digits[-1:]]) + content


@pytest.mark.parametrize(
    "entry",
    [
        field(1, b"location") + field(2, NAME.encode()),
        field(2, NAME.encode()) + field(1, b"location"),  # the name first
        field(1, b"location", padding=1) + field(2, NAME.encode(), padding=1),
        field(1, b"location") + field(9, b"nothing") + field(2, NAME.encode()),  # a field that nobody knows between
        field(1, b"offset") + field(1, b"location") + field(2, NAME.encode()),  # the last of two counts
    ],
    ids=["plain", "backwards", "padded", "with more", "twice"],
)
def test_external_files_are_listed_for_every_valid_encoding(entry: bytes, tmp_path: Path) -> None:
    """The same for onnx; a search for the bytes of the plain one finds two of them."""
    tensor = b"\x08\x04\x10\x01" + field(8, b"w") + field(13, entry) + b"\x70\x01"
    (tmp_path / "m.onnx").write_bytes(b"\x08\x09" + field(7, field(5, tensor)))
    [read] = onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.initializer
    assert (read.data_location, read.external_data[0].value) == (TensorProto.EXTERNAL, NAME)
    assert external_files(tmp_path / "m.onnx") == [NAME]
    with pytest.raises(CheckpointError, match=r"m\.onnx keeps weights in other files \('weights\.bin'\)"):
        Network.open(tmp_path / "m.onnx")


def test_the_word_location_alone_names_no_file(tmp_path: Path) -> None:
    """In a label, a name, the text of a description."""
    tensor = helper.make_tensor("\n\x08location\x12\x01w", TensorProto.FLOAT, [1], [1.0])
    model = model_of(graph_of([], initializer=[tensor]), doc_string="location")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert external_files(tmp_path / "m.onnx") == []


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_cut_off_file_is_no_protocol_buffer(cut: int, tmp_path: Path) -> None:
    complete = model_of(graph_of([], initializer=[elsewhere()])).SerializeToString()
    (tmp_path / "m.onnx").write_bytes(complete[:-cut])
    with pytest.raises(ValueError, match="no protocol buffer"):
        external_files(tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["../w.bin", "/etc/passwd", "a/../../w", "C:\\w", "..\\w", "\\\\host\\w", ""])
def test_weights_outside_of_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    assert leaves_folder(name)
    path = tmp_path / "m.onnx"
    path.write_bytes(model_of(graph_of([], initializer=[elsewhere(name)])).SerializeToString())
    with pytest.raises(DetectorError, match=r"m\.onnx keeps weights in other files"):
        load_detector(path)
    from uniemox.teacher.sources import OnnxImageTower

    with pytest.raises(TeacherError, match=r"m\.onnx reads weights from .*, not in its folder; put"):
        OnnxImageTower(path)


@pytest.mark.parametrize("name", ["w.bin", "sub/w.bin", "./w.bin", "m.onnx.data", "a..b"])
def test_names_inside_of_the_folder_are_accepted(name: str) -> None:
    assert not leaves_folder(name)


@pytest.mark.parametrize("length", [0, 5, 200, 70_000])
def test_metadata_value_is_replaced_and_all_else_stays(tmp_path: Path, length: int) -> None:
    path = tiny_network(tmp_path / "m.onnx", metadata={"first": "1", "uniemox": "old", "last": "3"})
    before = onnx.load(path)
    written = with_metadata(path.read_bytes(), "uniemox", "ä" * length)
    after = onnx.load_from_string(written)
    onnx.checker.check_model(after)
    assert {entry.key: entry.value for entry in after.metadata_props} == {
        "first": "1",
        "last": "3",
        "uniemox": "ä" * length,
    }
    assert after.graph == before.graph
    assert after.opset_import == before.opset_import


def test_missing_metadata_key_is_added(tmp_path: Path) -> None:
    path = tiny_network(tmp_path / "m.onnx", metadata={})
    written = onnx.load_from_string(with_metadata(path.read_bytes(), "k", "v"))
    assert [(entry.key, entry.value) for entry in written.metadata_props] == [("k", "v")]


def test_metadata_of_no_protocol_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="no protocol buffer"):
        with_metadata(b"\xff" * 20, "k", "v")
