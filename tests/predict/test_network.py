"""Files that are classifiers of ours, and files that are not."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from tests.predict.networks import INFO, SIZE, tiny_network
from tests.predict.test_faces import Finds
from uniemox.errors import CheckpointError, ConfigError
from uniemox.insight.explain.maps import heat_map
from uniemox.io.onnx_sessions import get_available_providers
from uniemox.io.sized_image import SizedImage
from uniemox.labels import MIKELS
from uniemox.persons.box import Box, Detection
from uniemox.predict import opening
from uniemox.predict.network import BLANK_STD, Network, is_blank
from uniemox.predict.opening import load
from uniemox.predict.predictor import Predictor
from uniemox_serve.app import create_app
from uniemox_serve.config import ServeConfig


def test_metadata_is_read(tmp_path: Path) -> None:
    network = Network.open(tiny_network(tmp_path / "run" / "model.onnx", conformal_scores=[0.1, 0.5]))
    info = network.info
    assert network.name == "run"
    assert (info.labels, info.kind, info.temperature, info.size) == (MIKELS.labels, "evoked", 0.5, SIZE)
    assert (info.mean, info.std, info.conformal_scores) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), (0.1, 0.5))
    assert info.views == ("scene",)
    assert network.maps(np.zeros((1, 3, SIZE, SIZE), np.float32)) is None


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_a_network_whose_answers_are_not_finite_is_refused(weight: float, tmp_path: Path) -> None:
    """`serve` refuses it too, as it starts with a prediction."""
    path = tiny_network(tmp_path / "m.onnx")
    model = onnx.load(path)
    [weights] = [part for part in model.graph.initializer if part.name == "weights"]
    values = np.full_like(onnx.numpy_helper.to_array(weights), weight)
    weights.CopyFrom(onnx.numpy_helper.from_array(values, "weights"))
    onnx.save(model, path)
    predictor = Predictor(Network.open(path))
    with pytest.raises(CheckpointError, match=r"m\.onnx: logits is not finite"):
        heat_map(predictor, Image.new("RGB", (50, 40), "red"))
    with pytest.raises(CheckpointError, match=r"m\.onnx: logits is not finite"):
        create_app([predictor], ServeConfig())


def test_pixels_are_normalised(tmp_path: Path) -> None:
    network = Network.open(tiny_network(tmp_path / "m.onnx"))
    views = np.random.default_rng(0).integers(0, 256, (2, 3, SIZE, SIZE), dtype=np.uint8)
    expected = (views / 255 - np.array(INFO["mean"])[:, None, None]) / np.array(INFO["std"])[:, None, None]
    np.testing.assert_allclose(network.pixels(views), expected, atol=1e-6)


INVALID_INFO = (
    ({"kind": "liked"}, 'field kind: expected a known value, got "liked"'),
    ({"labels": ()}, r"labels \(\)"),
    ({"task": "ranking"}, 'field task: expected a known value, got "ranking"'),
    ({"temperature": 0}, "temperature 0"),
    ({"streams": "sound"}, "field streams: expected a known value"),
    ({"person": "smallest"}, "field person: expected a known value"),
    ({"mean": (0.5,)}, "mean"),
    ({"std": (0.0, 1.0, 1.0)}, "std"),
    ({"crop_fraction": 0}, "crop_fraction 0"),
    ({"crop_fraction": 1e-9}, "crop_fraction 1e-09"),
    ({"conformal_scores": [2.0]}, "conformal_scores"),
    *(({"mean": value}, "mean") for value in ([float("nan")] * 3, [0.5, 0.5, float("inf")])),
    ({"mean": ["a", "b", "c"]}, r"field mean\[0\]: expected a number"),
    ({"std": [1e-320] * 3}, "std"),
    ({"temperature": 5e-324}, "temperature"),
    *(({"labels": [label, *MIKELS.labels[1:]]}, "labels") for label in ("a\r\nSet-Cookie: b", "\x1b[2J", "\ud800")),
    *(({name: ["x"]}, name) for name in ("label_set", "trained_on", "calibrated_on")),
    ({"temperature": "warm"}, 'field temperature: expected a number or null, got "warm"'),
    ({"labels": None}, "field labels: expected a list"),
    ({"streams": "both"}, "expected inputs scene, person"),
    ({"size": 64}, r"expected inputs scene \[N, 3, 64, 64\]"),
)
INVALID_METADATA = (
    *((sign * 100_000, "not JSON") for sign in ("[", '{"a":')),
    ("not JSON", "not JSON"),
    ("[1]", "expected an object, got a list; export it again"),
    ("{}", "field labels is missing; export it again"),
)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [*((json.dumps(INFO | changes), text) for changes, text in INVALID_INFO), *INVALID_METADATA],
)
def test_invalid_metadata_is_refused(tmp_path: Path, metadata: str, message: str) -> None:
    path = tiny_network(tmp_path / "m.onnx", metadata={"uniemox": metadata})
    with pytest.raises(CheckpointError, match=rf"m\.onnx: .*{message}"):
        Network.open(path)


def test_files_without_our_metadata_or_with_more_labels_than_outputs(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a uniemox classifier"):
        Network.open(tiny_network(tmp_path / "other.onnx", metadata={}))
    path = tiny_network(tmp_path / "m.onnx", metadata={"uniemox": json.dumps(INFO | {"labels": ["a", "b"]})})
    with pytest.raises(CheckpointError, match="has 2 labels, but gives"):
        Network.open(path).logits({"scene": np.zeros((1, 3, SIZE, SIZE), np.float32)})


def test_damaged_and_missing_model_files_are_refused(tmp_path: Path) -> None:
    data = tiny_network(tmp_path / "whole.onnx").read_bytes()
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "cut.onnx").write_bytes(data[: len(data) // 2])
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(2 * 2**30 + 1)
    for name, message in {
        "text": "can't read it",
        "cut": "can't read it",
        "empty": "0.0 GB",
        "large": "up to 2 GB",
        "missing": "No such file",
    }.items():
        with pytest.raises(CheckpointError, match=rf"{name}\.onnx.*{message}"):
            Network.open(tmp_path / f"{name}.onnx")
    with pytest.raises(CheckpointError, match="is not a file"):
        Network.open(tmp_path)


def test_weights_in_other_files_are_refused(tmp_path: Path) -> None:
    model = onnx.load(tiny_network(tmp_path / "m.onnx"))
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(CheckpointError, match=r"split\.onnx keeps weights in other files"):
        Network.open(tmp_path / "split.onnx")


def test_foreign_operators_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Mystery", ["scene"], ["logits"], domain="somebody.else")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("scene", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 8])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("somebody.else", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match=r"m\.onnx: onnxruntime can't read it"):
        Network.open(tmp_path / "m.onnx")


def test_loading_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_network(tmp_path / "run" / "model.onnx")
    for name in (path, str(path), path.parent):
        assert load(name, finder=None).name == "run"
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"has no model\.onnx"):
        load(tmp_path / "empty", finder=None)
    with pytest.raises(CheckpointError, match=r"embeded can.t be read: .*; did you mean 'embedded'\?"):
        load("embeded")
    with pytest.raises(CheckpointError, match=r"embedded can.t be read: .*; the model in the package is embedded, wi"):
        load("./embedded")
    with pytest.raises(ConfigError, match="threads must be at least 1"):
        load(path, threads=0)
    with pytest.raises(ConfigError, match="only a CLIP takes words"):
        load(path, words=["happy", "sad"])
    monkeypatch.setattr(opening, "EMBEDDED", tmp_path)
    with pytest.raises(CheckpointError, match=r"without scene\.onnx.*give a model"):
        load(finder=None)
    with pytest.raises(CheckpointError, match=r"without finder\.onnx.*--no-persons"):
        load(path)
    tiny_network(tmp_path / "scene.onnx")
    assert load(finder=None).labels == MIKELS.labels


def test_a_network_that_hides_the_person_needs_detections(tmp_path: Path) -> None:
    """The scene view is black where the person is. A long image then has a single view."""
    network = Network.open(tiny_network(tmp_path / "scene.onnx", hides_person=True, crop_fraction=1.0))
    assert network.info.needs_person
    assert not network.info.has_person
    long = Image.new("RGB", (300, 100), "white")
    person = Detection(Box(100, 0, 200, 100), 0.9)
    image_views = network.image_views(SizedImage.of(long), (person,))
    # Pixels at the edge are mixed with their neighbours, so they are left out.
    [view] = image_views.views
    assert view["scene"][:, 4:-4, 4:-4].max() == 0
    assert network.views_of(SizedImage.of(long), ())["scene"].min() == 255
    explained = heat_map(Predictor(network, Finds(person.box)), long, method="occlusion")
    # People are detected, although no view shows them.
    assert explained.persons == (person,)


def test_a_provider_that_onnxruntime_lacks_is_refused() -> None:
    if "CUDAExecutionProvider" in get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(ConfigError, match=r"no provider cuda.*onnxruntime-gpu"):
        load("small", finder=None, provider="cuda")


def test_openvino_predicts_as_the_cpu_does() -> None:
    if "OpenVINOExecutionProvider" not in get_available_providers():
        pytest.skip("needs a second provider: pip install onnxruntime-openvino in onnxruntime's place")
    photo = Path(__file__).parents[2] / "docs/images/cat.jpg"
    ours, theirs = (load("small", finder=None, threads=1, provider=name) for name in ("cpu", "openvino"))
    before = ours.predict(photo)
    after = theirs.predict(photo)
    # OpenVINO computes in bfloat16 on processors that have it.
    assert after.scene == pytest.approx(before.scene, abs=0.1)
    # --resume must not mix predictions of different precision.
    assert ours.network.engine.fingerprint != theirs.network.engine.fingerprint


@pytest.mark.parametrize("spread", [0, 1, 3.9, 4.1, 9, 60])
@pytest.mark.parametrize("blank_columns", [0, 40, 63])
def test_blank_views_are_those_without_a_channel_that_varies(spread: float, blank_columns: int) -> None:
    """Some pixels may be enough to tell, but the answer is that of all."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        view = (128 + rng.normal(0, spread, (3, 64, 64))).clip(0, 255).astype(np.uint8)
        view[:, :, :blank_columns] = 120
        assert is_blank(view) == (view.reshape(3, -1).std(axis=1).max() < BLANK_STD)
