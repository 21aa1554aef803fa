"""Files of classifiers: they are complete, rewritten without change, and other or mangled files are refused."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import safetensors.torch
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from tests.data.tree import says
from tests.runs import SIZE, finetuned, pretrained
from uniemox.checkpoints import load_published
from uniemox.checkpoints.classifier import CLASSIFIER_KEY as KEY
from uniemox.checkpoints.classifier import load_classifier, save_classifier
from uniemox.classifier_info import TOP_LEVEL, ClassifierInfo
from uniemox.errors import CheckpointError
from uniemox.export.onnx import export_classifier
from uniemox.finetune.config import NetworkConfig
from uniemox.finetune.network import build_network
from uniemox.model.classifier import Classifier

NAMES = ("both", "knn", "probe", "affect")


def weights(name: str) -> Path:
    return finetuned(name) / "model.safetensors"


def header(path: Path) -> dict[str, Any]:
    with safe_open(str(path), "pt") as file:
        return json.loads(file.metadata()[KEY])


def with_header(target: Path, values: object) -> Path:
    """Write the weights of `both` under another header."""
    text = values if isinstance(values, str) else json.dumps(values)
    safetensors.torch.save_file(safetensors.torch.load_file(weights("both")), target, {KEY: text})
    return target


@pytest.mark.parametrize("name", NAMES)
def test_a_file_written_again_is_the_same(name: str, tmp_path: Path) -> None:
    classifier, info = load_classifier(weights(name))
    assert not classifier.training
    save_classifier(classifier, info, tmp_path / "copy.safetensors")
    assert (tmp_path / "copy.safetensors").read_bytes() == weights(name).read_bytes()


def test_an_older_file_without_norm_eps_gets_the_eps_of_its_training(tmp_path: Path) -> None:
    values = header(weights("both"))
    classifier, _ = load_classifier(weights("both"))
    assert classifier.norm.eps == values["parts"].pop("norm_eps") == 1e-12
    older, _ = load_classifier(with_header(tmp_path / "older.safetensors", values))
    assert older.norm.eps == 1e-6


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["mixmae", "test_resnet", "test_vit", "vit_tiny_patch16_224", "test_efficientnet"])
def test_loaded_networks_equal_the_saved_ones(name: str, golden: Path, tmp_path: Path) -> None:
    """Networks of timm, and MixMAE: a Swin without shifts and with a position table, which timm does not have."""
    torch.manual_seed(0)
    start = golden / "mixmae" / "checkpoint.pth"
    init = f"scratch:timm:{name}"
    size = SIZE
    if name == "mixmae":
        init = str(start)
        size = load_published(start).report.image_size
    network = build_network(init, NetworkConfig(), size=size, outputs=2)
    info = ClassifierInfo(label_set="custom", kind="felt", size=size, network=replace(network.spec, labels=("a", "b")))
    save_classifier(network.classifier, info, tmp_path / "model.safetensors")
    loaded, loaded_info = load_classifier(tmp_path / "model.safetensors")
    pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.classifier.eval()(pixels)
        assert torch.equal(loaded(pixels), expected)
    assert loaded_info.labels == ("a", "b")
    assert loaded_info.find_labels().kind == "felt"
    if name == "mixmae":
        export_classifier(loaded, info, tmp_path / "model.onnx")
        logits = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(["logits"], {"scene": pixels.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-3, atol=1e-4)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "cut").write_bytes(weights("both").read_bytes()[:5000])
    for path in (tmp_path / "none", tmp_path / "text", tmp_path / "cut", tmp_path):
        with pytest.raises(CheckpointError, match=says(path, "can't be read")):
            load_classifier(path)
    for name in ("encoder.safetensors", "model.safetensors"):
        with pytest.raises(CheckpointError, match="not a uniemox classifier; uniemox finetune writes one"):
            load_classifier(pretrained() / name)


ENCODER = {"name": "vit_tiny_patch16_224", "options": {"num_classes": 0}, "mean": [0.5] * 3, "std": [0.5] * 3}
HEADERS: dict[str, Any] = {
    "no JSON": "{",
    "a list": "[]",
    "nothing": {},
    "deep": "[" * 100_000,
    "no labels": {"labels": []},
    "labels of a number": {"labels": 3},
    "another kind": {"kind": "thought"},
    "no size": {"size": 0},
    "a size of text": {"size": "32"},
    "streams": {"streams": "three"},
    "a missing fusion": {"parts": {"feature_width": 32, "outputs": 8}},
    "a fusion of another name": {
        "parts": {"feature_width": 32, "outputs": 8, "fused_width": 16, "fusion": "x", "heads": 3}
    },
    "a width of another size": {
        "parts": {"feature_width": 31, "outputs": 8, "fused_width": 16, "fusion": "gated", "heads": 3}
    },
    "no parts": {"parts": {}},
    "parts of a list": {"parts": []},
    "no encoder": {"encoder": {}},
    "a network that is fetched": {"encoder": {"name": "hf-hub:some/model", "options": {}}},
    "a network that is read": {"encoder": {"name": "local-dir:/tmp", "options": {}}},
    "pretrained weights": {"encoder": {"name": "vit_tiny_patch16_224", "options": {"pretrained": True}}},
    "a checkpoint of its own": {
        "encoder": {"name": "vit_tiny_patch16_224", "options": {"checkpoint_path": "/etc/passwd"}}
    },
    "another network": {"encoder": {"name": "resnet18", "options": {"num_classes": 0}}},
    "odd options": {"encoder": {"name": "vit_tiny_patch16_224", "options": {"depth": "two"}}},
    "an empty bank": {"parts": {"feature_width": 32, "outputs": 8, "bank": 0, "neighbours": 3, "vote_temperature": 1}},
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_mangled_header_is_a_checkpoint_error(name: str, tmp_path: Path) -> None:
    values = HEADERS[name]
    if isinstance(values, dict) and values:
        values = header(weights("both")) | values
    path = with_header(tmp_path / "bad.safetensors", values)
    with pytest.raises(CheckpointError):
        load_classifier(path)


PLAIN = {"feature_width": 32, "outputs": 8}
LARGE: dict[str, Any] = {
    "blocks": {"encoder": {"name": "vit_tiny_patch16_224", "options": {"depth": 20_000}}},
    "stages": {"encoder": {"name": "swin_tiny_patch4_window7_224", "options": {"depths": [10**9, -(10**9)]}}},
    "encoders": {"encoder": {"several": [ENCODER] * 2000}, "streams": "scene", "parts": PLAIN},
    "a wide encoder": {"encoder": {"name": "vit_tiny_patch16_224", "options": {"embed_dim": 48_000}}},
    "a table of positions": {"encoder": {"name": "vit_tiny_patch16_224", "options": {"img_size": 160_000}}},
    "outputs": {"streams": "scene", "parts": {"feature_width": 64, "outputs": 10**7}},
    "a fusion": {"parts": {**PLAIN, "fused_width": 20_000, "fusion": "attention", "heads": 3}},
    "a bank": {"streams": "scene", "parts": {**PLAIN, "bank": 10**8, "neighbours": 3, "vote_temperature": 1}},
    "distances": {"streams": "scene", "parts": {**PLAIN, "distance_axes": 10**8}},
    "confounders": {"streams": "scene", "parts": {**PLAIN, "confounders": [10**8, 32]}},
}
REFUSE = """
import resource, sys
from uniemox.checkpoints.classifier import load_classifier
from uniemox.errors import CheckpointError
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**29
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (40, 40))
for path in sys.argv[1:]:
    try:
        load_classifier(Path(path))
    except CheckpointError as error:
        assert "alloc" not in str(error), error
        print(error)
"""


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory need Linux")
def test_a_small_file_that_describes_a_large_network_takes_no_memory(tmp_path: Path) -> None:
    paths = []
    for name, changes in LARGE.items():
        values = json.dumps(header(weights("both")) | changes)
        safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / name, {KEY: values})
        paths.append(str(tmp_path / name))
    assert sum(Path(path).stat().st_size < 3000 for path in paths) == len(LARGE) - 1
    code = f"from pathlib import Path\n{REFUSE}"
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split(" can't be loaded")[0] for line in done.stdout.splitlines()] == paths


def test_memory_of_computed_masks_is_limited(tmp_path: Path) -> None:
    sizes = {"num_classes": 0, "embed_dim": 8, "depths": [2], "num_heads": [1]}
    name = "swin_tiny_patch4_window7_224"
    classifier = Classifier(timm.create_model(name, **sizes), feature_width=8, outputs=8, streams="scene")
    for img_size in (224, 7000):
        options = {**sizes, "img_size": img_size}
        values = header(weights("both")) | {"encoder": {"name": name, "options": options}, "streams": "scene"}
        values["parts"] = {"feature_width": 8, "outputs": 8}
        safetensors.torch.save_file(classifier.state_dict(), tmp_path / "swin", {KEY: json.dumps(values)})
        if img_size == 224:
            load_classifier(tmp_path / "swin")
    with pytest.raises(CheckpointError, match=r"needs [\d,]+ MiB besides weights"):
        load_classifier(tmp_path / "swin")


def test_a_refusal_names_the_weight_that_does_not_fit(tmp_path: Path) -> None:
    values = header(weights("both"))
    values["parts"]["outputs"] += 1
    path = with_header(tmp_path / "bad.safetensors", values)
    with pytest.raises(CheckpointError, match=r"head.weight has shape \(8, 16\) in the file, but .* \(9, 16\)"):
        load_classifier(path)


def test_an_unknown_field_of_a_later_version_is_ignored(tmp_path: Path) -> None:
    path = with_header(tmp_path / "later.safetensors", header(weights("both")) | {"mood": 1})
    assert load_classifier(path)[1] == load_classifier(weights("both"))[1]


@pytest.fixture(scope="module")
def mutated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutated") / "model.safetensors"


@given(st.data())
def test_any_value_in_a_header_loads_or_is_a_checkpoint_error(mutated: Path, data: st.DataObject) -> None:
    """One field is replaced by a value of another type or size."""
    values = header(weights("both"))
    name = data.draw(st.sampled_from(sorted(values)))
    plain = st.none() | st.booleans() | st.integers(-2, 40) | st.floats() | st.text(max_size=5)
    values[name] = data.draw(
        plain | st.lists(plain, max_size=3) | st.dictionaries(st.text(max_size=8), plain, max_size=3)
    )
    try:
        classifier, info = load_classifier(with_header(mutated, values))
    except CheckpointError:
        return
    assert classifier.streams == info.streams == "both"


def test_the_info_is_plain_json() -> None:
    _, info = load_classifier(weights("both"))
    values = json.loads(info.to_json())
    # Only files of task multilabel have these two.
    names = {*ClassifierInfo.__slots__, *TOP_LEVEL, "encoder", "parts"} - {"network", "offsets", "thresholds"}
    assert set(values) == names
    assert values == header(weights("both"))
