"""Targets and loss of the person finder."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.finder.views import FinderView
from uniemox.persons.layouts import STRIDE

# Standard deviation of a peak as a share of the box's sides (TTFNet, arXiv 1909.00700, section 3.2).
SPREAD = 0.54 / 6
# Minimum standard deviation of a peak, in cells.
MIN_SPREAD = 0.4
# Cells with this heat or more learn the box too.
MIN_BOX_HEAT = 0.1
# Weight of the boxes' loss; that of the heat is 1.
BOX_WEIGHT = 2.0


class Targets(NamedTuple):
    """Targets for a batch of N images of h x w cells."""

    heat: Tensor  # (N, h, w), 0 to 1; 1 is a person's centre
    heat_weight: Tensor  # (N, h, w); 0 where the labels are unsure whether there is a person
    boxes: Tensor  # (N, 4, h, w): x1, y1, x2, y2 in px, of the person with the highest peak there
    box_weight: Tensor  # (N, h, w); the weights of one person add up to its confidence


def build_targets(views: Sequence[FinderView], size: int) -> Targets:
    """Return Gaussian peaks at people's centres (CenterNet, arXiv 1904.07850, section 3; elliptic: arXiv 1909.00700).

    Args:
        views: Views of the batch.
        size: Side of the images, px.
    """
    cells = size // STRIDE
    parts = [_targets_of(view, cells) for view in views]
    return Targets(*(torch.from_numpy(np.stack(field)) for field in zip(*parts, strict=True)))


def _targets_of(view: FinderView, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return heat (h, w), its weight (h, w), boxes (4, h, w) and their weight (h, w) of one image."""
    heat = np.zeros((cells, cells), np.float32)
    weight = np.ones((cells, cells), np.float32)
    boxes = np.zeros((4, cells, cells), np.float32)
    box_weight = np.zeros((cells, cells), np.float32)
    middle = np.arange(cells) + 0.5
    is_known = view.confidences > 0
    for x1, y1, x2, y2 in view.boxes[~is_known] / STRIDE:
        weight[np.ix_((middle >= y1) & (middle <= y2), (middle >= x1) & (middle <= x2))] = 0
    labelled = view.boxes[is_known]
    confidences = view.confidences[is_known]
    if not len(labelled):
        return heat, weight, boxes, box_weight
    centres = (labelled[:, :2] + labelled[:, 2:]) / 2 / STRIDE
    column, row = np.minimum(centres, cells - 1).astype(int).T
    spread = np.maximum((labelled[:, 2:] - labelled[:, :2]) / STRIDE * SPREAD, MIN_SPREAD)  # (M, 2)
    cell_index = np.arange(cells)
    across = np.exp(-((cell_index - column[:, None]) ** 2) / (2 * spread[:, :1] ** 2))  # (M, w)
    down = np.exp(-((cell_index - row[:, None]) ** 2) / (2 * spread[:, 1:] ** 2))  # (M, h)
    peaks = (down[:, :, None] * across[:, None]).astype(np.float32)  # (M, h, w)
    owner = peaks.argmax(axis=0)  # (h, w)
    heat = peaks.max(axis=0)
    # A sure person is learned even in front of an unsure one.
    weight = np.maximum(weight, heat >= MIN_BOX_HEAT)
    weight[row, column] = confidences
    boxes = labelled[owner].transpose(2, 0, 1)  # (4, h, w)
    share = np.where(heat >= MIN_BOX_HEAT, heat, 0)
    total = np.bincount(owner.ravel(), share.ravel(), len(labelled))
    box_weight = (share * (confidences / np.maximum(total, 1e-6))[owner]).astype(np.float32)
    return heat, weight, boxes, box_weight


def finder_loss(heat: Tensor, distances: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Return focal loss of the heat and generalised IoU loss of the boxes, each the mean over the people of the batch.

    Sources: CenterNet, arXiv 1904.07850, equation 1; arXiv 1902.09630. A person is weighted by its label's confidence.

    Args:
        heat: Logits (N, h, w).
        distances: Distances to the sides of the box, (N, 4, h, w), px, above 0.
        targets: Targets of the batch.
    """
    is_centre = targets.heat == 1
    people = (targets.heat_weight * is_centre).sum().clamp(min=1)
    probabilities = torch.sigmoid(heat)
    centre_loss = (1 - probabilities).square() * F.softplus(-heat)  # -log p
    background_loss = (1 - targets.heat) ** 4 * probabilities.square() * F.softplus(heat)  # -log (1 - p)
    focal = (torch.where(is_centre, centre_loss, background_loss) * targets.heat_weight).sum() / people
    overlaps = generalised_overlap(boxes_of(distances), targets.boxes)  # (N, h, w)
    box = (targets.box_weight * (1 - overlaps)).sum() / people
    return {"heat": focal, "box": box, "total": focal + BOX_WEIGHT * box}


def boxes_of(distances: Tensor) -> Tensor:
    """Return boxes x1, y1, x2, y2 in px from distances to left, top, right, bottom. Both are (N, 4, h, w)."""
    rows, columns = distances.shape[2:]
    y = ((torch.arange(rows, device=distances.device) + 0.5) * STRIDE)[:, None].expand(rows, columns)
    x = ((torch.arange(columns, device=distances.device) + 0.5) * STRIDE).expand(rows, columns)
    left, top, right, bottom = distances.unbind(1)  # (N, h, w) each
    return torch.stack([x - left, y - top, x + right, y + bottom], dim=1)


def generalised_overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the generalised IoU (arXiv 1902.09630, algorithm 1) of boxes (N, 4, ...): (N, ...), -1 to 1."""
    # Width and height of the intersection, and of the smallest box around both.
    shared = (torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0)
    around = torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])
    inside = shared.prod(dim=1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) + (others[:, 2:] - others[:, :2]).prod(dim=1) - inside
    hull = around.prod(dim=1).clamp(min=1e-6)
    return inside / union.clamp(min=1e-6) - (hull - union) / hull
