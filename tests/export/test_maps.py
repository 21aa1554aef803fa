"""Class-activation maps of a convolutional network: their mean plus the bias is the logits."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from tests.export.networks import SIZE, Convolutions, classify, info_of, timm_encoder
from uniemox.export.onnx import WithMaps, export_classifier, has_maps
from uniemox.model.classifier import Classifier, NeighbourHead
from uniemox.model.concat_encoder import ConcatEncoder
from uniemox.model.fusion import build_fusion
from uniemox.views.patches import IMAGENET, PixelStats

HALVES = PixelStats((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@torch.no_grad()
def check_means(classifier: nn.Module, size: int) -> tuple[int, int]:
    """The maps' mean plus the bias is the logits, to 1e-5. Returns the size of the maps."""
    pixels = torch.randn(3, 3, size, size)
    outputs = WithMaps(classifier)(pixels)
    logits = outputs["logits"]
    maps = outputs["maps"]
    expected = classifier(scene=pixels)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(maps.mean(dim=(2, 3)) + classifier.head.bias, expected, atol=1e-5, rtol=1e-5)
    return maps.shape[2], maps.shape[3]


@pytest.mark.parametrize(("name", "width"), [("resnet10t", 512), ("mobilenetv2_050", 1280), ("lcnet_035", 1280)])
def test_linear_heads_on_the_mean_have_maps(name: str, width: int) -> None:
    """Not for lcnet, which has another layer after the mean."""
    classifier = classify(timm_encoder(name), width)
    assert has_maps(classifier, 64) == (name != "lcnet_035")
    if name != "lcnet_035":
        assert check_means(classifier, 64) == (2, 2)


def test_other_networks_have_no_maps() -> None:
    # This network has a norm after the mean.
    assert not has_maps(classify(timm_encoder("convnext_atto"), 320), 64)
    vit = timm_encoder("vit_tiny_patch16_224", img_size=SIZE, depth=1)
    assert not has_maps(classify(vit, 192), SIZE)
    assert not has_maps(classify(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 4)), 4), SIZE)
    assert not has_maps(classify(ConcatEncoder([Convolutions(), vit], [IMAGENET, IMAGENET]), 240), SIZE)


def test_other_heads_and_streams_have_no_maps() -> None:
    assert has_maps(classify(Convolutions(), 48), SIZE)
    assert not has_maps(classify(Convolutions(), 48, streams="person"), SIZE)
    voting = classify(Convolutions(), 48)
    voting.head = NeighbourHead(torch.randn(5, 48), torch.eye(5, 8), 2)
    assert not has_maps(voting, SIZE)
    embed = nn.Linear(48, 16)
    fusion = build_fusion("static", 16, 1)
    both = Classifier(Convolutions(), feature_width=48, outputs=8, streams="both", embed=embed, fusion=fusion)
    assert not has_maps(both.eval(), SIZE)


@pytest.mark.parametrize("strides", [(4, 4), (4, 8), (8, 4), (3, 4), (2, 3, 5)])
def test_maps_of_several_encoders_are_added_at_the_size_of_the_largest(strides: tuple[int, ...]) -> None:
    encoders = [Convolutions(16 * (i + 1), stride) for i, stride in enumerate(strides)]
    width = sum(16 * (i + 1) for i in range(len(strides)))
    stats = [(IMAGENET, HALVES)[i % 2] for i in range(len(strides))]
    classifier = classify(ConcatEncoder(encoders, stats), width)
    assert has_maps(classifier, SIZE)
    largest = -(-SIZE // min(strides))
    assert check_means(classifier, SIZE) == (largest, largest)


@torch.no_grad()
def test_map_value_is_the_heads_output_at_that_position() -> None:
    classifier = classify(Convolutions(), 48)
    pixels = torch.randn(2, 3, SIZE, SIZE)
    maps = WithMaps(classifier)(pixels)["maps"]
    feature_map = classifier.encoder.forward_features(pixels)
    for row, column in ((0, 0), (3, 5), (7, 7)):
        expected = feature_map[:, :, row, column] @ classifier.head.weight.T
        torch.testing.assert_close(maps[:, :, row, column], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("is_several", [False, True])
def test_onnx_has_maps_for_any_batch_and_logits_alone(tmp_path: Path, is_several: bool) -> None:
    if is_several:
        encoder = ConcatEncoder([Convolutions(16, 4), Convolutions(32, 6)], [IMAGENET, HALVES])
    else:
        encoder = None
    classifier = classify(encoder or Convolutions(), 48)
    first = tmp_path / "first.onnx"
    export_classifier(classifier, info_of(), first)
    if is_several:
        export_classifier(classifier, info_of(), tmp_path / "second.onnx")
        assert first.read_bytes() == (tmp_path / "second.onnx").read_bytes()
    session = onnxruntime.InferenceSession(first, providers=["CPUExecutionProvider"])
    assert [part.name for part in session.get_outputs()] == ["logits", "features", "maps"]
    for count in (1, 3):
        pixels = torch.randn(count, 3, SIZE, SIZE)
        with torch.no_grad():
            reference = {name: value.numpy() for name, value in WithMaps(classifier)(pixels).items()}
        expected = reference["logits"]
        expected_maps = reference["maps"]
        logits, maps = session.run(["logits", "maps"], {"scene": pixels.numpy()})
        [alone] = session.run(["logits"], {"scene": pixels.numpy()})
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        np.testing.assert_allclose(alone, expected, atol=1e-5)
        np.testing.assert_allclose(maps, expected_maps, atol=1e-5)
        bias = classifier.head.bias.detach().numpy()
        np.testing.assert_allclose(maps.mean(axis=(2, 3)) + bias, logits, atol=1e-5)
