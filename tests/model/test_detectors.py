"""YOLOX-nano and YuNet in torch equal onnxruntime on the published files; other files are errors."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from tests.model.detector_files import same_weights, write_detector
from uniemox.checkpoints.detector_weights import load_detector_weights
from uniemox.errors import CheckpointError
from uniemox.model.detectors import YoloxNano, YuNet
from uniemox.persons.layouts import decode_yolox, decode_yunet

SIDE = 416


@pytest.fixture(scope="module")
def photograph(shared: Path) -> torch.Tensor:
    """(1, 3, 416, 416), RGB, 0 to 255, with people in it."""
    file = sorted((shared / "data" / "coco_persons").rglob("*.jpg"))[3]
    image = Image.open(file).convert("RGB").resize((SIDE, SIDE))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()


def test_yolox_equals_the_published_file(shared: Path, photograph: torch.Tensor) -> None:
    file = shared / "models" / "yolox_nano.onnx"
    candidates = load_detector_weights(YoloxNano(), file)(photograph)
    raw = onnxruntime.InferenceSession(file).run(None, {"images": photograph.flip(1).numpy()})
    boxes, people = decode_yolox(raw, (SIDE, SIDE))
    np.testing.assert_allclose(candidates.boxes.numpy() * SIDE, boxes, atol=0.05)
    np.testing.assert_allclose(candidates.classes[..., 0].numpy(), people, atol=1e-5)
    np.testing.assert_allclose(
        candidates.confidence.numpy(), (raw[0][..., 4:5] * raw[0][..., 5:]).max(axis=2), atol=1e-5
    )
    assert candidates.confidence.max() > 0.5


def test_yunet_equals_the_published_file(shared: Path, photograph: torch.Tensor) -> None:
    file = shared / "models" / "yunet_n.onnx"
    candidates = load_detector_weights(YuNet(), file)(photograph)
    raw = onnxruntime.InferenceSession(file).run(None, {"input": photograph.flip(1).numpy()})
    boxes, faces = decode_yunet(raw, (SIDE, SIDE))
    np.testing.assert_allclose(candidates.boxes.numpy() * SIDE, boxes, atol=0.05)
    np.testing.assert_allclose(candidates.confidence.numpy() ** 2, faces**2, atol=1e-5)


@pytest.mark.parametrize("kind", [YoloxNano, YuNet])
def test_a_written_file_is_loaded_with_the_same_weights(kind: type[YoloxNano | YuNet], tmp_path: Path) -> None:
    written = write_detector(kind(), tmp_path / "detector.onnx")
    loaded = load_detector_weights(kind(), tmp_path / "detector.onnx")
    assert same_weights(loaded, written)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_other_files_are_refused(tmp_path: Path) -> None:
    write_detector(YuNet(), tmp_path / "yunet.onnx")
    with pytest.raises(CheckpointError, match="is another network, of 59 convolutions; expected YOLOX-nano"):
        load_detector_weights(YoloxNano(), tmp_path / "yunet.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    for name in ("broken.onnx", "missing.onnx"):
        with pytest.raises(CheckpointError, match=rf"{name} can't be read .*; expected YuNet-n"):
            load_detector_weights(YuNet(), tmp_path / name)
