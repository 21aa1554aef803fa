"""Layouts whose real weights are not available, on ONNX files that give a tensor in which the box was put by hand.

What a tensor means comes from the authors' own code, so a misreading of that code would not show here.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.persons.graphs import write_constant, write_zoo
from uniemox.errors import DetectorError
from uniemox.persons.box import Detection
from uniemox.persons.detector import DetectorConfig, load_detector
from uniemox.persons.layouts import STRIDE, decode_centres_map

IMAGE = Image.new("RGB", (200, 100), "red")
CLASSES = pytest.mark.parametrize("classes", [80, 1])


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def detect_people(path: Path, name: str, image: Image.Image = IMAGE) -> tuple[Detection, ...]:
    """People that the file finds in the image; it must be recognised as the layout of that name."""
    detector = load_detector(path)
    assert detector.layout.name == name
    (detections,) = detector.detect([image])
    return detections


def assert_single(detections: Sequence[Detection], box: Sequence[float], confidence: float, atol: float = 0.01) -> None:
    (detection,) = detections
    np.testing.assert_allclose(detection.box, box, atol=atol)
    assert detection.confidence == pytest.approx(confidence, abs=1e-4)


def grid(size: int, strides: Sequence[int]) -> NDArray[np.float64]:
    """Column, row, stride of every cell, level after level, row by row. (n, 3)"""
    return np.array([(x, y, s) for s in strides for y in range(-(-size // s)) for x in range(-(-size // s))], float)


def yolox_table(classes: int, *, decoded: bool) -> NDArray[np.float64]:
    """160 px: 20, 10 and 5 cells a side. One person, 0.9 * 0.8 sure, at stride 16 in column 3, row 1."""
    cells = grid(160, (8, 16, 32))
    table = np.zeros((1, len(cells), 5 + classes))
    table[0, :, :2] = (cells[:, :2] + 0.5) * cells[:, 2:] if decoded else 0.5
    table[0, :, 2:4] = cells[:, 2:] if decoded else 0
    row = 400 + 1 * 10 + 3
    centre = np.array([3.25, 1.5])
    extent = np.array([4, 2])
    table[0, row, :2] = centre * 16 if decoded else (0.25, 0.5)
    table[0, row, 2:4] = extent * 16 if decoded else np.log(extent)
    table[0, row, 4:6] = (0.9, 0.8)
    return table


@CLASSES
@pytest.mark.parametrize("decoded", [False, True])
def test_yolox_box_and_confidence_match_a_table_made_by_hand(tmp_path: Path, classes: int, decoded: bool) -> None:
    """Input px 52 ± 32, 24 ± 16; the image of 200 px lies in the corner, 0.8 as large. The box leaves it above."""
    path = write_constant(tmp_path / "a.onnx", [yolox_table(classes, decoded=decoded)], (160, 160))
    name = "YOLOX, decoded in the graph" if decoded else "YOLOX"
    assert_single(detect_people(path, name), (20 / 0.8, 8 / 0.8, 84 / 0.8, 40 / 0.8), 0.72)


def nanodet_table(size: int, strides: Sequence[int], row: int, classes: int, bins: int) -> NDArray[np.float64]:
    """One person, 0.6 sure, its sides 0.5, 1, 2 and 3 strides from the cell's point."""
    table = np.zeros((1, len(grid(size, strides)), classes + 4 * bins))
    logits = np.full((4, bins), -50.0)
    logits[0, :2] = 0  # half 0, half 1
    for side, distance in ((1, 1), (2, 2), (3, 3)):
        logits[side, distance] = 0
    table[0, row, 0] = 0.6
    table[0, row, classes:] = logits.ravel()
    return table


@CLASSES
@pytest.mark.parametrize("bins", [8, 11, 17])
def test_nanodet_plus_box_and_confidence_match_a_table_made_by_hand(tmp_path: Path, classes: int, bins: int) -> None:
    """416 px, where 64 leaves a rest: 7 cells a side. Stride 32, column 4, row 2: its point is 128, 64; a squash."""
    row = 52 * 52 + 26 * 26 + 2 * 13 + 4
    table = nanodet_table(416, (8, 16, 32, 64), row, classes, bins)
    assert table.shape[1] == 3598  # as the published nanodet-plus-m_416.onnx
    path = write_constant(tmp_path / "a.onnx", [table], (416, 416))
    x = 200 / 416
    y = 100 / 416
    assert_single(detect_people(path, "NanoDet-Plus"), (112 * x, 32 * y, 192 * x, 160 * y), 0.6)


@CLASSES
def test_nanodet_box_and_confidence_match_a_table_made_by_hand(tmp_path: Path, classes: int) -> None:
    """320 px, in the middle: 200 x 100 becomes 320 x 160 under 80 px of black. Stride 32, column 4, row 5."""
    table = nanodet_table(320, (8, 16, 32), 1600 + 400 + 5 * 10 + 4, classes, 8)
    path = write_constant(tmp_path / "a.onnx", [table], (320, 320))
    x = 4.5 * 32
    y = 5.5 * 32
    expected = ((x - 16) / 1.6, (y - 32 - 80) / 1.6, (x + 64) / 1.6, (y + 96 - 80) / 1.6)
    assert_single(detect_people(path, "NanoDet"), (*expected[:3], 100), 0.6)


@CLASSES
def test_fastestdet_box_and_confidence_match_a_table_made_by_hand(tmp_path: Path, classes: int) -> None:
    """160 px, squashed. Column 3, row 2: centre 3.5, 1.5 of 10 cells, half as wide and a fifth as high as the whole."""
    maps = np.zeros((1, 5 + classes, 10, 10))
    maps[0, :6, 2, 3] = (0.9, np.arctanh(0.5), np.arctanh(-0.5), logit(0.5), logit(0.2), 0.8)
    path = write_constant(tmp_path / "a.onnx", [maps], (160, 160))
    assert_single(detect_people(path, "FastestDet"), (20, 5, 120, 25), 0.9**0.6 * 0.8**0.4)


@CLASSES
def test_yolov3_maps_in_any_order(tmp_path: Path, classes: int) -> None:
    """160 px, squashed. Stride 16, column 3, row 2, third anchor (59 x 119): centre 3.25, 2.5 cells, half as wide."""
    maps = {stride: np.full((1, 3, 5 + classes, 160 // stride, 160 // stride), -9.0) for stride in (8, 16, 32)}
    values = (logit(0.25), logit(0.5), np.log(0.5), 0, logit(0.95), logit(0.9))
    maps[16][0, 2, :6, 2, 3] = values
    outputs = [maps[stride].reshape(1, -1, 160 // stride, 160 // stride) for stride in (32, 16, 8)]
    x = 200 / 160
    y = 100 / 160
    box = ((52 - 14.75) * x, 0, (52 + 14.75) * x, (40 + 59.5) * y)
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        path = write_constant(tmp_path / "a.onnx", [outputs[i] for i in order], (160, 160))
        assert_single(detect_people(path, "YOLOv3, three raw maps"), box, 0.855)


@CLASSES
def test_yolov3_box_and_confidence_match_a_table_made_by_hand(tmp_path: Path, classes: int) -> None:
    """416 px, 10647 rows, letterboxed in the middle: 200 x 100 becomes 416 x 208 under 104 px of grey."""
    table = np.zeros((1, 10647, 5 + classes))
    table[0, :, :2] = 208
    table[0, 4000, :6] = (208, 208, 104, 52, 0.95, 0.9)
    path = write_constant(tmp_path / "a.onnx", [table], (416, 416))
    assert_single(detect_people(path, "YOLOv3, one table (YOLOv5 has the same)"), (75, 37.5, 125, 62.5), 0.855)


def test_yolov3_of_the_zoo(tmp_path: Path) -> None:
    """The graph knows the image's height and width, in that order, and gives boxes in its px, y first."""
    path = write_zoo(tmp_path / "a.onnx", (0.1, 0.2, 0.5, 0.6), 0.85)
    name = "YOLOv3 of the ONNX model zoo"
    assert_single(detect_people(path, name), (40, 10, 120, 50), 0.85)
    tall = Image.new("RGB", (50, 1000))
    assert_single(detect_people(path, name, tall), (10, 100, 30, 500), 0.85, atol=0.1)
    batch = load_detector(path).detect([tall, IMAGE, tall])
    assert [person.box.y2 for (person,) in batch] == pytest.approx([500, 50, 500], abs=0.1)


def test_yolov3_keeps_the_papers_settings(tmp_path: Path) -> None:
    for confidence, count in ((0.79, 0), (0.81, 1)):
        path = write_zoo(tmp_path / "a.onnx", (0.1, 0.2, 0.5, 0.6), confidence)
        assert len(load_detector(path).detect([IMAGE])[0]) == count
    assert load_detector(path).layout.nms_overlap == 0.4


def test_of_overlapping_boxes_the_most_confident_stays(tmp_path: Path) -> None:
    """Three boxes: the second overlaps the first by 0.6, the third touches neither."""
    table = np.zeros((1, 10647, 85))
    table[0, :, :2] = 208
    for row, (cx, confidence) in enumerate(((100, 0.9), (125, 0.95), (300, 0.85))):
        table[0, row, :6] = (cx, 208, 100, 50, confidence, 1)
    path = write_constant(tmp_path / "a.onnx", [table], (416, 416))
    people = load_detector(path).detect([IMAGE])[0]
    assert [person.confidence for person in people] == pytest.approx([0.95, 0.85])
    every = load_detector(path, DetectorConfig(nms_overlap=0.61)).detect([IMAGE])[0]
    assert [person.confidence for person in every] == pytest.approx([0.95, 0.9, 0.85])
    assert load_detector(path, DetectorConfig(nms_overlap=0.61, max_detections=2)).detect([IMAGE])[0] == every[:2]


@pytest.mark.parametrize("batch", ["n", 1, 3])
@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16"])
def test_batches_free_single_and_fixed(tmp_path: Path, batch: int | str, kind: str) -> None:
    path = write_constant(tmp_path / "a.onnx", [yolox_table(80, decoded=False)], (160, 160), batch=batch, kind=kind)
    detector = load_detector(path)
    images = [Image.new("RGB", (100 * (1 + i), 100)) for i in range(40)]  # more than a batch at once
    together = detector.detect(images)
    assert together == [detector.detect([image])[0] for image in images]
    assert len(together) == 40
    assert detector.detect([]) == []


def test_free_size_is_the_papers(tmp_path: Path) -> None:
    table = np.zeros((1, 10647, 85))
    table[0, :, :2] = 208
    detector = load_detector(write_constant(tmp_path / "a.onnx", [table], ("h", "w"), batch="n"))
    assert detector.layout.name.startswith("YOLOv3, one table")


def changed(table: NDArray[np.float64], columns: slice, value: float) -> NDArray[np.float64]:
    table = table.copy()
    table[..., columns] = value
    return table


YOLOX = yolox_table(80, decoded=False)
DECODED = yolox_table(80, decoded=True)


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ([YOLOX[..., :25]], "20 classes"),
        ([YOLOX[:, :-1]], "a cell is missing"),
        ([YOLOX, YOLOX], "two outputs"),
        ([changed(YOLOX, slice(5, 6), 3.0)], "classes are no probabilities"),
        ([changed(YOLOX, slice(4, 5), np.nan)], "not a number"),
        ([changed(DECODED, slice(4, 5), 1.0)], "YOLOv6"),
        ([changed(DECODED, slice(2, 4), -1.0)], "negative sizes"),
        ([changed(np.zeros((1, 3 * 525, 85)), slice(0, 2), 0.5)], "YOLOv3 in parts of the input"),
        ([np.zeros((1, 1000))], "a classifier"),
        ([np.zeros((1, 85, 10, 9))], "not FastestDet's map"),
        ([np.zeros((1, 255, 20, 20)), np.zeros((1, 255, 10, 10)), np.zeros((1, 255, 6, 6))], "not YOLOv3's maps"),
        ([np.zeros((1, 75, 20, 20)), np.zeros((1, 75, 10, 10)), np.zeros((1, 75, 5, 5))], "VOC's classes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_graphs_are_refused(tmp_path: Path, outputs: list[NDArray[np.float64]], why: str) -> None:
    del why
    path = write_constant(tmp_path / "odd.onnx", outputs, (160, 160))
    with pytest.raises(DetectorError, match=r"odd\.onnx: unknown layout: inputs images \[1, 3, 160, 160\]"):
        load_detector(path)


@pytest.mark.parametrize("size", [(8, 8), (100_000, 160), (160, 1)])
def test_odd_sizes_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_constant(tmp_path / "odd.onnx", [YOLOX], size)
    with pytest.raises(DetectorError, match=r"odd\.onnx: takes images of"):
        load_detector(path)


# Our own finder


def one_person() -> np.ndarray:
    """160 px: 20 x 20 cells. One person, 0.7 sure, in column 12, row 5, and a weaker cell beside the peak."""
    maps = np.full((1, 5, 20, 20), 1.0)
    maps[:, 0] = 0.01
    maps[0, :, 5, 12] = (0.7, 20, 12, 28, 36)
    maps[0, :, 5, 13] = (0.6, 20, 12, 28, 36)
    return maps


def test_finder_boxes_and_peaks() -> None:
    """The middle of column 12, row 5 is 100, 44 px; only the peak counts, and everything on a plateau does."""
    boxes, confidences = decode_centres_map([one_person().astype(np.float32)], (160, 160))
    assert boxes.shape == (1, 400, 4)
    assert confidences.shape == (1, 400)
    row = 5 * 20 + 12
    np.testing.assert_allclose(boxes[0, row], (100 - 20, 44 - 12, 100 + 28, 44 + 36))
    assert confidences[0, row] == pytest.approx(0.7)
    assert confidences[0, row + 1] == 0
    assert confidences[0, 0] == pytest.approx(0.01)


def test_finder_decodes_each_image_of_a_batch() -> None:
    maps = np.concatenate([one_person(), one_person()[..., ::-1, :]]).astype(np.float32)
    boxes, confidences = decode_centres_map([maps], (160, 160))
    assert confidences.argmax(axis=1).tolist() == [5 * 20 + 12, 14 * 20 + 12]
    np.testing.assert_allclose(boxes[1, 14 * 20 + 12], (80, 14 * STRIDE + 4 - 12, 128, 14 * STRIDE + 4 + 36))


def test_finder_file_is_recognised(tmp_path: Path) -> None:
    """The image of 200 x 100 px is squashed to 160 x 160."""
    detector = load_detector(write_constant(tmp_path / "a.onnx", [one_person()], (160, 160), batch="n"))
    assert detector.layout.name == "uniemox finder"  # type: ignore[attr-defined]
    wide, tall = detector.detect([Image.new("RGB", (200, 100)), Image.new("RGB", (40, 320))])
    (person,) = wide
    np.testing.assert_allclose(person.box, (80 * 1.25, 32 / 1.6, 128 * 1.25, 80 / 1.6), atol=1e-3)
    assert person.confidence == pytest.approx(0.7, abs=1e-4)
    np.testing.assert_allclose(tall[0].box, (80 / 4, 32 * 2, 128 / 4, 80 * 2), atol=1e-3)


def test_default_confidence_of_the_finder(tmp_path: Path) -> None:
    for confidence, people in ((0.49, 0), (0.51, 1)):
        maps = one_person()
        maps[0, 0, 5, 12:14] = confidence, 0
        detector = load_detector(write_constant(tmp_path / "a.onnx", [maps], (160, 160)))
        assert len(detector.detect([Image.new("RGB", (160, 160))])[0]) == people


@pytest.mark.parametrize("how", ["no probability", "no distance", "another stride", "six maps", "not a number"])
def test_other_maps_than_the_finders_are_refused(tmp_path: Path, how: str) -> None:
    maps = one_person()
    if how == "no probability":
        maps[0, 0, 0, 0] = 1.5
    elif how == "no distance":
        maps[0, 3, 0, 0] = 0
    elif how == "another stride":
        maps = maps[..., ::2]
    elif how == "six maps":
        maps = np.concatenate([maps, maps[:, :1]], axis=1)
    else:
        maps[0, 0, 0, 0] = np.nan
    with pytest.raises(DetectorError, match="unknown layout"):
        load_detector(write_constant(tmp_path / "odd.onnx", [maps], (160, 160)))
