"""Regions that the methods relate: the whole scene, its objects and people, the person and the face.

A region's feature is the mean of the encoder's last feature map inside a box. Detectors inside the network find the
boxes, so a classifier's file needs no other file: YOLOX-nano for objects and people, YuNet for faces. Without detectors
the cells of a grid replace objects and people, and the upper half of the person view replaces the face.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.errors import ConfigError
from uniemox.model.detectors import CLASSES, Candidates, YoloxNano, YuNet
from uniemox.model.region_groups import DETECTED_GROUPS, PERSON_GROUPS, Group
from uniemox.network_spec import Streams
from uniemox.views.patches import IMAGENET, PixelStats

# Maximum number of objects or people per image.
MAX_DETECTIONS = 8
# Cells per side of a grid.
GRID = 4
# Cells per side, by group; 1 for all other groups.
GRID_SIDES: dict[Group, int] = {"cells": GRID, "body": GRID, "objects": GRID, "people": GRID}
# Index of the view of a group: 0 scene, 1 person, 2 face. All other groups use the scene.
VIEW_OF: dict[Group, int] = {"person": 1, "body": 1, "face": 2}
# Side of the detectors' input; the view is enlarged or reduced to it.
DETECTOR_PX = 320
# Number of most confident candidates that the suppression of overlapping boxes considers.
MAX_CANDIDATES = 100
MIN_CONFIDENCE = 0.25
# Maximum intersection over union of two boxes.
MAX_OVERLAP = 0.5
# Index of people among the detector's classes.
PERSON_CLASS = 0
# Share of a face's box that is added on each side.
FACE_MARGIN = 0.2
# Box of the face if there is no detector, or if it finds none.
UPPER_HALF = (0.0, 0.0, 1.0, 0.5)
# Presence of an absent region in an attention; its logarithm stays finite.
ABSENT = 1e-6


class Regions(NamedTuple):
    """T regions of N images."""

    features: Tensor  # (N, T, D), means of the encoder's map
    classes: Tensor  # (N, T, 80), class probabilities of the detector; all 0 without one
    boxes: Tensor  # (N, T, 4): x1, y1, x2, y2 as shares of their view
    presence: Tensor  # (N, T), confidence of the detector, 0 for an absent region; 1 without a detector

    def pack(self) -> Tensor:
        """Pack all fields as (N, T, D + 85)."""
        return torch.cat([self.features, self.classes, self.boxes, self.presence[..., None]], dim=2)

    @classmethod
    def unpack(cls, packed: Tensor) -> "Regions":
        """Unpack the result of `pack`."""
        width = packed.shape[2] - CLASSES - 5
        features, classes, boxes, presence = packed.split([width, CLASSES, 4, 1], dim=2)
        return cls(features, classes, boxes, presence[..., 0])


class RegionReader(nn.Module):
    """Computes the regions of the groups that a method relates.

    `dropout` is the dropout rate of the features in training.

    Args:
        groups: Groups that the method reads, in the order of the result.
        has_detector: Add a frozen detector of objects and people, if a group needs it.
        has_face_finder: Add a frozen detector of faces, if a group needs it.
        stats: Normalisation of the input views.
    """

    mean: Tensor
    std: Tensor
    upper_half: Tensor

    def __init__(
        self, groups: Sequence[Group], *, has_detector: bool, has_face_finder: bool, stats: PixelStats = IMAGENET
    ) -> None:
        super().__init__()
        self.groups = tuple(groups)
        self.dropout = 0.0
        self.detector: YoloxNano | None = None
        self.face_finder: YuNet | None = None
        if has_detector and set(DETECTED_GROUPS) & set(groups):
            self.detector = YoloxNano().requires_grad_(False)
        if has_face_finder and "face" in groups:
            self.face_finder = YuNet().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(stats.mean)[:, None, None], persistent=False)  # (3, 1, 1)
        self.register_buffer("std", torch.tensor(stats.std)[:, None, None], persistent=False)
        # A buffer, because making a tensor from numbers in every step would let the host wait for a GPU.
        self.register_buffer("upper_half", torch.tensor(UPPER_HALF), persistent=False)  # (4,)

    @property
    def streams(self) -> Streams:
        """Views that the groups need."""
        if set(PERSON_GROUPS) & set(self.groups):
            return "both"
        return "scene"

    def sizes(self) -> dict[Group, int]:
        """Return the number of regions T by group."""
        detected = () if self.detector is None else DETECTED_GROUPS
        return {group: MAX_DETECTIONS if group in detected else GRID_SIDES.get(group, 1) ** 2 for group in self.groups}

    def forward(self, encoder: nn.Module, scene: Tensor, person: Tensor | None = None) -> Tensor:
        """Return all regions, packed, group after group: (N, T, D + 85).

        All views, including the face, go through the encoder as one batch.

        Args:
            encoder: Network of timm with a feature map, see `feature_map`.
            scene: (N, 3, S, S), normalised.
            person: (N, 3, S, S), normalised; required if a group needs it.
        """
        views = [scene]
        face_confidence = None
        if person is not None:
            views.append(person)
            if "face" in self.groups:
                face, face_confidence = self._face(person)
                views.append(face)
        joined = feature_map(encoder, torch.cat(views))  # (V * N, D, h, w) of V views
        # chunk would fix the count in an export.
        count = scene.shape[0]
        maps = [joined[i * count : (i + 1) * count] for i in range(len(views))]  # (N, D, h, w) each
        objects = None if self.detector is None else self._detect(self.detector, scene)
        regions = [self._group(group, maps, objects, face_confidence) for group in self.groups]
        return torch.cat([part.pack() for part in regions], dim=1)  # (N, T, D + 85), T of all groups

    def split(self, packed: Tensor) -> dict[Group, Regions]:
        """Split the result of `forward` into regions by group; in training, drop features out."""
        sizes = self.sizes()
        groups = dict[Group, Regions]()
        for group, part in zip(sizes, packed.split(list(sizes.values()), dim=1), strict=True):
            regions = Regions.unpack(part)
            groups[group] = regions._replace(features=F.dropout(regions.features, self.dropout, self.training))
        return groups

    def _group(
        self, group: Group, maps: Sequence[Tensor], objects: Candidates | None, face_confidence: Tensor | None
    ) -> Regions:
        """Return the regions of one group.

        Args:
            group: Name of the group.
            maps: (N, D, h, w) of scene, person and face.
            objects: Detections in the scene; None without a detector.
            face_confidence: (N,), confidence of the face's detector; None without a face.
        """
        if group in DETECTED_GROUPS and objects is not None:
            confidence = objects.classes[..., PERSON_CLASS] if group == "people" else objects.confidence
            boxes, presence, classes = non_maximum_suppression(objects._replace(confidence=confidence))
            return Regions(mean_in_boxes(maps[0], boxes), classes, boxes, presence)
        view_map = maps[VIEW_OF.get(group, 0)]  # (N, D, h, w)
        boxes = grid_boxes(GRID_SIDES.get(group, 1), view_map).expand(view_map.shape[0], -1, -1)  # (N, T, 4)
        if group != "face" or face_confidence is None:
            presence = torch.ones_like(boxes[..., 0])  # (N, T)
        else:
            presence = face_confidence[:, None]  # (N, 1)
        classes = boxes.new_zeros(()).expand(*boxes.shape[:2], CLASSES)  # (N, T, 80)
        return Regions(mean_in_boxes(view_map, boxes), classes, boxes, presence)

    def _face(self, person: Tensor) -> tuple[Tensor, Tensor]:
        """Crop the face from a person view.

        Args:
            person: (N, 3, S, S).

        Returns:
            Face views (N, 3, S, S), and the detector's confidence (N,).
        """
        if self.face_finder is None:
            box = self.upper_half.to(person.dtype).expand(person.shape[0], 4)  # (N, 4)
            return crop_box(person, box), torch.ones_like(box[:, 0])
        boxes, presence, _ = non_maximum_suppression(self._detect(self.face_finder, person), count=1)
        box = boxes[:, 0]  # (N, 4)
        presence = presence[:, 0]  # (N,)
        margin = FACE_MARGIN * (box[:, 2:] - box[:, :2])  # (N, 2)
        wide = torch.cat([box[:, :2] - margin, box[:, 2:] + margin], dim=1).clamp(0, 1)  # (N, 4)
        box = torch.where(presence[:, None] > 0, wide, self.upper_half.to(wide.dtype))
        return crop_box(person, box), presence

    @torch.no_grad()
    def _detect(self, network: nn.Module, view: Tensor) -> Candidates:
        """Run a detector on a normalised view (N, 3, S, S), in float32."""
        with torch.autocast(view.device.type, enabled=False):
            rgb = (view.float() * self.std + self.mean).clamp(0, 1) * 255
            return network(F.interpolate(rgb, (DETECTOR_PX, DETECTOR_PX), mode="bilinear", align_corners=False))


def feature_map(encoder: Any, x: Tensor) -> Tensor:
    """Return the encoder's last feature map, (N, D, h, w); of a ViT, its patch tokens.

    Args:
        encoder: Network of timm.
        x: (N, 3, S, S).

    Raises:
        ConfigError: For an encoder without a feature map.
    """
    if not hasattr(encoder, "forward_features"):
        raise ConfigError(f"this method needs one network of timm with a feature map, got {type(encoder).__name__}")
    features = encoder.forward_features(x)
    if features.ndim == 3:
        # A ViT's tokens: (N, prefix + L, D).
        patches = features[:, encoder.num_prefix_tokens :]  # (N, L, D)
        rows, columns = encoder.patch_embed.grid_size
        return patches.transpose(1, 2).unflatten(2, (rows, columns))  # (N, D, h, w)
    # Swin has its channels last: (N, h, w, D).
    is_channels_last = features.shape[3] == encoder.num_features and features.shape[1] == features.shape[2]
    return features.permute(0, 3, 1, 2) if is_channels_last else features  # (N, D, h, w)


def grid_boxes(side: int, like: Tensor) -> Tensor:
    """Return the cells of a grid over a view, row by row: (side², 4), shares.  like: any tensor on the device."""
    edges = torch.linspace(0, 1, side + 1, device=like.device, dtype=torch.float32)
    y1, x1 = torch.meshgrid(edges[:-1], edges[:-1], indexing="ij")
    y2, x2 = torch.meshgrid(edges[1:], edges[1:], indexing="ij")
    return torch.stack([x1, y1, x2, y2], dim=-1).flatten(0, 1)  # (side², 4)


def mean_in_boxes(features: Tensor, boxes: Tensor) -> Tensor:
    """Average a feature map inside boxes; a cell's weight is its share inside the box.

    Args:
        features: (N, D, h, w).
        boxes: (N, T, 4), shares.

    Returns:
        (N, T, D); 0 for a box outside of the view.
    """
    rows = interval_shares(boxes[..., 1], boxes[..., 3], features.shape[2]).to(features.dtype)  # (N, T, h)
    columns = interval_shares(boxes[..., 0], boxes[..., 2], features.shape[3]).to(features.dtype)  # (N, T, w)
    weights = rows[..., :, None] * columns[..., None, :]  # (N, T, h, w)
    return torch.einsum("nthw,ndhw->ntd", weights, features)


def interval_shares(low: Tensor, high: Tensor, count: int) -> Tensor:
    """Return the share of an interval along one side in each of `count` cells; sums to 1, or 0 outside of all cells.

    Args:
        low: (...), start of the interval as a share of the side.
        high: (...), end of the interval as a share of the side.
        count: Number of cells of equal width.

    Returns:
        (..., count).

    >>> interval_shares(torch.tensor([0.25]), torch.tensor([1.0]), 2)
    tensor([[0.3333, 0.6667]])
    """
    starts = torch.arange(count, device=low.device, dtype=low.dtype) / count  # (count,)
    ends = starts + 1 / count
    inside = torch.minimum(high[..., None], ends) - torch.maximum(low[..., None], starts)  # (..., count)
    inside = inside.clamp(min=0)
    return inside / inside.sum(dim=-1, keepdim=True).clamp(min=1e-6)


def crop_box(view: Tensor, box: Tensor) -> Tensor:
    """Crop a box from each view and resize it to the view's size, bilinear, without keeping the aspect.

    Args:
        view: (N, 3, S, S).
        box: (N, 4), shares.

    Returns:
        (N, 3, S, S).
    """
    size = view.shape[-1]
    # Centres of the output's pixels along a side, as shares of the box.
    steps = (torch.arange(size, device=view.device, dtype=torch.float32) + 0.5) / size  # (S,)
    x = box[:, :1] + steps * (box[:, 2:3] - box[:, :1])  # (N, S)
    y = box[:, 1:2] + steps * (box[:, 3:] - box[:, 1:2])  # (N, S)
    points = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)  # (N, S, S, 2)
    # grid_sample counts from -1 to 1.
    return F.grid_sample(view.float(), 2 * points - 1, padding_mode="border", align_corners=False).to(view.dtype)


def non_maximum_suppression(candidates: Candidates, count: int = MAX_DETECTIONS) -> tuple[Tensor, Tensor, Tensor]:
    """Select boxes that don't overlap by half, most confident first.

    Greedy, in `count` rounds: a fixed number of operations, which can be exported to ONNX.

    Args:
        candidates: Detections at A positions.
        count: Number of boxes to select per image.

    Returns:
        Boxes (N, count, 4), their confidence (N, count), 0 for missing boxes, and classes (N, count, C).
    """
    considered = min(MAX_CANDIDATES, candidates.confidence.shape[1])
    confidence, rows = candidates.confidence.topk(considered, dim=1)  # (N, A')
    boxes = candidates.boxes.gather(1, rows[..., None].expand(-1, -1, 4)).clamp(0, 1)  # (N, A', 4)
    remaining = torch.where(confidence >= MIN_CONFIDENCE, confidence, 0.0)  # (N, A')
    selected_indices = []
    selected_confidence = []
    for _ in range(count):
        best, index = remaining.max(dim=1, keepdim=True)  # (N, 1) each
        box = boxes.gather(1, index[..., None].expand(-1, -1, 4))  # (N, 1, 4)
        remaining = torch.where(intersection_over_union(box, boxes) > MAX_OVERLAP, 0.0, remaining)
        # A box without area does not overlap itself.
        remaining = remaining.scatter(1, index, 0.0)
        selected_indices.append(index)
        selected_confidence.append(best)
    indices = torch.cat(selected_indices, dim=1)  # (N, count)
    presence = torch.cat(selected_confidence, dim=1)  # (N, count)
    is_present = (presence > 0)[..., None]  # (N, count, 1)
    rows = rows.gather(1, indices)[..., None]  # (N, count, 1)
    classes = candidates.classes.gather(1, rows.expand(-1, -1, candidates.classes.shape[2]))  # (N, count, C)
    boxes = boxes.gather(1, indices[..., None].expand(-1, -1, 4))  # (N, count, 4)
    return torch.where(is_present, boxes, 0.0), presence, torch.where(is_present, classes, 0.0)


def intersection_over_union(box: Tensor, boxes: Tensor) -> Tensor:
    """Return the intersection over union of a box (N, 1, 4) with boxes (N, A, 4): (N, A)."""
    top_left = torch.maximum(box[..., :2], boxes[..., :2])  # (N, A, 2)
    bottom_right = torch.minimum(box[..., 2:], boxes[..., 2:])  # (N, A, 2)
    intersection = (bottom_right - top_left).clamp(min=0).prod(dim=2)  # (N, A)
    union = _areas(box) + _areas(boxes) - intersection  # (N, A)
    return intersection / union.clamp(min=1e-9)


def _areas(boxes: Tensor) -> Tensor:
    """Return the areas of boxes (N, A, 4): (N, A)."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=2)


def softmax_over_present(scores: Tensor, presence: Tensor) -> Tensor:
    """Return attention weights over regions; absent regions get nearly 0.

    Args:
        scores: (..., T), before the softmax.
        presence: (..., T).

    Returns:
        (..., T), sums of 1, in the precision of scores.
    """
    return (scores.float() + presence.clamp(min=ABSENT).log()).softmax(dim=-1).to(scores.dtype)
