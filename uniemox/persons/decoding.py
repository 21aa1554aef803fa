"""From a detector's output to boxes, in numpy, a function for each published form.

Every decoder takes the outputs of a batch and the input's (height, width) and gives boxes (N, M, 4) as x1, y1, x2, y2
in px of the input and confidences (N, M), 0 to 1, of class 0.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uniemox.persons.fitting import Size

Array = NDArray[np.float32]
Decoded = tuple[Array, Array]

# Width, height in px per stride: Redmon & Farhadi, arXiv 1804.02767, section 2.3.
ANCHORS = {
    8: ((10, 13), (16, 30), (33, 23)),
    16: ((30, 61), (62, 45), (59, 119)),
    32: ((116, 90), (156, 198), (373, 326)),
}


def sigmoid(values: Array) -> Array:
    """The logistic function, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * values))


def exponential(values: Array) -> Array:
    """e to the power of log sizes; what lies beyond e^20 strides is no box and would overflow."""
    return np.exp(np.minimum(values, 20))


def corners(centres: Array, extents: Array) -> Array:
    """Boxes x1, y1, x2, y2 (..., 4) from centres (..., 2) and widths and heights (..., 2)."""
    return np.concatenate([centres - extents / 2, centres + extents / 2], axis=-1)


def cells(size: Size, strides: Sequence[int]) -> tuple[Array, Array]:
    """Column and row of every cell (n, 2), all levels one after the other, row by row, and its stride in px (n, 1)."""
    grids, widths = [], []
    for stride in strides:
        rows, columns = math.ceil(size[0] / stride), math.ceil(size[1] / stride)
        y, x = np.mgrid[:rows, :columns]
        grids.append(np.stack([x, y], axis=-1).reshape(-1, 2))  # (rows * columns, 2)
        widths.append(np.full((rows * columns, 1), stride))
    return np.concatenate(grids).astype(np.float32), np.concatenate(widths).astype(np.float32)


def decode_yolox(outputs: Sequence[Array], size: Size) -> Decoded:
    """YOLOX (arXiv 2107.08430; Megvii-BaseDetection/YOLOX): (N, n, 5 + classes), one point a cell, strides 8, 16, 32.

    Centres are offsets from the cell's corner in cells, sizes are logs of cells; objectness and classes are
    probabilities already.
    """
    raw = outputs[0]
    grid, stride = cells(size, (8, 16, 32))
    boxes = corners((raw[..., :2] + grid) * stride, exponential(raw[..., 2:4]) * stride)
    return boxes, raw[..., 4] * raw[..., 5]


def decode_centres(outputs: Sequence[Array], size: Size) -> Decoded:
    """(N, n, 5 + classes) decoded in the graph: cx, cy, w, h in px of the input, objectness and classes."""
    del size
    raw = outputs[0]
    return corners(raw[..., :2], raw[..., 2:4]), raw[..., 4] * raw[..., 5]


def decode_nanodet(
    outputs: Sequence[Array], size: Size, *, bins: int, strides: Sequence[int], offset: float
) -> Decoded:
    """NanoDet (RangiLyu/nanodet): (N, n, classes + 4 * bins), classes first and probabilities already.

    The distances from a cell's point to left, top, right and bottom are means over bins 0, 1, 2, ... (in strides) of a
    softmax (arXiv 2006.04388). offset: where that point lies in its cell, 0.5 until NanoDet-Plus, that has it at 0.
    """
    raw = outputs[0]
    logits = raw[..., -4 * bins :].reshape(*raw.shape[:2], 4, bins)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    grid, stride = cells(size, strides)
    distances = (weights @ np.arange(bins, dtype=np.float32)) / weights.sum(axis=-1) * stride  # (N, n, 4)
    points = (grid + offset) * stride
    return np.concatenate([points - distances[..., :2], points + distances[..., 2:]], axis=-1), raw[..., 0]


def decode_fastestdet(outputs: Sequence[Array], size: Size) -> Decoded:
    """FastestDet (dog-qiuqiu/FastestDet): (N, 5 + classes, H/16, W/16): objectness, four numbers of the box, classes.

    Centre: tanh, in cells from the cell's corner; size: logistic, in parts of the image. The confidence is
    objectness^0.6 * class^0.4, as in the authors' example for ncnn.
    """
    maps = outputs[0]
    n, channels, rows, columns = maps.shape
    rest = maps.reshape(n, channels, rows * columns).transpose(0, 2, 1)  # (N, cells, 5 + classes)
    grid, stride = cells(size, (16,))
    whole = np.array([size[1], size[0]], dtype=np.float32)
    centres = (np.tanh(rest[..., 1:3]) + grid) * stride
    objectness, person = rest[..., 0].clip(0, 1), rest[..., 5].clip(0, 1)
    confidence = np.power(objectness, 0.6, dtype=np.float32) * np.power(person, 0.4, dtype=np.float32)
    return corners(centres, sigmoid(rest[..., 3:5]) * whole), confidence


def finest_first(maps: Sequence[Array]) -> list[Array]:
    """Maps (N, C, rows, columns) with the most rows first: exporters disagree on their order."""
    return sorted(maps, key=lambda one: -one.shape[2])


def decode_yolov3_maps(outputs: Sequence[Array], size: Size) -> Decoded:
    """YOLOv3 (arXiv 1804.02767, section 2.1): three maps (N, 3 * (5 + classes), H/s, W/s), s = 8, 16, 32 in any order.

    Per anchor: logits of the centre within its cell, log sizes against the anchor, logits of objectness and classes.
    """
    del size
    boxes, confidences = [], []
    for maps, (stride, shapes) in zip(finest_first(outputs), ANCHORS.items(), strict=True):
        n, channels, rows, columns = maps.shape
        raw = maps.reshape(n, 3, channels // 3, rows, columns).transpose(
            0, 3, 4, 1, 2
        )  # (N, rows, columns, 3, 5 + classes)
        y, x = np.mgrid[:rows, :columns]
        grid = np.stack([x, y], axis=-1)[:, :, None].astype(np.float32)  # (rows, columns, 1, 2)
        anchors = np.array(shapes, dtype=np.float32)  # (3, 2)
        box = corners((sigmoid(raw[..., :2]) + grid) * stride, exponential(raw[..., 2:4]) * anchors)
        boxes.append(box.reshape(n, -1, 4))
        confidences.append((sigmoid(raw[..., 4]) * sigmoid(raw[..., 5])).reshape(n, -1))
    return np.concatenate(boxes, axis=1), np.concatenate(confidences, axis=1)


def decode_zoo(outputs: Sequence[Array], size: Size) -> Decoded:
    """onnx/models, yolov3-10 and -12: boxes (N, n, 4) as y1, x1, y2, x2 in px of the image, scores (N, 80, n).

    The third output, what the graph's own suppression leaves at its own thresholds, is not used.
    """
    del size
    boxes, scores = outputs[:2]
    return boxes[..., [1, 0, 3, 2]], scores[:, 0]


def decode_yunet(outputs: Sequence[Array], size: Size) -> Decoded:
    """YuNet (Wu et al., MIR 2023; ShiqiYu/libfacedetection.train): faces, one point a cell, strides 8, 16, 32.

    outputs: for each stride class and objectness (N, n, 1), boxes (N, n, 4) and landmarks (N, n, 10), in any order.
    Centres are offsets from the cell's corner in cells, sizes are logs of cells; the confidence is the geometric mean
    of class and objectness. Landmarks are left out.
    """
    grid, stride = cells(size, (8, 16, 32))
    finest = sorted(outputs, key=lambda values: -values.shape[1])
    raw = np.concatenate([values for values in finest if values.shape[2] == 4], axis=1)  # (N, n, 4)
    scores = [values[..., 0].clip(0, 1) for values in finest if values.shape[2] == 1]  # two of each stride
    confidences = np.sqrt(np.concatenate([a * b for a, b in zip(scores[::2], scores[1::2], strict=True)], axis=1))
    return corners((raw[..., :2] + grid) * stride, exponential(raw[..., 2:]) * stride), confidences
