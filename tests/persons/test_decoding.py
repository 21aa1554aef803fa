"""Whatever a network says: boxes inside the image, sorted, suppressed; and suppression against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from uniemox.persons.box import Thresholds, select, suppress
from uniemox.persons.fitting import Placement
from uniemox.persons.layouts import LAYOUTS

SIZE = (96, 64)
CELLS = 12 * 8 + 6 * 4 + 3 * 2
SHAPES = {
    "YOLOX": [(CELLS, 85)],
    "YOLOX, decoded in the graph": [(CELLS, 6)],
    "NanoDet-Plus": [(CELLS + 2, 112)],
    "NanoDet": [(CELLS, 33)],
    "FastestDet": [(85, 6, 4)],
    "YOLOv3, three raw maps": [(255, 3, 2), (255, 12, 8), (255, 6, 4)],
    "YOLOv3, one table (YOLOv5 has the same)": [(3 * CELLS, 85)],
    "YOLOv3 of the ONNX model zoo": [(70, 4), (80, 70), (3,)],
    "YuNet (faces)": [(n, k) for n in (96, 24, 6) for k in (1, 1, 4, 10)],
    "uniemox finder": [(5, 12, 8)],
}
SPREADS = st.sampled_from([0.0, 1.0, 30.0, 1e4, 1e30])


def random_outputs(name: str, seed: int, spread: float, holes: float) -> list[NDArray[np.float32]]:
    """Two images' outputs, normally distributed, some of them infinite or not a number."""
    generator = np.random.default_rng(seed)
    outputs = []
    for shape in SHAPES[name]:
        values = (generator.normal(size=(2, *shape)) * spread).astype(np.float32)
        values[generator.random(values.shape) < holes] = generator.choice([np.nan, np.inf, -np.inf])
        outputs.append(values)
    return outputs


@pytest.mark.thorough
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@given(seed=st.integers(0, 2**32 - 1), spread=SPREADS, holes=st.sampled_from([0.0, 0.01, 1.0]))
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
def test_any_output_gives_boxes_inside_sorted(layout, seed: int, spread: float, holes: float) -> None:
    boxes, confidences = layout.decode(random_outputs(layout.name, seed, spread, holes), SIZE)
    assert boxes.shape == (2, confidences.shape[1], 4)
    placed = Placement(0.4, 0.5, 3, -2).back(boxes[1])
    detections = select(placed, confidences[1], (160, 90), Thresholds(0.2, 0.5, 7))
    assert len(detections) <= 7
    for box, confidence in detections:
        assert 0 <= box.x1 < box.x2 <= 160
        assert 0 <= box.y1 < box.y2 <= 90
        assert 0.2 <= confidence <= 1
    assert [detection.confidence for detection in detections] == sorted(
        (detection.confidence for detection in detections), reverse=True
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_images_of_a_batch_do_not_affect_each_other(layout) -> None:
    outputs = random_outputs(layout.name, 0, 1.0, 0.0)
    together = layout.decode(outputs, SIZE)
    for i in range(2):
        alone = layout.decode([output[i : i + 1] for output in outputs], SIZE)
        for single, batch in zip(alone, together, strict=True):
            np.testing.assert_allclose(single[0], batch[i], rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_suppression_is_greedy(seed: int, count: int, threshold: float) -> None:
    """Against the definition, box by box: kept is what overlaps no more confident kept box by more."""
    generator = np.random.default_rng(seed)
    corner = generator.integers(0, 10, (count, 2))
    boxes = np.concatenate([corner, corner + generator.integers(0, 8, (count, 2))], axis=1).astype(float)
    confidences = generator.choice([0.1, 0.2, 0.3, 0.4, 0.5], count)  # with ties
    rows: list[int] = []
    for i in sorted(range(count), key=lambda i: -confidences[i]):
        if all(overlap_of(boxes[i], boxes[j]) <= threshold for j in rows):
            rows.append(i)
    assert suppress(boxes, confidences, threshold) == rows


def overlap_of(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Intersection over union, counting whole px: the boxes' corners are integers."""
    pixels = [{(x, y) for x in range(int(r[0]), int(r[2])) for y in range(int(r[1]), int(r[3]))} for r in (a, b)]
    return len(pixels[0] & pixels[1]) / max(len(pixels[0] | pixels[1]), 1)


def test_selection_drops_boxes_outside_of_the_image() -> None:
    boxes = np.array([[-5, 10, 20, 30], [200, 0, 300, 40], [5, 5, 5.5, 50], [np.nan, 0, 9, 9], [40, 0, 90, 90]])
    detections = select(boxes, np.array([0.5, 0.9, 0.9, 0.9, 0.8]), (100, 50), Thresholds(0.5, 0.5, 9))
    assert detections == (((40, 0, 90, 50), 0.8), ((0, 10, 20, 30), 0.5))
    assert select(boxes, np.full(5, np.nan), (100, 50), Thresholds(0.0, 0.5, 9)) == ()


def test_the_most_confident_candidates_are_compared() -> None:
    """Of 1,001 people side by side, the least certain is not among the 1,000."""
    x1 = np.arange(1001.0)
    boxes = np.stack([x1, 0 * x1, x1 + 1, 0 * x1 + 1], axis=1)
    confidences = np.linspace(0.5, 0.9, len(x1))
    detections = select(boxes, confidences, (len(x1), 1), Thresholds(0.1, 0.5, 2000))
    assert [detection.box.x1 for detection in detections] == x1[:0:-1].tolist()
