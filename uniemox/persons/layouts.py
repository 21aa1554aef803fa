"""Layouts of detector outputs, with a function that decodes each."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from uniemox.persons.fitting import Preparation, Size

Array = NDArray[np.float32]
Decoded = tuple[Array, Array]

# Width and height of YOLOv3's anchors, px, by stride: Redmon & Farhadi, arXiv 1804.02767, section 2.3.
ANCHORS = {
    8: ((10, 13), (16, 30), (33, 23)),
    16: ((30, 61), (62, 45), (59, 119)),
    32: ((116, 90), (156, 198), (373, 326)),
}


def sigmoid(values: Array) -> Array:
    """Compute the logistic function without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * values))


def exponential(values: Array) -> Array:
    """Compute e to the power of log sizes, limited to e^20 strides: larger ones are not boxes and would overflow."""
    return np.exp(np.minimum(values, 20))


def corners(centres: Array, extents: Array) -> Array:
    """Convert centres (..., 2) and widths and heights (..., 2) to boxes x1, y1, x2, y2 (..., 4)."""
    return np.concatenate([centres - extents / 2, centres + extents / 2], axis=-1)


def cells(size: Size, strides: Sequence[int]) -> tuple[Array, Array]:
    """Return column and row of every cell, (n, 2), level by level, row by row, and its stride in px, (n, 1)."""
    grids = []
    strides_of_cells = []
    for stride in strides:
        rows = math.ceil(size[0] / stride)
        columns = math.ceil(size[1] / stride)
        y, x = np.mgrid[:rows, :columns]
        grids.append(np.stack([x, y], axis=-1).reshape(-1, 2))  # (rows * columns, 2)
        strides_of_cells.append(np.full((rows * columns, 1), stride))
    return np.concatenate(grids).astype(np.float32), np.concatenate(strides_of_cells).astype(np.float32)


def decode_yolox(outputs: Sequence[Array], size: Size) -> Decoded:
    """Decode YOLOX (arXiv 2107.08430; Megvii-BaseDetection/YOLOX): (N, n, 5 + classes), one point per cell.

    The strides are 8, 16 and 32. Centres are offsets from the cell's corner in cells, sizes are logs of cells;
    objectness and classes are probabilities.
    """
    raw = outputs[0]
    grid, stride = cells(size, (8, 16, 32))
    boxes = corners((raw[..., :2] + grid) * stride, exponential(raw[..., 2:4]) * stride)
    return boxes, raw[..., 4] * raw[..., 5]


def decode_centres(outputs: Sequence[Array], size: Size) -> Decoded:
    """Decode (N, n, 5 + classes) with decoded boxes: cx, cy, w, h in px of the input, objectness and classes."""
    raw = outputs[0]
    return corners(raw[..., :2], raw[..., 2:4]), raw[..., 4] * raw[..., 5]


def decode_nanodet(outputs: Sequence[Array], size: Size, *, strides: Sequence[int], offset: float) -> Decoded:
    """Decode NanoDet (RangiLyu/nanodet): (N, n, classes + 4 * bins), classes first, already probabilities.

    The distances from a cell's point to left, top, right and bottom are means over bins 0, 1, 2, ... (in strides) of a
    softmax (arXiv 2006.04388).

    Args:
        strides: Strides of the levels, px.
        offset: Position of a cell's point in the cell, in cells: 0.5 in NanoDet, 0 in NanoDet-Plus.
    """
    raw = outputs[0]
    bins = NANODET_BINS[raw.shape[2]]
    logits = raw[..., -4 * bins :].reshape(*raw.shape[:2], 4, bins)
    # The maximum is subtracted against overflow.
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    grid, stride = cells(size, strides)
    distances = (weights @ np.arange(bins, dtype=np.float32)) / weights.sum(axis=-1) * stride  # (N, n, 4)
    points = (grid + offset) * stride
    return np.concatenate([points - distances[..., :2], points + distances[..., 2:]], axis=-1), raw[..., 0]


def decode_fastestdet(outputs: Sequence[Array], size: Size) -> Decoded:
    """Decode FastestDet (dog-qiuqiu/FastestDet), (N, 5 + classes, H/16, W/16): objectness, box, classes.

    Centre: tanh, in cells from the cell's corner; size: logistic, in shares of the image. The confidence is
    objectness^0.6 * class^0.4, as in the authors' example for ncnn.
    """
    maps = outputs[0]
    n, channels, rows, columns = maps.shape
    table = maps.reshape(n, channels, rows * columns).transpose(0, 2, 1)  # (N, cells, 5 + classes)
    grid, stride = cells(size, (16,))
    input_extent = np.array([size[1], size[0]], dtype=np.float32)  # width, height
    centres = (np.tanh(table[..., 1:3]) + grid) * stride
    objectness = table[..., 0].clip(0, 1)
    person = table[..., 5].clip(0, 1)
    confidence = np.power(objectness, 0.6, dtype=np.float32) * np.power(person, 0.4, dtype=np.float32)
    return corners(centres, sigmoid(table[..., 3:5]) * input_extent), confidence


def finest_first(maps: Sequence[Array]) -> list[Array]:
    """Sort maps (N, C, rows, columns) by falling number of rows: exporters differ in their order."""
    return sorted(maps, key=lambda level: -level.shape[2])


def decode_yolov3_maps(outputs: Sequence[Array], size: Size) -> Decoded:
    """Decode YOLOv3 (arXiv 1804.02767, section 2.1): three maps (N, 3 * (5 + classes), H/s, W/s), s = 8, 16, 32.

    Per anchor: logits of the centre within its cell, log sizes over the anchor, logits of objectness and classes.
    """
    boxes = []
    confidences = []
    for maps, (stride, shapes) in zip(finest_first(outputs), ANCHORS.items(), strict=True):
        n, channels, rows, columns = maps.shape
        raw = maps.reshape(n, 3, channels // 3, rows, columns)
        raw = raw.transpose(0, 3, 4, 1, 2)  # (N, rows, columns, 3, 5 + classes)
        y, x = np.mgrid[:rows, :columns]
        grid = np.stack([x, y], axis=-1)[:, :, None].astype(np.float32)  # (rows, columns, 1, 2)
        anchors = np.array(shapes, dtype=np.float32)  # (3, 2)
        box = corners((sigmoid(raw[..., :2]) + grid) * stride, exponential(raw[..., 2:4]) * anchors)
        boxes.append(box.reshape(n, -1, 4))
        confidences.append((sigmoid(raw[..., 4]) * sigmoid(raw[..., 5])).reshape(n, -1))
    return np.concatenate(boxes, axis=1), np.concatenate(confidences, axis=1)


def decode_zoo(outputs: Sequence[Array], size: Size) -> Decoded:
    """Decode onnx/models, yolov3-10 and -12: boxes (N, n, 4) as y1, x1, y2, x2 in px of the image, scores (N, 80, n).

    The third output, the result of the graph's own suppression with its own thresholds, is ignored.
    """
    boxes, scores = outputs[:2]
    return boxes[..., [1, 0, 3, 2]], scores[:, 0]


def decode_yunet(outputs: Sequence[Array], size: Size) -> Decoded:
    """Decode YuNet (Wu et al., MIR 2023; ShiqiYu/libfacedetection.train): faces, one point per cell, strides 8, 16, 32.

    Args:
        outputs: For each stride class and objectness (N, n, 1), boxes (N, n, 4) and landmarks (N, n, 10), in any order.
            Centres are offsets from the cell's corner in cells, sizes are logs of cells; the confidence is the
            geometric mean of class and objectness. Landmarks are ignored.
    """
    grid, stride = cells(size, (8, 16, 32))
    by_stride = sorted(outputs, key=lambda values: -values.shape[1])
    raw = np.concatenate([values for values in by_stride if values.shape[2] == 4], axis=1)  # (N, n, 4)
    # Class and objectness of each stride follow each other; their order does not matter, because they are multiplied.
    scores = [values[..., 0].clip(0, 1) for values in by_stride if values.shape[2] == 1]
    products = [a * b for a, b in zip(scores[::2], scores[1::2], strict=True)]
    confidences = np.sqrt(np.concatenate(products, axis=1))
    return corners((raw[..., :2] + grid) * stride, exponential(raw[..., 2:]) * stride), confidences


STRIDE = 8
"""Px of the input per cell."""


def decode_centres_map(outputs: Sequence[Array], size: Size) -> Decoded:
    """Decode (N, 5, H/8, W/8): probability of a person's centre, and distances to left, top, right, bottom in px.

    Distances are from the centre of the cell; column i covers the px from 8 i to 8 i + 8 of the input, whose left edge
    is 0. A cell with a higher neighbour among its eight has confidence 0 (CenterNet, arXiv 1904.07850, section 4).
    """
    maps = outputs[0]
    n, _, rows, columns = maps.shape
    y, x = (np.mgrid[:rows, :columns].astype(np.float32) + 0.5) * STRIDE
    to_left, to_top, to_right, to_bottom = np.moveaxis(maps[:, 1:], 1, 0)  # (N, rows, columns) each
    boxes = np.stack([x - to_left, y - to_top, x + to_right, y + to_bottom], axis=-1)  # (N, rows, columns, 4)
    heat = maps[:, 0]
    peaks = np.where(heat >= highest_around(heat), heat, 0)
    return boxes.reshape(n, -1, 4), peaks.reshape(n, -1).astype(np.float32)


def highest_around(heat: Array) -> Array:
    """Return the maximum of each cell and its eight neighbours: (N, rows, columns) -> (N, rows, columns)."""
    # Columns first, then rows: two passes over three cells instead of one over nine.
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    along = np.maximum(np.maximum(padded[:, :, :-2], padded[:, :, 2:]), padded[:, :, 1:-1])  # (N, rows + 2, columns)
    return np.maximum(np.maximum(along[:, :-2], along[:, 2:]), along[:, 1:-1])  # (N, rows, columns)


YOLOV3_CONFIDENCE = 0.8
YOLOV3_NMS_OVERLAP = 0.4
"""Values of UniEmoX (models/model_yolo.py of the authors' code)."""
# COCO's classes, or only persons.
CLASS_COUNTS = (80, 1)
WITH_OBJECTNESS = tuple(5 + classes for classes in CLASS_COUNTS)
# Bins per side by columns of NanoDet's table: reg_max + 1 in its published configurations.
NANODET_BINS = {classes + 4 * bins: bins for classes in CLASS_COUNTS for bins in (8, 11, 17)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Format of a detector's ONNX file."""

    name: str
    """Name of the layout in messages and fingerprints."""
    outputs: str
    """Description of the outputs, for the message that lists known layouts."""
    matches: Callable[[Size, Sequence[Array]], bool]
    """Function that returns True if these are its outputs for one grey image of that size."""
    decode: Callable[[Sequence[Array], Size], Decoded]
    preparation: Preparation
    confidence: float = YOLOV3_CONFIDENCE
    """Default minimum confidence: the value with which its authors show boxes."""
    nms_overlap: float = YOLOV3_NMS_OVERLAP
    """Default intersection over union above which the weaker of two boxes is dropped, as its authors have it."""
    free_size_px: int = 416
    """Side of the input if the graph accepts any: YOLOv3's, as published."""
    takes_size: bool = False
    """True if the graph has a second input, (height, width) of the image, and its boxes are in px of the image."""


def _table(outputs: Sequence[Array], rows: int, columns: Sequence[int]) -> Array | None:
    """Return the only output if it is (N, rows, one of columns); else None."""
    if len(outputs) != 1 or outputs[0].ndim != 3:
        return None
    if outputs[0].shape[1] == rows and outputs[0].shape[2] in columns:
        return outputs[0]
    return None


def _are_probabilities(values: Array) -> bool:
    """Return True for values in 0 to 1, up to rounding; logits on any image are far outside."""
    return bool(np.isfinite(values).all() and values.min() >= -1e-3 and values.max() <= 1 + 1e-3)


def _is_yolox(size: Size, outputs: Sequence[Array], *, decoded: bool) -> bool:
    """Return True for YOLOX. Raw and decoded files have the same shape; only decoded centres follow the cells."""
    grid, stride = cells(size, (8, 16, 32))
    table = _table(outputs, len(grid), WITH_OBJECTNESS)
    if table is None or not _are_probabilities(table[..., 4:]):
        return False
    centres = table[..., :2]
    extents = table[..., 2:4]
    # Median distance of the centres from those of their cells, in cells, for both meanings of the numbers.
    distance_if_decoded = float(np.median(np.abs(centres / stride - grid - 0.5)))
    distance_if_raw = float(np.median(np.abs(centres - 0.5)))
    if not decoded:
        return distance_if_raw < distance_if_decoded
    # YOLOv6 has the same table with an objectness of 1 everywhere, but needs other preprocessing.
    has_extents = float(extents.min()) >= 0
    return distance_if_decoded < distance_if_raw and has_extents and float(table[..., 4].min()) < 1


def _is_nanodet(size: Size, outputs: Sequence[Array], *, strides: Sequence[int]) -> bool:
    table = _table(outputs, len(cells(size, strides)[0]), tuple(NANODET_BINS))
    return table is not None and _are_probabilities(table[..., : -4 * NANODET_BINS[table.shape[2]]])


def _is_fastestdet(size: Size, outputs: Sequence[Array]) -> bool:
    if len(outputs) != 1 or outputs[0].ndim != 4:
        return False
    channels, rows, columns = outputs[0].shape[1:]
    fits = channels in WITH_OBJECTNESS and (rows * 16, columns * 16) == size
    return fits and _are_probabilities(np.delete(outputs[0], slice(1, 5), axis=1))


def _is_yolov3_maps(size: Size, outputs: Sequence[Array]) -> bool:
    if len(outputs) != 3 or any(maps.ndim != 4 for maps in outputs):
        return False
    expected = [(outputs[0].shape[1], size[0] // stride, size[1] // stride) for stride in (8, 16, 32)]
    shapes = [maps.shape[1:] for maps in finest_first(outputs)]
    return shapes == expected and shapes[0][0] in [3 * columns for columns in WITH_OBJECTNESS]


def _is_yolov3_table(size: Size, outputs: Sequence[Array]) -> bool:
    table = _table(outputs, 3 * len(cells(size, (8, 16, 32))[0]), WITH_OBJECTNESS)
    if table is None or not _are_probabilities(table[..., 4:]):
        return False
    # Other exports have boxes in shares of the input.
    in_px = float(table[..., :2].max()) > 2
    return in_px and float(table[..., 2:4].min()) >= 0


def _is_zoo(size: Size, outputs: Sequence[Array]) -> bool:
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


# ImageNet's mean and standard deviation in levels of 255, in the order BGR, as in NanoDet's configurations.
_NANODET_MEAN = (103.53, 116.28, 123.675)
_NANODET_STD = (57.375, 57.12, 58.395)
_TO_ONE = (255.0, 255.0, 255.0)
CENTRES = Preparation(fit="squash", order="RGB", averaged=True)
"""Preprocessing of `python -m recipes.finder fit`; its files normalise px of 0 to 255 themselves."""
CENTRES_CONFIDENCE = 0.5
CENTRES_NMS_OVERLAP = 0.6
"""Default thresholds. The file shifts the heat, so that 0.5 is the value chosen on held-out images."""

FACES = "YuNet (faces)"

YOLOX = Layout(
    name="YOLOX",
    outputs="[N, n, 5 + classes], n cells of strides 8, 16, 32, raw",
    matches=partial(_is_yolox, decoded=False),
    decode=decode_yolox,
    preparation=Preparation(fit="corner", fill=114, order="BGR"),
    confidence=0.3,
    # Between the authors' ONNX example (0.45) and their evaluation (0.65): people stand close to each other.
    nms_overlap=0.5,
)
LAYOUTS = (
    YOLOX,
    replace(
        YOLOX,
        name="YOLOX, decoded in the graph",
        outputs="[N, n, 5 + classes], n cells of strides 8, 16, 32, boxes in px",
        matches=partial(_is_yolox, decoded=True),
        decode=decode_centres,
    ),
    Layout(
        name="NanoDet-Plus",
        outputs="[N, n, classes + 4 * bins], n cells of strides 8, 16, 32, 64",
        matches=partial(_is_nanodet, strides=(8, 16, 32, 64)),
        decode=partial(decode_nanodet, strides=(8, 16, 32, 64), offset=0.0),
        preparation=Preparation(fit="squash", order="BGR", mean=_NANODET_MEAN, std=_NANODET_STD),
        confidence=0.35,
        nms_overlap=0.6,
    ),
    Layout(
        name="NanoDet",
        outputs="[N, n, classes + 4 * bins], n cells of strides 8, 16, 32",
        matches=partial(_is_nanodet, strides=(8, 16, 32)),
        decode=partial(decode_nanodet, strides=(8, 16, 32), offset=0.5),
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
    ),
    Layout(
        name="YOLOv3, one table (YOLOv5 has the same)",
        outputs="[N, 3 * n, 5 + classes], n cells of strides 8, 16, 32, boxes in px",
        matches=_is_yolov3_table,
        decode=decode_centres,
        preparation=Preparation(fit="centre", fill=114, order="RGB", std=_TO_ONE),
    ),
    Layout(
        name="YOLOv3 of the ONNX model zoo",
        outputs="boxes [N, n, 4], scores [N, 80, n], indices [m, 3] from an image and its size",
        matches=_is_zoo,
        decode=decode_zoo,
        preparation=Preparation(fit="centre", fill=128, order="RGB", std=_TO_ONE, averaged=True),
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
