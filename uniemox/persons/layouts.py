"""What published person detectors put into their ONNX files, and how each wants its images.

A file is recognised by the shapes and values that come out of it for one grey image, never by its name. Class 0 is
`person` in COCO's order and in files for persons alone; no other set of classes is known.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from uniemox.persons.centres import STRIDE, decode_centres_map
from uniemox.persons.decoding import (
    Array,
    Decoded,
    cells,
    decode_centres,
    decode_fastestdet,
    decode_nanodet,
    decode_yolov3_maps,
    decode_yolox,
    decode_yunet,
    decode_zoo,
    finest_first,
)
from uniemox.persons.fitting import Preparation, Size

CLASS_COUNTS = (80, 1)  # COCO's, or persons alone
WITH_OBJECTNESS = tuple(5 + classes for classes in CLASS_COUNTS)
# Columns of NanoDet's table to bins a side: reg_max + 1 in its published configurations.
NANODET_BINS = {classes + 4 * bins: bins for classes in CLASS_COUNTS for bins in (8, 11, 17)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One way to write a detector to ONNX."""

    name: str
    outputs: str
    """What comes out, for the message that lists what is known."""
    matches: Callable[[Size, Sequence[Array]], bool]
    """Whether these are its outputs for one grey image of that size."""
    decode: Callable[[Sequence[Array], Size], Decoded]
    preparation: Preparation
    confidence: float
    """Least confidence if the user asks for none: what its authors show boxes from."""
    nms_overlap: float
    """Intersection over union above which the weaker of two boxes goes, as its authors have it."""
    free_size_px: int = 416
    """Side of the input where the graph takes any: YOLOv3's, as published."""
    takes_size: bool = False
    """The graph has a second input, (height, width) of the image, and its boxes are in px of the image."""
    revision: int = 1
    """Raise it when code changes boxes: it is part of every fingerprint."""


def recognise(size: Size, outputs: Sequence[Array], *, takes_size: bool) -> Layout | None:
    """The layout of a graph from its outputs for one grey image; None if it is not known."""
    for layout in LAYOUTS:
        if layout.takes_size == takes_size and layout.matches(size, outputs):
            return layout
    return None


def _table(outputs: Sequence[Array], rows: int, columns: Sequence[int]) -> Array | None:
    """The one output, if it is (N, rows, one of columns)."""
    if len(outputs) != 1 or outputs[0].ndim != 3:
        return None
    return outputs[0] if outputs[0].shape[1] == rows and outputs[0].shape[2] in columns else None


def _are_probabilities(values: Array) -> bool:
    """Up to what rounding adds: logits on any image leave 0 to 1 by far more."""
    return bool(np.isfinite(values).all() and values.min() >= -1e-3 and values.max() <= 1 + 1e-3)


def _is_yolox(size: Size, outputs: Sequence[Array], *, decoded: bool) -> bool:
    """Raw and decoded files have one shape, but decoded centres follow the grid of cells; raw ones are alike."""
    grid, stride = cells(size, (8, 16, 32))
    table = _table(outputs, len(grid), WITH_OBJECTNESS)
    if table is None or not _are_probabilities(table[..., 4:]):
        return False
    centres, extents = table[..., :2], table[..., 2:4]
    away_if_decoded = float(np.median(np.abs(centres / stride - grid - 0.5)))  # in cells
    away_if_raw = float(np.median(np.abs(centres - 0.5)))
    if not decoded:
        return away_if_raw < away_if_decoded
    # YOLOv6 writes the same table with an objectness of 1 everywhere, but wants its images otherwise.
    return away_if_decoded < away_if_raw and float(extents.min()) >= 0 and float(table[..., 4].min()) < 1


def _is_nanodet(size: Size, outputs: Sequence[Array], *, strides: Sequence[int]) -> bool:
    table = _table(outputs, len(cells(size, strides)[0]), tuple(NANODET_BINS))
    return table is not None and _are_probabilities(table[..., : -4 * NANODET_BINS[table.shape[2]]])


def _decode_nanodet(outputs: Sequence[Array], size: Size, *, strides: Sequence[int], offset: float) -> Decoded:
    bins = NANODET_BINS[outputs[0].shape[2]]
    return decode_nanodet(outputs, size, bins=bins, strides=strides, offset=offset)


def _is_fastestdet(size: Size, outputs: Sequence[Array]) -> bool:
    if len(outputs) != 1 or outputs[0].ndim != 4:
        return False
    channels, rows, columns = outputs[0].shape[1:]
    return (
        channels in WITH_OBJECTNESS
        and (rows * 16, columns * 16) == size
        and _are_probabilities(np.delete(outputs[0], slice(1, 5), axis=1))
    )


def _is_yolov3_maps(size: Size, outputs: Sequence[Array]) -> bool:
    if len(outputs) != 3 or any(maps.ndim != 4 for maps in outputs):
        return False
    expected = [(outputs[0].shape[1], size[0] // stride, size[1] // stride) for stride in (8, 16, 32)]
    found = [maps.shape[1:] for maps in finest_first(outputs)]
    return found == expected and found[0][0] in [3 * columns for columns in WITH_OBJECTNESS]


def _is_yolov3_table(size: Size, outputs: Sequence[Array]) -> bool:
    table = _table(outputs, 3 * len(cells(size, (8, 16, 32))[0]), WITH_OBJECTNESS)
    if table is None or not _are_probabilities(table[..., 4:]):
        return False
    in_px = float(table[..., :2].max()) > 2  # not in parts of the input
    return in_px and float(table[..., 2:4].min()) >= 0


def _is_zoo(size: Size, outputs: Sequence[Array]) -> bool:
    del size
    if len(outputs) != 3 or [output.ndim for output in outputs[:2]] != [3, 3]:
        return False
    boxes, scores, indices = outputs
    return boxes.shape[2] == 4 and scores.shape[1:] == (80, boxes.shape[1]) and indices.shape[-1] == 3


def _is_centres_map(size: Size, outputs: Sequence[Array]) -> bool:
    if len(outputs) != 1 or outputs[0].ndim != 4 or outputs[0].shape[1] != 5:
        return False
    rows, columns = outputs[0].shape[2:]
    in_cells = (rows * STRIDE, columns * STRIDE) == size
    return in_cells and _are_probabilities(outputs[0][:, :1]) and float(outputs[0][:, 1:].min()) > 0


def _is_yunet(size: Size, outputs: Sequence[Array]) -> bool:
    if len(outputs) != 12 or any(output.ndim != 3 for output in outputs):
        return False
    counts = [math.ceil(size[0] / stride) * math.ceil(size[1] / stride) for stride in (8, 16, 32)]
    expected = sorted((count, columns) for count in counts for columns in (1, 1, 4, 10))
    return sorted(output.shape[1:] for output in outputs) == expected


# Between what its authors have in their ONNX example (0.45) and in their evaluation (0.65): people stand close.
YOLOX_NMS_OVERLAP = 0.5
_YOLOX = Preparation(fit="corner", fill=114, order="BGR")
_NANODET_MEAN, _NANODET_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
_TO_ONE = (255.0, 255.0, 255.0)
YOLOV3_CONFIDENCE, YOLOV3_NMS_OVERLAP = 0.8, 0.4
"""As UniEmoX has them (models/model_yolo.py of its release)."""
CENTRES = Preparation(fit="squash", order="RGB", averaged=True)
"""What `python -m recipes.finder fit` trains with; its files normalise px of 0 to 255 themselves."""
CENTRES_CONFIDENCE, CENTRES_NMS_OVERLAP = 0.5, 0.6
"""The heat is shifted in the file, so that 0.5 is what was chosen on held-out images."""

FACES = "YuNet (faces)"

LAYOUTS = (
    Layout(
        name="YOLOX",
        outputs="[N, n, 5 + classes], n cells of strides 8, 16, 32, raw",
        matches=partial(_is_yolox, decoded=False),
        decode=decode_yolox,
        preparation=_YOLOX,
        confidence=0.3,
        nms_overlap=YOLOX_NMS_OVERLAP,
    ),
    Layout(
        name="YOLOX, decoded in the graph",
        outputs="[N, n, 5 + classes], n cells of strides 8, 16, 32, boxes in px",
        matches=partial(_is_yolox, decoded=True),
        decode=decode_centres,
        preparation=_YOLOX,
        confidence=0.3,
        nms_overlap=YOLOX_NMS_OVERLAP,
    ),
    Layout(
        name="NanoDet-Plus",
        outputs="[N, n, classes + 4 * bins], n cells of strides 8, 16, 32, 64",
        matches=partial(_is_nanodet, strides=(8, 16, 32, 64)),
        decode=partial(_decode_nanodet, strides=(8, 16, 32, 64), offset=0.0),
        preparation=Preparation(fit="squash", order="BGR", mean=_NANODET_MEAN, std=_NANODET_STD),
        confidence=0.35,
        nms_overlap=0.6,
    ),
    Layout(
        name="NanoDet",
        outputs="[N, n, classes + 4 * bins], n cells of strides 8, 16, 32",
        matches=partial(_is_nanodet, strides=(8, 16, 32)),
        decode=partial(_decode_nanodet, strides=(8, 16, 32), offset=0.5),
        preparation=Preparation(fit="centre", order="BGR", mean=_NANODET_MEAN, std=_NANODET_STD),
        confidence=0.35,
        nms_overlap=0.6,
    ),
    Layout(
        name="FastestDet",
        outputs="[N, 5 + classes, H/16, W/16]",
        matches=_is_fastestdet,
        decode=decode_fastestdet,
        preparation=Preparation(fit="squash", order="BGR", std=_TO_ONE),
        confidence=0.65,
        nms_overlap=0.45,
    ),
    Layout(
        name="YOLOv3, three raw maps",
        outputs="[N, 3 * (5 + classes), H/s, W/s] for s = 8, 16, 32",
        matches=_is_yolov3_maps,
        decode=decode_yolov3_maps,
        preparation=Preparation(fit="squash", order="RGB", std=_TO_ONE),
        confidence=YOLOV3_CONFIDENCE,
        nms_overlap=YOLOV3_NMS_OVERLAP,
    ),
    Layout(
        name="YOLOv3, one table (YOLOv5 has the same)",
        outputs="[N, 3 * n, 5 + classes], n cells of strides 8, 16, 32, boxes in px",
        matches=_is_yolov3_table,
        decode=decode_centres,
        preparation=Preparation(fit="centre", fill=114, order="RGB", std=_TO_ONE),
        confidence=YOLOV3_CONFIDENCE,
        nms_overlap=YOLOV3_NMS_OVERLAP,
    ),
    Layout(
        name="YOLOv3 of the ONNX model zoo",
        outputs="boxes [N, n, 4], scores [N, 80, n], indices [m, 3] from an image and its size",
        matches=_is_zoo,
        decode=decode_zoo,
        preparation=Preparation(fit="centre", fill=128, order="RGB", std=_TO_ONE, averaged=True),
        confidence=YOLOV3_CONFIDENCE,
        nms_overlap=YOLOV3_NMS_OVERLAP,
        takes_size=True,
    ),
    Layout(
        name=FACES,
        outputs="class, objectness [N, n, 1], boxes [N, n, 4], landmarks [N, n, 10] for strides 8, 16, 32",
        matches=_is_yunet,
        decode=decode_yunet,
        preparation=Preparation(fit="corner", order="BGR"),
        confidence=0.7,
        nms_overlap=0.3,
        free_size_px=640,
    ),
    Layout(
        name="uniemox finder",
        outputs="[N, 5, H/8, W/8]: persons alone",
        matches=_is_centres_map,
        decode=decode_centres_map,
        preparation=CENTRES,
        confidence=CENTRES_CONFIDENCE,
        nms_overlap=CENTRES_NMS_OVERLAP,
    ),
)
