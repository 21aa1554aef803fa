"""Darknet's own files, on a small network with random weights that the tests write; real weights were not at hand."""

import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from uniemox.errors import ConfigError, DetectorError, MissingPackageError
from uniemox.persons.box import Box, suppress
from uniemox.persons.darknet import MIN_CONFIDENCE, PREPARATION, SIZE
from uniemox.persons.detector import DetectorConfig, load_detector
from uniemox.persons.fitting import fit_images

ANCHORS = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
CLASSES = 80
CHANNELS = 3 * (5 + CLASSES)
SHAPES = {  # in the order of the file: Darknet writes biases before weights
    "shift": (4,),
    "scale": (4,),
    "mean": (4,),
    "variance": (4,),
    "first": (4, 3, 3, 3),
    "fine_bias": (CHANNELS,),
    "fine": (CHANNELS, 4),
    "coarse_bias": (CHANNELS,),
    "coarse": (CHANNELS, 4),
}
HEAD = (
    "[convolutional]\nsize=1\nstride=1\npad=1\nfilters={channels}\nactivation=linear\n[yolo]\nmask={mask}\n{anchors}\n"
)


def cfg_text(width: int = 416, classes: int = CLASSES) -> str:
    anchors = f"anchors={', '.join(f'{w},{h}' for w, h in ANCHORS)}\nclasses={classes}\nnum=9"
    channels = 3 * (5 + classes)
    return (
        f"[net]\nwidth={width}\nheight={width}\nchannels=3\n"
        "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
        "[maxpool]\nsize=8\nstride=8\n"
        + HEAD.format(channels=channels, mask="3,4,5", anchors=anchors)
        + "[route]\nlayers=1\n[maxpool]\nsize=2\nstride=2\n"
        + HEAD.format(channels=channels, mask="6,7,8", anchors=anchors)
    )


def random_weights() -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    weights["variance"] = weights["variance"] ** 2 + 0.5
    for name in ("fine", "coarse"):
        weights[name] *= 0.5
        weights[f"{name}_bias"].reshape(3, -1)[:, 4:6] += 1.5  # some certain people
    return weights


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A .cfg of seven layers, two of them [yolo], with its .weights beside it."""
    pytest.importorskip("cv2", reason="needs OpenCV: pip install 'uniemox[darknet]'")
    (tmp_path / "small.cfg").write_text(cfg_text())
    numbers = np.concatenate([value.ravel() for value in random_weights().values()])
    (tmp_path / "small.weights").write_bytes(struct.pack("<3iq", 0, 2, 0, 0) + numbers.astype("<f4").tobytes())
    return tmp_path / "small.cfg"


def sigmoid(x: NDArray[np.floating]) -> NDArray[np.floating]:
    return 1 / (1 + np.exp(-x))


def rows_by_hand(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same network in numpy, after the paper (arXiv 1804.02767): cx, cy, w, h relative, objectness, classes."""
    w = {name: value.astype(np.float64) for name, value in random_weights().items()}
    padded = np.pad(pixels[0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]  # (3, 208, 208, 3, 3)
    x = np.einsum("chwij,ocij->ohw", windows, w["first"])
    each = (slice(None), None, None)
    x = (x - w["mean"][each]) / np.sqrt(w["variance"][each] + 1e-6) * w["scale"][each] + w["shift"][each]
    x = np.where(x > 0, x, 0.1 * x)
    x = np.pad(x, ((0, 0), (3, 4), (3, 4)), constant_values=-np.inf)  # Darknet's pooling pads by 8 - 1, half in front
    fine = sliding_window_view(x, (8, 8), axis=(1, 2))[:, ::8, ::8].max(axis=(3, 4))  # (4, 26, 26)
    coarse = fine.reshape(4, 13, 2, 13, 2).max(axis=(2, 4))
    rows = []
    for maps, name, anchors in ((fine, "fine", ANCHORS[3:6]), (coarse, "coarse", ANCHORS[6:9])):
        raw = np.einsum("chw,oc->hwo", maps, w[name]) + w[f"{name}_bias"]
        side = len(raw)
        for row in range(side):
            for column in range(side):
                for anchor, (anchor_w, anchor_h) in enumerate(anchors):
                    t = raw[row, column, anchor * (5 + CLASSES) : (anchor + 1) * (5 + CLASSES)]
                    cx = (column + sigmoid(t[0])) / side
                    cy = (row + sigmoid(t[1])) / side
                    box = (cx, cy, anchor_w * np.exp(t[2]) / 416, anchor_h * np.exp(t[3]) / 416)
                    objectness = sigmoid(t[4])
                    rows.append((*box, objectness, *(objectness * sigmoid(t[5:]))))
    return np.array(rows)


def scene(width: int = 500, height: int = 300) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


def is_visible(box: NDArray[np.float64]) -> bool:
    inside = box.clip(0, (500, 300, 500, 300))
    return bool((inside[2:] - inside[:2] >= 1).all())


def test_outputs_equal_the_same_network_in_numpy(network: Path) -> None:
    """OpenCV's rows against an independent computation, 1e-4: boxes relative, classes times objectness."""
    detector = load_detector(network)
    pixels, _ = fit_images([scene()], SIZE, PREPARATION)
    rows = np.concatenate(detector._forward(pixels))
    expected = rows_by_hand(pixels)
    np.testing.assert_allclose(rows[:, :5], expected[:, :5], rtol=1e-4, atol=1e-4)
    # OpenCV writes 0 for a low confidence.
    is_confident = rows[:, 5:] > 0
    np.testing.assert_allclose(rows[:, 5:][is_confident], expected[:, 5:][is_confident], rtol=1e-4, atol=1e-4)
    assert expected[:, 5:][~is_confident].max() < MIN_CONFIDENCE + 1e-4
    assert is_confident.any()


@pytest.mark.parametrize("confidence", [0.8, 0.6])
def test_people_equal_those_of_numpy(network: Path, confidence: float) -> None:
    detector = load_detector(network, DetectorConfig(confidence=confidence, max_detections=1000))
    image = scene()
    pixels, _ = fit_images([image], SIZE, PREPARATION)
    rows = rows_by_hand(pixels)
    rows = rows[rows[:, 5] >= confidence]
    centres = rows[:, :2] * (500, 300)
    halves = rows[:, 2:4] * (250, 150)
    boxes = np.concatenate([centres - halves, centres + halves], axis=1)
    expected = [row for row in suppress(boxes, rows[:, 5], 0.4) if is_visible(boxes[row])]
    (people,) = detector.detect([image])
    assert len(people) == len(expected) > 0
    for person, row in zip(people, expected, strict=True):
        clipped = boxes[row].clip(0, (500, 300, 500, 300))
        np.testing.assert_allclose(person.box, clipped, atol=0.1)
        assert person.confidence == pytest.approx(rows[row, 5], abs=1e-4)


def test_the_papers_settings_are_the_defaults(network: Path) -> None:
    default = load_detector(network)
    explicit = load_detector(network, DetectorConfig(confidence=0.8, nms_overlap=0.4))
    assert default.fingerprint == explicit.fingerprint
    assert load_detector(network, DetectorConfig(confidence=0.5)).fingerprint != default.fingerprint
    assert all(person.confidence >= 0.8 for people in default.detect([scene()]) for person in people)


def test_pair_of_files_and_cfg_alone_open_the_same_detector(network: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other.bin"
    elsewhere.write_bytes(network.with_suffix(".weights").read_bytes())
    pair = load_detector(f"{network}+{elsewhere}")
    assert (pair.name, pair.fingerprint) == ("small.cfg", load_detector(network).fingerprint)
    network.with_suffix(".weights").unlink()
    with pytest.raises(DetectorError, match=r"small\.weights: no such file"):
        load_detector(network)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (3000, 20), (2, 2)])
def test_images_of_odd_sizes(network: Path, size: tuple[int, int]) -> None:
    for people in load_detector(network, DetectorConfig(confidence=0.2)).detect([Image.new("RGB", size), scene()]):
        assert all(isinstance(person.box, Box) for person in people)
    assert load_detector(network).detect([]) == []


@pytest.mark.parametrize("change", [-4, -1000, 4])
def test_weights_of_another_length_are_refused(network: Path, change: int) -> None:
    weights = network.with_suffix(".weights")
    content = weights.read_bytes()
    weights.write_bytes(content[:change] if change < 0 else content + bytes(change))
    with pytest.raises(DetectorError, match="cut off or belongs to another"):
        load_detector(network)


@pytest.mark.parametrize("content", [b"", b"1234"])
def test_empty_weights_are_refused(network: Path, content: bytes) -> None:
    network.with_suffix(".weights").write_bytes(content)
    with pytest.raises(DetectorError, match=r"small\.(cfg|weights)"):
        load_detector(network)


@pytest.mark.parametrize("text", ["", "nonsense", "[net]\nwidth=416\n", "[convolutional]\nfilters=4\n", "[yolo]\n"])
def test_broken_cfg_is_refused(network: Path, text: str) -> None:
    network.write_text(text)
    with pytest.raises(DetectorError, match=r"small\.cfg"):
        load_detector(network)


def test_confidence_below_opencvs_limit_is_refused(network: Path) -> None:
    with pytest.raises(ConfigError, match=r"drops Darknet boxes below 0\.2"):
        load_detector(network, DetectorConfig(confidence=0.1))


def test_other_classes_are_refused(network: Path) -> None:
    network.write_text(cfg_text(classes=3))
    numbers = 16 + 108 + 2 * (24 + 24 * 4)
    network.with_suffix(".weights").write_bytes(struct.pack("<3iq", 0, 2, 0, 0) + bytes(4 * numbers))
    with pytest.raises(DetectorError, match="80 classes or persons alone"):
        load_detector(network)


def test_missing_opencv_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.cfg", "a.weights"):
        (tmp_path / name).write_text("[net]")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'uniemox\[darknet\]'"):
        load_detector(tmp_path / "a.cfg")


def test_opencv_5_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.cfg", "a.weights"):
        (tmp_path / name).write_text("[net]")
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(dnn=SimpleNamespace(), __version__="5.0.0"))
    with pytest.raises(DetectorError, match=r"OpenCV 5\.0\.0 can't read Darknet's files"):
        load_detector(tmp_path / "a.cfg")
