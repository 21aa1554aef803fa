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

SIZE: Size = (416, 416)  # UniEmoX's size, not the .cfg's
PREPARATION = Preparation(fit="squash", order="RGB", std=(255.0, 255.0, 255.0))
MIN_CONFIDENCE = 0.2  # OpenCV writes 0 below it
REVISION = 1  # increase it when code changes boxes


class DarknetDetector:
    """Person detector from a Darknet network with [yolo] layers; see `load_detector`."""

    def __init__(self, cfg: Path, weights: Path, config: DetectorConfig, *, threads: int | None = None) -> None:
        self._cv2 = _opencv(cfg)
        self._lock = Lock()
        if threads is not None:
            self._cv2.setNumThreads(threads)  # for all of OpenCV in this process
        self.name = cfg.name
        self._net = _read(self._cv2, cfg, weights)
        self._outputs = self._net.getUnconnectedOutLayersNames()
        self._cfg = cfg
        self._check(self._forward(np.full((1, 3, *SIZE), 0.5, dtype=np.float32)))
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
        """Run the network on one image (1, 3, H, W); returns outputs of the [yolo] layers."""
        try:
            with self._lock:  # an OpenCV network can't run in two threads at once
                self._net.setInput(pixels)
                return list(self._net.forward(self._outputs))
        except self._cv2.error as error:
            raise DetectorError(f"{self._cfg}: does not run on an image of 416 x 416 px ({error})") from error

    def _check(self, outputs: Sequence[Array]) -> None:
        columns = {output.shape[-1] for output in outputs}
        if any(output.ndim != 2 for output in outputs) or columns - {5 + classes for classes in CLASS_COUNTS}:
            raise DetectorError(
                f"{self._cfg}: its outputs are {[output.shape for output in outputs]}; expected [yolo] layers "
                "with COCO's 80 classes or persons alone: (boxes, 85) or (boxes, 6) each"
            )


def _opencv(cfg: Path) -> ModuleType:
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


def _read(cv2: Any, cfg: Path, weights: Path) -> Any:
    """Read the network. OpenCV accepts a .weights of the wrong length without an error, so its size is checked."""
    try:
        net = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
        layers = [net.getLayer(name) for name in net.getLayerNames()]
    except cv2.error as error:
        raise DetectorError(f"{cfg} with {weights}: OpenCV can't read them ({error})") from error
    numbers = sum(blob.size for layer in layers if layer.type != "Region" for blob in layer.blobs)
    expected = _header_bytes(weights) + 4 * numbers  # the numbers of Region layers are the anchors in the .cfg
    if weights.stat().st_size != expected:
        raise DetectorError(
            f"{weights}: {weights.stat().st_size} bytes, but {cfg} needs {expected}; "
            "the file is cut off or belongs to another .cfg"
        )
    return net


def _header_bytes(weights: Path) -> int:
    """Return the header's size: three ints of the version, and an image count, 64 bits since 0.2 (parser.c)."""
    with open_regular(weights) as file:
        header = file.read(8)
    if len(header) < 8:
        raise DetectorError(f"{weights}: {len(header)} bytes are not Darknet weights; download it again")
    major, minor = struct.unpack("<2i", header)
    if major * 10 + minor >= 2 and major < 1000 and minor < 1000:
        return 20
    return 16
