"""An exported classifier has torch's outputs for any batch, and metadata that describe them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from tests.runs import SIZE, finetuned
from uniemox.checkpoints.classifier import load_classifier
from uniemox.errors import CheckpointError
from uniemox.export.onnx import METADATA_KEY, OPSET, export_classifier
from uniemox.predict.confidence import probabilities_of

NAMES = ("both", "knn", "probe", "affect")


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def pixels(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_answers_as_torch(name: str, count: int) -> None:
    """Probabilities within 1e-4, or numbers within 1e-4."""
    run = finetuned(name)
    classifier, info = load_classifier(run / "model.safetensors")
    model = session(run / "model.onnx")
    views = {part.name: pixels(count, seed) for seed, part in enumerate(model.get_inputs())}
    with torch.no_grad():
        expected = classifier(**views).numpy()
    [answers] = model.run(["logits"], {name: view.numpy() for name, view in views.items()})
    assert answers.shape == expected.shape == (count, len(info.labels))
    if info.task != "affect":
        answers = probabilities_of(answers, None)
        expected = probabilities_of(expected, None)
    np.testing.assert_allclose(answers, expected, atol=1e-4)


@pytest.mark.thorough
def test_a_classifier_that_was_compiled_for_training_is_exported_without_a_compiler(tmp_path: Path) -> None:
    """It used to be compiled again for the CPU, which fails after all the training if there is no C++ compiler."""
    classifier, info = load_classifier(finetuned("probe") / "model.safetensors")

    def no_compiler(graph: torch.fx.GraphModule, examples: list[Tensor]) -> None:
        raise RuntimeError("there is no compiler")

    torch._dynamo.reset()
    for block in classifier.encoder.blocks:  # type: ignore[union-attr]
        block.compile(backend=no_compiler)
    export_classifier(classifier, info, tmp_path / "model.onnx")
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        expected = classifier(pixels(2)).numpy()
    [logits] = session(tmp_path / "model.onnx").run(["logits"], {"scene": pixels(2).numpy()})
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_onnx_inputs_are_the_streams() -> None:
    inputs = {name: [part.name for part in session(finetuned(name) / "model.onnx").get_inputs()] for name in NAMES}
    assert inputs == {"both": ["scene", "person"], "knn": ["scene"], "probe": ["scene"], "affect": ["person"]}


@pytest.mark.parametrize("name", NAMES)
def test_onnx_metadata_hold_the_classifier_info(name: str) -> None:
    _, info = load_classifier(finetuned(name) / "model.safetensors")
    metadata = session(finetuned(name) / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(metadata[METADATA_KEY]) == json.loads(info.to_json())


def test_onnx_file_contains_no_local_paths() -> None:
    data = (finetuned("both") / "model.onnx").read_bytes()
    for word in (str(Path(__file__).parents[2]), "site-packages", "stack_trace", ".py"):
        assert word.encode() not in data
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model)
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [OPSET]


def test_export_is_deterministic_and_keeps_the_classifier_unchanged(tmp_path: Path) -> None:
    classifier, info = load_classifier(finetuned("both") / "model.safetensors")
    export_classifier(classifier.train(), info, tmp_path / "model.onnx")
    assert classifier.training
    assert (tmp_path / "model.onnx").read_bytes() == (finetuned("both") / "model.onnx").read_bytes()


@pytest.mark.thorough
def test_a_path_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    classifier, info = load_classifier(finetuned("knn") / "model.safetensors")
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.onnx can't be written"):
        export_classifier(classifier, replace(info, size=SIZE), tmp_path / "model.onnx")
    # The mode is restored.
    assert not classifier.training
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
