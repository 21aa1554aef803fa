"""Regions: means inside boxes, cuts, what is left of overlapping boxes, and how they are packed."""

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
    COUNT,
    GRID,
    RegionReader,
    Regions,
    cut,
    feature_map,
    grid,
    means,
    shares_of_present,
    strongest,
)

SHARES = st.floats(0, 1, width=32)


def test_the_mean_in_a_box_by_hand() -> None:
    places = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])  # (1, 1, 2, 2)
    boxes = torch.tensor([[[0, 0, 1, 1], [0.5, 0, 1, 0.5], [0.25, 0, 0.75, 1], [2, 2, 3, 3]]]).float()
    torch.testing.assert_close(means(places, boxes)[0, :, 0], torch.tensor([2.5, 2.0, 2.5, 0.0]))
    # Three quarters of the left column and a quarter of the right one, all of the upper row.
    narrow = torch.tensor([[[0.125, 0.0, 0.625, 0.5]]])
    torch.testing.assert_close(means(places, narrow)[0, 0, 0], torch.tensor(1 * 0.75 + 2 * 0.25))


@given(st.lists(SHARES, min_size=4, max_size=4), st.integers(1, 7))
def test_the_mean_of_an_even_map_is_its_value(corners: list[float], side: int) -> None:
    (x1, x2) = sorted(corners[:2])
    (y1, y2) = sorted(corners[2:])
    if min(x2 - x1, y2 - y1) < 1e-3:
        return
    found = means(torch.full((1, 2, side, side), 3.0), torch.tensor([[[x1, y1, x2, y2]]]))
    torch.testing.assert_close(found, torch.full((1, 1, 2), 3.0), rtol=1e-3, atol=1e-3)


def test_cells_of_a_grid_are_the_means_of_an_adaptive_pooling() -> None:
    places = torch.rand(2, 3, 7, 7)
    boxes = grid(7, places).expand(2, -1, -1)
    torch.testing.assert_close(means(places, boxes), places.flatten(2).transpose(1, 2))
    whole = means(places, grid(1, places).expand(2, -1, -1))
    torch.testing.assert_close(whole[:, 0], places.mean(dim=(2, 3)))


def test_a_cut_shows_its_box() -> None:
    view = torch.zeros(1, 3, 8, 8)
    view[..., 4:, :4] = 1
    assert cut(view, torch.tensor([[0.0, 0.5, 0.5, 1.0]]))[..., 1:, :-1].min() == 1  # but for its inner edges
    torch.testing.assert_close(cut(view, torch.tensor([[0.0, 0.0, 1.0, 1.0]])), view)


def test_of_boxes_that_overlap_the_surest_is_left() -> None:
    boxes = torch.tensor([[[0, 0, 0.5, 0.5], [0.02, 0, 0.52, 0.5], [0.6, 0.6, 0.9, 0.9], [0, 0.8, 0.1, 0.9]]])
    confidence = torch.tensor([[0.8, 0.9, 0.5, 0.1]])
    classes = torch.eye(4, CLASSES)[None]
    found, presence, kinds = strongest(Candidates(boxes, confidence, classes))
    assert presence[0, :2].tolist() == pytest.approx([0.9, 0.5])
    assert presence[0, 2:].sum() == 0  # 0.1 is too little to be anything
    torch.testing.assert_close(found[0, :2], boxes[0, [1, 2]])
    assert kinds[0, :2].argmax(dim=1).tolist() == [1, 2]
    assert found[0, 2:].abs().sum() == 0


@given(st.integers(0, 2**16))
def test_packing_loses_nothing(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    one = Regions(*(torch.rand(2, 3, width, generator=draw) for width in (5, CLASSES, 4)), torch.rand(2, 3))
    for before, after in zip(one, Regions.unpack(one.pack()), strict=True):
        assert torch.equal(before, after)
    shares = shares_of_present(torch.zeros(2, 3), torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(shares, torch.tensor([[0.5, 0.0, 0.5]]).expand(2, 3), atol=1e-5, rtol=0)


def test_each_group_has_its_regions() -> None:
    encoder = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    groups = ("scene", "cells", "objects", "people", "person", "body", "face")
    for has_detectors in (False, True):
        reader = RegionReader(groups, has_detector=has_detectors, has_face_finder=has_detectors).eval()
        assert reader.streams == "both"
        scene, person = torch.randn(2, 2, 3, 64, 64)
        found = reader.split(reader(encoder, scene, person))
        assert tuple(found) == groups
        count = COUNT if has_detectors else GRID**2
        assert [part.presence.shape[1] for part in found.values()] == [1, GRID**2, count, count, 1, GRID**2, 1]
        places = feature_map(encoder, person)
        torch.testing.assert_close(found["person"].features[:, 0], places.mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)
        assert not any(parameter.requires_grad for parameter in reader.parameters())
        trained = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.Dropout)  # nothing in a detector depends on the mode
        assert not any(isinstance(module, trained) for module in reader.modules())
        reader.train().dropout = 0.5
        packed = torch.ones(2, sum(reader.sizes().values()), 3 + CLASSES + 5)
        shares = [(part.features == 0).float().mean() for part in reader.split(packed).values()]
        assert 0.3 < np.mean(shares) < 0.7  # in training half of the features are left out, and nothing else
        assert all((part.boxes == 1).all() and (part.presence == 1).all() for part in reader.split(packed).values())
        assert all((part.features == 1).all() for part in reader.eval().split(packed).values())


@pytest.mark.parametrize(
    "name", ["test_vit", "test_vit_relpos", "resnet10t", "swin_tiny_patch4_window7_224", "pvt_v2_b0"]
)
def test_any_network_of_timm_has_a_map(name: str) -> None:
    sized = {"img_size": 64} if name.startswith(("test_vit", "swin")) else {}
    encoder = timm.create_model(name, num_classes=0, **sized).eval()
    places = feature_map(encoder, torch.zeros(1, 3, 64, 64))
    assert places.shape[:2] == (1, encoder.num_features)
    assert places.shape[2] == places.shape[3] > 1


def test_what_has_no_map_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs one network of timm with a feature map, got Identity"):
        feature_map(nn.Identity(), torch.zeros(1, 3, 8, 8))


class Chosen(nn.Module):
    """What becomes of a detector's answer in a network."""

    def forward(self, boxes: Tensor, confidence: Tensor, view: Tensor) -> dict[str, Tensor]:
        classes = boxes[..., :1].expand(-1, -1, CLASSES)
        found, presence, kinds = strongest(Candidates(boxes, confidence, classes))
        return {
            "found": found,
            "presence": presence,
            "kinds": kinds,
            "means": means(view, found),
            "cut": cut(view, found[:, 0]),
        }


@torch.no_grad()
def test_onnx_chooses_the_same(tmp_path: Path) -> None:
    """For one image, and for several of which one shows nothing."""
    corners = torch.rand(3, 200, 2, 2).sort(dim=2).values.flatten(2)  # x1, y1, x2, y2
    confidence = torch.rand(3, 200) * torch.tensor([[1.0], [0.5], [0.2]])
    view = torch.rand(3, 3, 16, 16)
    given = dict(zip(("boxes", "confidence", "view"), (corners, confidence, view), strict=True))
    expected = Chosen()(**given)
    assert [(one > 0).any().item() for one in expected["presence"]] == [True, True, False]
    with quiet():
        program = torch.onnx.export(
            Chosen(),
            kwargs={name: value[:2] for name, value in given.items()},
            dynamic_shapes={name: {0: torch.export.Dim("batch", min=1)} for name in given},
            input_names=list(given),
            output_names=list(expected),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    program.save(tmp_path / "chosen.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "chosen.onnx")
    for count in (1, 3):
        found = session.run(list(expected), {name: value[:count].numpy() for name, value in given.items()})
        for name, value in zip(expected, found, strict=True):
            np.testing.assert_allclose(value, expected[name][:count].numpy(), atol=1e-4, err_msg=name)
