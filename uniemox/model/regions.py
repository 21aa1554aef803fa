"""Regions that the methods relate: the whole scene, its objects and people, the person and the face.

A region's feature is the mean of the encoder's last feature map inside a box. Detectors inside the network find the
boxes, so a classifier's file needs no other file: YOLOX-nano for objects and people, YuNet for faces. Without detectors
the cells of a grid replace objects and people, and the upper half of the person view replaces the face.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.classifier_info import Streams
from uniemox.errors import ConfigError
from uniemox.model.detectors import CLASSES, Candidates, YoloxNano, YuNet
from uniemox.views.patches import IMAGENET, PixelStats

Group = Literal["scene", "cells", "objects", "people", "person", "body", "face"]
OF_PERSON: tuple[Group, ...] = ("person", "body", "face")
DETECTED: tuple[Group, ...] = ("objects", "people")
COUNT = 8  # K, maximum number of objects or people per image
GRID = 4  # cells per side
SIDES: dict[Group, int] = {"cells": GRID, "body": GRID, "objects": GRID, "people": GRID}  # cells per side; default 1
VIEWS: dict[Group, int] = {"person": 1, "body": 1, "face": 2}  # all other groups use the scene, view 0
DETECTOR_PX = 320  # side of the detectors' input: the scene view, enlarged or reduced
LIKELY = 100  # most confident candidates that are considered
MIN_CONFIDENCE = 0.25
MAX_OVERLAP = 0.5
PERSON = 0  # of the detector's classes
FACE_MARGIN = 0.2  # share of a face's box that is added on each side
UPPER_HALF = (0.0, 0.0, 1.0, 0.5)
ABSENT = 1e-6  # presence of an absent region in an attention


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
        groups: In this order.
        has_detector: Add frozen detectors of objects and faces.
        has_face_finder: Add frozen detectors of objects and faces.
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
        self.detector = YoloxNano().requires_grad_(False) if has_detector and set(DETECTED) & set(groups) else None
        self.face_finder = YuNet().requires_grad_(False) if has_face_finder and "face" in groups else None
        self.register_buffer("mean", torch.tensor(stats.mean)[:, None, None], persistent=False)  # (3, 1, 1)
        self.register_buffer("std", torch.tensor(stats.std)[:, None, None], persistent=False)
        # A buffer, because making a tensor from numbers in every step would let the host wait for a GPU.
        self.register_buffer("upper_half", torch.tensor(UPPER_HALF), persistent=False)  # (4,)

    @property
    def streams(self) -> Streams:
        """Views that the groups need."""
        if set(OF_PERSON) & set(self.groups):
            return "both"
        return "scene"

    def sizes(self) -> dict[Group, int]:
        """Number of regions T by group."""
        detected = () if self.detector is None else DETECTED
        return {group: COUNT if group in detected else SIDES.get(group, 1) ** 2 for group in self.groups}

    def forward(self, encoder: nn.Module, scene: Tensor, person: Tensor | None = None) -> Tensor:
        """Return all regions, packed, group after group: (N, T, D + 85).

        All views, including the face, go through the encoder as one batch.

        Args:
            scene: (N, 3, S, S), normalised; person is required if a group needs it.
            person: Likewise.
        """
        views = [scene]
        face = None
        seen = None
        if person is not None:
            views.append(person)
            if "face" in self.groups:
                face, seen = self._face(person)
                views.append(face)
        # chunk would fix the count in an export
        places = feature_map(encoder, torch.cat(views))
        count = scene.shape[0]
        maps = [places[i * count : (i + 1) * count] for i in range(len(views))]  # (N, D, h, w) each
        if self.detector is None:
            objects = None
        else:
            objects = self._detect(self.detector, scene)
        return torch.cat([self._group(group, maps, objects, seen).pack() for group in self.groups], dim=1)

    def split(self, packed: Tensor) -> dict[Group, Regions]:
        """Split the result of `forward` into regions by group; in training with dropout on features."""
        sizes = self.sizes()
        groups = dict[Group, Regions]()
        for group, part in zip(sizes, packed.split(list(sizes.values()), dim=1), strict=True):
            regions = Regions.unpack(part)
            groups[group] = regions._replace(features=F.dropout(regions.features, self.dropout, self.training))
        return groups

    def _group(self, group: Group, maps: Sequence[Tensor], objects: Candidates | None, face: Tensor | None) -> Regions:
        """Return the regions of one group.  maps: of scene, person and face.  face: (N,) its confidence."""
        if group in DETECTED and objects is not None:
            if group == "people":
                confidence = objects.classes[..., PERSON]
            else:
                confidence = objects.confidence
            boxes, presence, classes = strongest(objects._replace(confidence=confidence))
            return Regions(means(maps[0], boxes), classes, boxes, presence)
        of = maps[VIEWS.get(group, 0)]
        boxes = grid(SIDES.get(group, 1), of).expand(of.shape[0], -1, -1)  # (N, T, 4)
        if group != "face" or face is None:
            presence = torch.ones_like(boxes[..., 0])
        else:
            presence = face[:, None]
        classes = boxes.new_zeros(()).expand(*boxes.shape[:2], CLASSES)
        return Regions(means(of, boxes), classes, boxes, presence)

    def _face(self, person: Tensor) -> tuple[Tensor, Tensor]:
        """Crop the face from a person view, (N, 3, S, S), and return it with the detector's confidence, (N,)."""
        if self.face_finder is None:
            box = self.upper_half.to(person.dtype).expand(person.shape[0], 4)
            return cut(person, box), torch.ones_like(box[:, 0])
        boxes, presence, _ = strongest(self._detect(self.face_finder, person), count=1)
        box = boxes[:, 0]
        presence = presence[:, 0]
        margin = FACE_MARGIN * (box[:, 2:] - box[:, :2])
        wide = torch.cat([box[:, :2] - margin, box[:, 2:] + margin], dim=1).clamp(0, 1)
        return cut(person, torch.where(presence[:, None] > 0, wide, self.upper_half.to(wide.dtype))), presence

    @torch.no_grad()
    def _detect(self, network: nn.Module, view: Tensor) -> Candidates:
        with torch.autocast(view.device.type, enabled=False):
            rgb = (view.float() * self.std + self.mean).clamp(0, 1) * 255
            return network(F.interpolate(rgb, (DETECTOR_PX, DETECTOR_PX), mode="bilinear", align_corners=False))


def feature_map(encoder: Any, x: Tensor) -> Tensor:
    """Return the encoder's last feature map, (N, D, h, w); a ViT's patch tokens.  x: (N, 3, S, S).

    Raises:
        ConfigError: For an encoder without one.
    """
    if not hasattr(encoder, "forward_features"):
        raise ConfigError(f"this method needs one network of timm with a feature map, got {type(encoder).__name__}")
    places = encoder.forward_features(x)
    if places.ndim == 3:  # (N, prefix + L, D)
        places = places[:, encoder.num_prefix_tokens :]
        rows, columns = encoder.patch_embed.grid_size
        return places.transpose(1, 2).unflatten(2, (rows, columns))
    is_last = places.shape[3] == encoder.num_features and places.shape[1] == places.shape[2]  # Swin's (N, h, w, D)
    return places.permute(0, 3, 1, 2) if is_last else places


def grid(side: int, like: Tensor) -> Tensor:
    """Return the cells of a grid over a view, row by row: (side², 4), shares."""
    edges = torch.linspace(0, 1, side + 1, device=like.device, dtype=torch.float32)
    y1, x1 = torch.meshgrid(edges[:-1], edges[:-1], indexing="ij")
    y2, x2 = torch.meshgrid(edges[1:], edges[1:], indexing="ij")
    return torch.stack([x1, y1, x2, y2], dim=-1).flatten(0, 1)


def means(places: Tensor, boxes: Tensor) -> Tensor:
    """Average a map inside boxes; a cell's weight is its share inside the box.

    Args:
        places: (N, D, h, w).
        boxes: (N, T, 4), shares.

    Returns:
        (N, T, D); 0 for a box outside of the view.
    """
    rows = shares_of_cells(boxes[..., 1], boxes[..., 3], places.shape[2]).to(places.dtype)  # (N, T, h)
    columns = shares_of_cells(boxes[..., 0], boxes[..., 2], places.shape[3]).to(places.dtype)  # (N, T, w)
    weights = rows[..., :, None] * columns[..., None, :]  # (N, T, h, w)
    return torch.einsum("nthw,ndhw->ntd", weights, places)


def shares_of_cells(low: Tensor, high: Tensor, count: int) -> Tensor:
    """Return the share of an interval along one side in each of `count` cells; sums to 1, or 0 outside of all cells.

    Args:
        low: (...), shares of the side.
        high: (...), shares of the side.

    Returns:
        (..., count).

    >>> shares_of_cells(torch.tensor([0.25]), torch.tensor([1.0]), 2)
    tensor([[0.3333, 0.6667]])
    """
    left = torch.arange(count, device=low.device, dtype=low.dtype) / count
    inside = torch.minimum(high[..., None], left + 1 / count) - torch.maximum(low[..., None], left)
    inside = inside.clamp(min=0)
    return inside / inside.sum(dim=-1, keepdim=True).clamp(min=1e-6)


def cut(view: Tensor, box: Tensor) -> Tensor:
    """Crop the box from each view and resize it to the view's size, bilinear, without keeping the aspect.

    Args:
        view: (N, 3, S, S).
        box: (N, 4), shares.

    Returns:
        (N, 3, S, S).
    """
    size = view.shape[-1]
    steps = (torch.arange(size, device=view.device, dtype=torch.float32) + 0.5) / size  # (S,)
    x = box[:, :1] + steps * (box[:, 2:3] - box[:, :1])  # (N, S)
    y = box[:, 1:2] + steps * (box[:, 3:] - box[:, 1:2])
    places = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)  # (N, S, S, 2)
    return F.grid_sample(view.float(), 2 * places - 1, padding_mode="border", align_corners=False).to(view.dtype)


def strongest(candidates: Candidates, count: int = COUNT) -> tuple[Tensor, Tensor, Tensor]:
    """Select boxes that don't overlap by half, most confident first (greedy non-maximum suppression, `count` rounds).

    Returns:
        Boxes (N, count, 4), their confidence (N, count), 0 for missing boxes, and classes (N, count, C).
    """
    confidence, rows = candidates.confidence.topk(min(LIKELY, candidates.confidence.shape[1]), dim=1)  # (N, A)
    boxes = candidates.boxes.gather(1, rows[..., None].expand(-1, -1, 4)).clamp(0, 1)  # (N, A, 4)
    left = torch.where(confidence >= MIN_CONFIDENCE, confidence, 0.0)
    chosen = []
    sure = []
    for _ in range(count):
        best, place = left.max(dim=1, keepdim=True)  # (N, 1)
        box = boxes.gather(1, place[..., None].expand(-1, -1, 4))  # (N, 1, 4)
        left = torch.where(overlaps(box, boxes) > MAX_OVERLAP, 0.0, left).scatter(1, place, 0.0)
        chosen.append(place)
        sure.append(best)
    # (N, count)
    places = torch.cat(chosen, dim=1)
    presence = torch.cat(sure, dim=1)
    is_there = (presence > 0)[..., None]
    rows = rows.gather(1, places)[..., None]  # (N, count, 1)
    classes = candidates.classes.gather(1, rows.expand(-1, -1, candidates.classes.shape[2]))
    picked = boxes.gather(1, places[..., None].expand(-1, -1, 4))
    return torch.where(is_there, picked, 0.0), presence, torch.where(is_there, classes, 0.0)


def overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    """Return the intersection over union of a box (N, 1, 4) with boxes (N, A, 4): (N, A)."""
    shared = (torch.minimum(box[..., 2:], boxes[..., 2:]) - torch.maximum(box[..., :2], boxes[..., :2])).clamp(min=0)
    both = shared.prod(dim=2)
    areas = [(one[..., 2:] - one[..., :2]).clamp(min=0).prod(dim=2) for one in (box, boxes)]
    return both / (areas[0] + areas[1] - both).clamp(min=1e-9)


def shares_of_present(fits: Tensor, presence: Tensor) -> Tensor:
    """Return attention weights over regions; absent regions get nearly 0.

    Args:
        fits: (..., T), before the softmax.
        presence: (..., T).

    Returns:
        (..., T), sums of 1, in the precision of fits.
    """
    return (fits.float() + presence.clamp(min=ABSENT).log()).softmax(dim=-1).to(fits.dtype)
