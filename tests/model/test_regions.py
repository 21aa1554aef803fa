"""Regions: means inside boxes, crops, suppression of overlapping boxes, packing, and the same in ONNX."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from uniemox.errors import ConfigError
from uniemox.export.onnx import OPSET, quiet
from uniemox.model.detectors import CLASSES, Candidates
from uniemox.model.regions import (
    GRID,
    MAX_DETECTIONS,
    RegionReader,
    Regions,
    crop_box,
    feature_map,
    grid_boxes,
    mean_in_boxes,
    non_maximum_suppression,
    softmax_over_present,
)

SHARES = st.floats(0, 1, width=32)


def test_mean_in_boxes_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])  # (1, 1, 2, 2)
    boxes = torch.tensor([[[0, 0, 1, 1], [0.5, 0, 1, 0.5], [0.25, 0, 0.75, 1], [2, 2, 3, 3]]]).float()
    torch.testing.assert_close(mean_in_boxes(features, boxes)[0, :, 0], torch.tensor([2.5, 2.0, 2.5, 0.0]))
    # Three quarters of the left column and a quarter of the right one, all of the upper row.
    narrow = torch.tensor([[[0.125, 0.0, 0.625, 0.5]]])
    torch.testing.assert_close(mean_in_boxes(features, narrow)[0, 0, 0], torch.tensor(1 * 0.75 + 2 * 0.25))


@given(st.lists(SHARES, min_size=4, max_size=4), st.integers(1, 7))
def test_mean_of_a_constant_map_is_its_value(corners: list[float], side: int) -> None:
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    if min(x2 - x1, y2 - y1) < 1e-3:
        return
    means = mean_in_boxes(torch.full((1, 2, side, side), 3.0), torch.tensor([[[x1, y1, x2, y2]]]))
    torch.testing.assert_close(means, torch.full((1, 1, 2), 3.0), rtol=1e-3, atol=1e-3)


def test_means_in_grid_boxes_are_the_cells_and_the_mean_of_the_map() -> None:
    features = torch.rand(2, 3, 7, 7)
    boxes = grid_boxes(7, features).expand(2, -1, -1)
    torch.testing.assert_close(mean_in_boxes(features, boxes), features.flatten(2).transpose(1, 2))
    mean = mean_in_boxes(features, grid_boxes(1, features).expand(2, -1, -1))
    torch.testing.assert_close(mean[:, 0], features.mean(dim=(2, 3)))


def test_a_crop_shows_its_box() -> None:
    view = torch.zeros(1, 3, 8, 8)
    view[..., 4:, :4] = 1
    # Except at the edges that border on other pixels.
    assert crop_box(view, torch.tensor([[0.0, 0.5, 0.5, 1.0]]))[..., 1:, :-1].min() == 1
    torch.testing.assert_close(crop_box(view, torch.tensor([[0.0, 0.0, 1.0, 1.0]])), view)


def test_suppression_keeps_the_most_confident_of_overlapping_boxes() -> None:
    boxes = torch.tensor([[[0, 0, 0.5, 0.5], [0.02, 0, 0.52, 0.5], [0.6, 0.6, 0.9, 0.9], [0, 0.8, 0.1, 0.9]]])
    confidence = torch.tensor([[0.8, 0.9, 0.5, 0.1]])
    classes = torch.eye(4, CLASSES)[None]
    selected, presence, selected_classes = non_maximum_suppression(Candidates(boxes, confidence, classes))
    assert presence[0, :2].tolist() == pytest.approx([0.9, 0.5])
    # A confidence of 0.1 is below the minimum.
    assert presence[0, 2:].sum() == 0
    torch.testing.assert_close(selected[0, :2], boxes[0, [1, 2]])
    assert selected_classes[0, :2].argmax(dim=1).tolist() == [1, 2]
    assert selected[0, 2:].abs().sum() == 0


@given(st.integers(0, 2**16))
def test_packing_loses_nothing(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    regions = Regions(*(torch.rand(2, 3, width, generator=draw) for width in (5, CLASSES, 4)), torch.rand(2, 3))
    for before, after in zip(regions, Regions.unpack(regions.pack()), strict=True):
        assert torch.equal(before, after)


def test_attention_ignores_absent_regions() -> None:
    weights = softmax_over_present(torch.zeros(2, 3), torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.0, 0.5]]).expand(2, 3), atol=1e-5, rtol=0)


def test_reader_returns_the_regions_of_each_group() -> None:
    encoder = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    groups = ("scene", "cells", "objects", "people", "person", "body", "face")
    for has_detectors in (False, True):
        reader = RegionReader(groups, has_detector=has_detectors, has_face_finder=has_detectors).eval()
        assert reader.streams == "both"
        scene, person = torch.randn(2, 2, 3, 64, 64)
        regions = reader.split(reader(encoder, scene, person))
        assert tuple(regions) == groups
        count = MAX_DETECTIONS if has_detectors else GRID**2
        assert [part.presence.shape[1] for part in regions.values()] == [1, GRID**2, count, count, 1, GRID**2, 1]
        person_map = feature_map(encoder, person)
        torch.testing.assert_close(regions["person"].features[:, 0], person_map.mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)
        assert not any(parameter.requires_grad for parameter in reader.parameters())
        # Nothing in a detector depends on the mode.
        mode_dependent = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.Dropout)
        assert not any(isinstance(module, mode_dependent) for module in reader.modules())


def test_dropout_of_the_reader_drops_features_only_and_only_in_training() -> None:
    groups = ("scene", "cells", "objects", "people", "person", "body", "face")
    for has_detectors in (False, True):
        reader = RegionReader(groups, has_detector=has_detectors, has_face_finder=has_detectors)
        reader.train().dropout = 0.5
        packed = torch.ones(2, sum(reader.sizes().values()), 3 + CLASSES + 5)
        shares = [(part.features == 0).float().mean() for part in reader.split(packed).values()]
        assert 0.3 < np.mean(shares) < 0.7
        assert all((part.boxes == 1).all() and (part.presence == 1).all() for part in reader.split(packed).values())
        assert all((part.features == 1).all() for part in reader.eval().split(packed).values())


@pytest.mark.parametrize(
    "name", ["test_vit", "test_vit_relpos", "resnet10t", "swin_tiny_patch4_window7_224", "pvt_v2_b0"]
)
def test_networks_of_timm_have_a_feature_map(name: str) -> None:
    options = {"img_size": 64} if name.startswith(("test_vit", "swin")) else {}
    encoder = timm.create_model(name, num_classes=0, **options).eval()
    features = feature_map(encoder, torch.zeros(1, 3, 64, 64))
    assert features.shape[:2] == (1, encoder.num_features)
    assert features.shape[2] == features.shape[3] > 1


def test_an_encoder_without_a_feature_map_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs one network of timm with a feature map, got Identity"):
        feature_map(nn.Identity(), torch.zeros(1, 3, 8, 8))


class Selection(nn.Module):
    """Selection of a detector's boxes, means inside them, and the crop of the first."""

    def forward(self, boxes: Tensor, confidence: Tensor, view: Tensor) -> dict[str, Tensor]:
        classes = boxes[..., :1].expand(-1, -1, CLASSES)
        selected, presence, selected_classes = non_maximum_suppression(Candidates(boxes, confidence, classes))
        return {
            "selected": selected,
            "presence": presence,
            "classes": selected_classes,
            "means": mean_in_boxes(view, selected),
            "crop": crop_box(view, selected[:, 0]),
        }


@pytest.mark.thorough
@torch.no_grad()
def test_selection_in_onnx_equals_torch(tmp_path: Path) -> None:
    """For one image, and for several of which one has no confident box."""
    corners = torch.rand(3, 200, 2, 2).sort(dim=2).values.flatten(2)  # x1, y1, x2, y2
    confidence = torch.rand(3, 200) * torch.tensor([[1.0], [0.5], [0.2]])
    view = torch.rand(3, 3, 16, 16)
    inputs = {"boxes": corners, "confidence": confidence, "view": view}
    expected = Selection()(**inputs)
    assert [(presence > 0).any().item() for presence in expected["presence"]] == [True, True, False]
    with quiet():
        program = torch.onnx.export(
            Selection(),
            kwargs={name: value[:2] for name, value in inputs.items()},
            dynamic_shapes={name: {0: torch.export.Dim("batch", min=1)} for name in inputs},
            input_names=list(inputs),
            output_names=list(expected),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    program.save(tmp_path / "selection.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "selection.onnx")
    for count in (1, 3):
        outputs = session.run(list(expected), {name: value[:count].numpy() for name, value in inputs.items()})
        for name, value in zip(expected, outputs, strict=True):
            np.testing.assert_allclose(value, expected[name][:count].numpy(), atol=1e-4, err_msg=name)
