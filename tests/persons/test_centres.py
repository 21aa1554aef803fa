"""Our own finder's output, against a plain loop, and as a file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.persons.graphs import write_constant
from uniemox.errors import DetectorError
from uniemox.persons.detector import load_detector
from uniemox.persons.layouts import STRIDE, decode_centres_map


def one_person() -> np.ndarray:
    """160 px: 20 x 20 cells. One person, 0.7 sure, in column 12, row 5, and a weaker cell beside the peak."""
    maps = np.full((1, 5, 20, 20), 1.0)
    maps[:, 0] = 0.01
    maps[0, :, 5, 12] = (0.7, 20, 12, 28, 36)
    maps[0, :, 5, 13] = (0.6, 20, 12, 28, 36)
    return maps


def test_boxes_and_peaks() -> None:
    """The middle of column 12, row 5 is 100, 44 px; only the peak counts, and everything on a plateau does."""
    boxes, confidences = decode_centres_map([one_person().astype(np.float32)], (160, 160))
    assert boxes.shape == (1, 400, 4)
    assert confidences.shape == (1, 400)
    row = 5 * 20 + 12
    np.testing.assert_allclose(boxes[0, row], (100 - 20, 44 - 12, 100 + 28, 44 + 36))
    assert confidences[0, row] == pytest.approx(0.7)
    assert confidences[0, row + 1] == 0
    assert confidences[0, 0] == pytest.approx(0.01)


def test_every_image_of_a_batch_is_its_own() -> None:
    maps = np.concatenate([one_person(), one_person()[..., ::-1, :]]).astype(np.float32)
    boxes, confidences = decode_centres_map([maps], (160, 160))
    assert confidences.argmax(axis=1).tolist() == [5 * 20 + 12, 14 * 20 + 12]
    np.testing.assert_allclose(boxes[1, 14 * 20 + 12], (80, 14 * STRIDE + 4 - 12, 128, 14 * STRIDE + 4 + 36))


def test_a_file_is_recognised(tmp_path: Path) -> None:
    """The image of 200 x 100 px is squashed to 160 x 160."""
    detector = load_detector(write_constant(tmp_path / "a.onnx", [one_person()], (160, 160), batch="n"))
    assert detector.layout.name == "uniemox finder"  # type: ignore[attr-defined]
    wide, tall = detector.detect([Image.new("RGB", (200, 100)), Image.new("RGB", (40, 320))])
    (one,) = wide
    np.testing.assert_allclose(one.box, (80 * 1.25, 32 / 1.6, 128 * 1.25, 80 / 1.6), atol=1e-3)
    assert one.confidence == pytest.approx(0.7, abs=1e-4)
    np.testing.assert_allclose(tall[0].box, (80 / 4, 32 * 2, 128 / 4, 80 * 2), atol=1e-3)


def test_its_least_confidence(tmp_path: Path) -> None:
    for confidence, people in ((0.49, 0), (0.51, 1)):
        maps = one_person()
        maps[0, 0, 5, 12:14] = confidence, 0
        detector = load_detector(write_constant(tmp_path / "a.onnx", [maps], (160, 160)))
        assert len(detector.detect([Image.new("RGB", (160, 160))])[0]) == people


@pytest.mark.parametrize("how", ["no probability", "no distance", "another stride", "six maps", "not a number"])
def test_other_maps_are_refused(tmp_path: Path, how: str) -> None:
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
    with pytest.raises(DetectorError, match="not a layout that is known"):
        load_detector(write_constant(tmp_path / "odd.onnx", [maps], (160, 160)))
