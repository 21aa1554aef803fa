"""Targets and loss of the person finder against plain forms."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from recipes.finder.loss import boxes_of, build_targets, finder_loss, generalised_overlap
from tests.recipes.finder.figures import view_of


def test_targets_without_people() -> None:
    heat, weight, _, box_weight = build_targets([view_of([], [])], 64)
    assert heat.shape == (1, 8, 8)
    assert not heat.any()
    assert (weight == 1).all()
    assert not box_weight.any()


def test_peak_is_an_elliptic_gaussian() -> None:
    """A box of 32 x 48 px: 4 x 6 cells, deviations of 0.4 (the minimum) and 0.54 cells around column 3, row 4."""
    targets = build_targets([view_of([[12, 12, 44, 60]], [0.8])], 64)
    y, x = np.mgrid[:8, :8]
    spread_x = max(4 * 0.54 / 6, 0.4)
    spread_y = 6 * 0.54 / 6
    expected = np.exp(-((x - 3) ** 2) / (2 * spread_x**2) - (y - 4) ** 2 / (2 * spread_y**2))
    np.testing.assert_allclose(targets.heat[0], expected, atol=1e-6)
    assert targets.heat[0, 4, 3] == 1
    assert targets.heat_weight[0, 4, 3] == pytest.approx(0.8)
    assert targets.box_weight.sum().item() == pytest.approx(0.8)
    np.testing.assert_allclose(targets.boxes[0, :, 4, 3], [12, 12, 44, 60])


def test_unsure_people_do_not_change_the_loss() -> None:
    targets = build_targets([view_of([[0, 0, 32, 32]], [0])], 64)
    assert not targets.heat.any()
    assert (targets.heat_weight[0, :4, :4] == 0).all()
    assert targets.heat_weight.sum() == 64 - 16
    heat = torch.full((1, 8, 8), -9.0)
    distances = torch.ones(1, 4, 8, 8)
    before = finder_loss(heat, distances, targets)["total"]
    heat[0, :4, :4] = 9
    assert finder_loss(heat, distances, targets)["total"] == before


def test_each_person_has_a_peak_and_defines_its_box_there() -> None:
    boxes = [[0, 0, 16, 32], [40, 0, 64, 64], [0, 40, 30, 60]]
    targets = build_targets([view_of(boxes, [0.9, 0.5, 0.4])], 64)
    assert (targets.heat == 1).sum() == 3
    for (x1, y1, x2, y2), confidence in zip(boxes, (0.9, 0.5, 0.4), strict=True):
        row, column = int((y1 + y2) / 16), int((x1 + x2) / 16)
        np.testing.assert_allclose(targets.boxes[0, :, row, column], [x1, y1, x2, y2])
        assert targets.heat_weight[0, row, column] == pytest.approx(confidence)
    assert targets.box_weight.sum().item() == pytest.approx(1.8)


def distances_to(boxes: torch.Tensor) -> torch.Tensor:
    """Return the distances of a network with perfect boxes (N, 4, h, w)."""
    cell_centres = torch.arange(boxes.shape[-1]) * 8 + 4.0
    x, y = cell_centres[None, :], cell_centres[:, None]
    return torch.stack([x - boxes[:, 0], y - boxes[:, 1], boxes[:, 2] - x, boxes[:, 3] - y], dim=1)


def test_perfect_outputs_have_no_box_loss_and_less_heat_loss() -> None:
    targets = build_targets([view_of([[0, 0, 40, 60], [30, 10, 64, 64]], [0.9, 0.6])], 64)
    perfect = distances_to(targets.boxes)
    torch.testing.assert_close(boxes_of(perfect), targets.boxes)
    heat = torch.logit(targets.heat.clamp(1e-6, 1 - 1e-6))
    losses = finder_loss(heat, perfect, targets)
    assert losses["box"].item() == pytest.approx(0, abs=1e-5)
    assert losses["heat"] < finder_loss(torch.zeros_like(heat), perfect, targets)["heat"]
    assert losses["total"] == losses["heat"] + 2 * losses["box"]


def test_focal_loss_cell_by_cell() -> None:
    rng = np.random.default_rng(0)
    targets = build_targets([view_of([[0, 0, 40, 60], [40, 10, 64, 64]], [0.9, 0.6])] * 2, 64)
    logits = torch.from_numpy(rng.normal(size=(2, 8, 8)).astype(np.float32))
    total = 0.0
    cells = (tensor.flatten().tolist() for tensor in (logits, targets.heat, targets.heat_weight))
    for logit, target, weight in zip(*cells, strict=True):
        p = 1 / (1 + math.exp(-logit))
        total += weight * (
            -((1 - p) ** 2) * math.log(p) if target == 1 else -((1 - target) ** 4) * p**2 * math.log(1 - p)
        )
    loss = finder_loss(logits, torch.ones(2, 4, 8, 8), targets)["heat"].item()
    # Two images with 0.9 + 0.6 people.
    assert loss == pytest.approx(total / 3.0, rel=1e-4)


def test_extreme_logits_stay_finite() -> None:
    targets = build_targets([view_of([[0, 0, 40, 60]], [0.9])], 64)
    heat = torch.tensor([-1e4, 1e4]).repeat(32).view(1, 8, 8).requires_grad_()
    losses = finder_loss(heat, torch.full((1, 4, 8, 8), 1e-6), targets)
    losses["total"].backward()
    assert torch.isfinite(losses["total"])
    assert heat.grad is not None
    assert torch.isfinite(heat.grad).all()


@pytest.mark.parametrize(
    ("box", "other_box", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),
        ((0, 0, 1, 1), (3, 0, 4, 1), -0.5),
        ((0, 0, 1, 1), (1, 1, 2, 2), -0.5),
        ((0, 0, 4, 4), (1, 1, 3, 3), 0.25),
    ],
)
def test_generalised_overlap_of_boxes_by_hand(
    box: Sequence[float], other_box: Sequence[float], expected: float
) -> None:
    overlap = generalised_overlap(torch.tensor([box]).float(), torch.tensor([other_box]).float())
    assert overlap.item() == pytest.approx(expected)
