"""YOLOv3 from Darknet's own files, .cfg and .weights, run by OpenCV: the person detector of the paper."""

import importlib
import struct
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from uniemox.errors import ConfigError, DetectorError, MissingPackageError
from uniemox.io.files import fingerprint_of, open_regular
from uniemox.persons.box import Detection, DetectorConfig, select
from uniemox.persons.fitting import Preparation, Size, fit_images
from uniemox.persons.layouts import CLASS_COUNTS, YOLOV3_CONFIDENCE, YOLOV3_NMS_OVERLAP, Array, corners

# UniEmoX's size, whatever the .cfg says.
SIZE: Size = (416, 416)
PREPARATION = Preparation(fit="squash", order="RGB", std=(255.0, 255.0, 255.0))
# OpenCV writes 0 for a lower confidence.
MIN_CONFIDENCE = 0.2
# Part of the fingerprint: increase it when code changes boxes.
REVISION = 1


class DarknetDetector:
    """Person detector from a Darknet network with [yolo] layers; see `load_detector`.

    Args:
        cfg: Description of the network.
        weights: Weights of the network.
        config: Thresholds.
        threads: Threads of OpenCV in this process; None: OpenCV's default.

    Raises:
        DetectorError: If OpenCV can't read or run the network, or its outputs have another form.
        ConfigError: If the minimum confidence is below OpenCV's own.
        MissingPackageError: Without OpenCV.
    """

    def __init__(self, cfg: Path, weights: Path, config: DetectorConfig, *, threads: int | None = None) -> None:
        self._cv2 = _import_opencv(cfg)
        self._lock = Lock()
        if threads is not None:
            # Applies to all of OpenCV in this process.
            self._cv2.setNumThreads(threads)
        self.name = cfg.name
        self._net = _read_network(self._cv2, cfg, weights)
        self._outputs = self._net.getUnconnectedOutLayersNames()
        self._cfg = cfg
        self._check_outputs(self._forward(np.full((1, 3, *SIZE), 0.5, dtype=np.float32)))
        self._thresholds = config.thresholds(YOLOV3_CONFIDENCE, YOLOV3_NMS_OVERLAP)
        if self._thresholds.confidence < MIN_CONFIDENCE:
            raise ConfigError(
                f"confidence is {config.confidence}, but OpenCV drops Darknet boxes below {MIN_CONFIDENCE}"
            )
        settings = " ".join(map(str, ("darknet", REVISION, SIZE, *self._thresholds)))
        self.fingerprint = fingerprint_of([cfg, weights], settings)

    def detect(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        """Detect people in upright RGB images of any size; boxes in px of each, clipped to it, most confident first."""
        return [self._detect(image) for image in images]

    def _detect(self, image: Image.Image) -> tuple[Detection, ...]:
        pixels, _ = fit_images([image], SIZE, PREPARATION)
        # A row has cx, cy, w, h in shares of the image, objectness, and classes that are already multiplied by it
        # (opencv/opencv, modules/dnn/src/layers/region_layer.cpp).
        rows = np.concatenate(self._forward(pixels))  # (M, 5 + classes)
        boxes = corners(rows[:, :2], rows[:, 2:4]) * np.array(image.size * 2)
        return select(boxes, rows[:, 5], image.size, self._thresholds)

    def _forward(self, pixels: Array) -> list[Array]:
        """Run the network on one image (1, 3, H, W) and return the outputs of its [yolo] layers."""
        try:
            # An OpenCV network can't run in two threads at once.
            with self._lock:
                self._net.setInput(pixels)
                return list(self._net.forward(self._outputs))
        except self._cv2.error as error:
            raise DetectorError(f"{self._cfg}: does not run on an image of 416 x 416 px ({error})") from error

    def _check_outputs(self, outputs: Sequence[Array]) -> None:
        columns = {output.shape[-1] for output in outputs}
        if any(output.ndim != 2 for output in outputs) or columns - {5 + classes for classes in CLASS_COUNTS}:
            raise DetectorError(
                f"{self._cfg}: its outputs are {[output.shape for output in outputs]}; expected [yolo] layers "
                "with COCO's 80 classes or persons alone: (boxes, 85) or (boxes, 6) each"
            )


def _import_opencv(cfg: Path) -> ModuleType:
    """Import OpenCV.

    Raises:
        MissingPackageError: If it is not installed.
        DetectorError: If its version no longer reads Darknet's files.
    """
    try:
        cv2 = importlib.import_module("cv2")  # an extra
    except ImportError as error:
        raise MissingPackageError(f"{cfg}: Darknet's own files need OpenCV: pip install 'uniemox[darknet]'") from error
    if not hasattr(cv2.dnn, "readNetFromDarknet"):
        raise DetectorError(
            f"{cfg}: OpenCV {cv2.__version__} can't read Darknet's files any more; pip install 'uniemox[darknet]' "
            "brings version 4, or use YOLOv3 as .onnx"
        )
    return cv2


def _read_network(cv2: Any, cfg: Path, weights: Path) -> Any:
    """Read the network.

    Raises:
        DetectorError: If OpenCV can't read the files, or the weights have the wrong length.
    """
    try:
        net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
        layers = [net.getLayer(name) for name in net.getLayerNames()]
    except cv2.error as error:
        raise DetectorError(f"{cfg} with {weights}: OpenCV can't read them ({error})") from error
    # OpenCV accepts a .weights of the wrong length without an error. Region layers are left out: their numbers are the
    # anchors of the .cfg.
    numbers = sum(blob.size for layer in layers if layer.type != "Region" for blob in layer.blobs)
    expected = _header_bytes(weights) + 4 * numbers
    if weights.stat().st_size != expected:
        raise DetectorError(
            f"{weights}: {weights.stat().st_size} bytes, but {cfg} needs {expected}; "
            "the file is cut off or belongs to another .cfg"
        )
    return net


def _header_bytes(weights: Path) -> int:
    """Return the size of the header of a .weights file: 16 or 20 bytes.

    It has three 32-bit ints of the version, and a count of images, with 64 bits since version 0.2 (Darknet's parser.c).

    Raises:
        DetectorError: If the file is shorter than a header.
    """
    with open_regular(weights) as file:
        header = file.read(8)
    if len(header) < 8:
        raise DetectorError(f"{weights}: {len(header)} bytes are not Darknet weights; download it again")
    major, minor = struct.unpack("<2i", header)
    if major * 10 + minor >= 2 and major < 1000 and minor < 1000:
        return 20
    return 16
