"""Person detectors in ONNX files, run by onnxruntime."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uniemox.errors import DetectorError
from uniemox.io.files import fingerprint_of
from uniemox.io.onnx_external import weights_beside
from uniemox.io.onnx_sessions import RUNTIME_ERRORS, InferenceSession, Session
from uniemox.persons.box import Detection, DetectorConfig, select
from uniemox.persons.fitting import Size, fit_images
from uniemox.persons.layouts import LAYOUTS, Array

FREE_SIZE_PX = 416  # for inputs of any size, until their layout is known
MAX_SIZE_PX = 4096
REVISION = 1  # increase it when code changes boxes: it is part of every fingerprint
MAX_CONCURRENT = 32  # maximum images per batch, to limit memory
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32}


class OnnxDetector:
    """Person detector from an ONNX file of a known layout; see `load_detector`."""

    def __init__(
        self, path: Path, config: DetectorConfig, *, threads: int | None = None, provider: str = "cpu"
    ) -> None:
        self.name = path.name
        others = weights_beside(path, DetectorError)
        self._session = _start(path, threads, provider)
        self._size = _input_size(path, self._session.wide)
        self._inputs = {one.name: _TYPES[one.type] for one in self._session.wide.get_inputs()}
        self._batch, outputs = self._try_out(path)
        layouts = (one for one in LAYOUTS if one.takes_size == (len(self._inputs) == 2))
        layout = next((one for one in layouts if one.matches(self._size, outputs)), None)
        if layout is None:
            raise DetectorError(f"{path}: {_describe(self._session.wide, outputs)}. {_known()}")
        self.layout = layout
        self._size = _input_size(path, self._session.wide, layout.free_size_px)
        if layout.takes_size:
            self._batch = 1  # the zoo's graph scales all boxes by the first image's size
        self._thresholds = config.thresholds(layout.confidence, layout.nms_overlap)
        settings = " ".join(map(str, (layout.name, REVISION, self._size, *self._thresholds)))
        self.fingerprint = fingerprint_of([path, *others], settings)

    def detect(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        """Detect people in upright RGB images of any size; boxes in px of each, clipped to it, most confident first."""
        step = self._batch or MAX_CONCURRENT
        return [boxes for i in range(0, len(images), step) for boxes in self._detect_batch(images[i : i + step])]

    def _detect_batch(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        pixels, placements = fit_images(images, self._size, self.layout.preparation)
        missing = (self._batch or len(images)) - len(images)
        pixels = np.concatenate([pixels, pixels[:1].repeat(missing, axis=0)])  # the graph's own batch, filled up
        outputs = self._run(pixels, (images[0].height, images[0].width))
        boxes, confidences = self.layout.decode(outputs, self._size)
        detections = []
        for image, placement, of_one, heat in zip(images, placements, boxes, confidences, strict=False):
            if self.layout.takes_size:
                placed = of_one
            else:
                placed = placement.back(of_one)
            detections.append(select(placed, heat, image.size, self._thresholds))
        return detections

    def _run(self, pixels: Array, image: Size) -> list[Array]:
        """Return outputs for a batch (N, 3, H, W), as float32.  image: height and width before resizing."""
        values: list[Any] = [pixels, np.array([image])]
        feed = {name: value.astype(kind) for (name, kind), value in zip(self._inputs.items(), values, strict=False)}
        return [np.asarray(output, dtype=np.float32) for output in self._session.run(None, feed)]

    def _run_grey(self, path: Path, batch: int) -> list[Array]:
        grey = np.full((batch, 3, *self._size), 0.5, dtype=np.float32)
        try:
            return self._run(grey, self._size)
        except RUNTIME_ERRORS as error:
            raise DetectorError(f"{path}: does not run on an image ({error}). {_known()}") from error

    def _try_out(self, path: Path) -> tuple[int | None, list[Array]]:
        """Return images per run (the graph's own number, or None for any; 1 if two fail), and outputs for grey ones."""
        batch = self._session.wide.get_inputs()[0].shape[0]
        if not isinstance(batch, int):
            batch = 1
            with suppress(DetectorError):
                outputs = self._run_grey(path, 2)
                if all(len(output) == 2 for output in outputs):
                    return None, outputs
        return batch, self._run_grey(path, batch)


def _start(path: Path, threads: int | None, provider: str) -> Session:
    try:
        return Session(path, threads=threads, provider=provider)
    except RUNTIME_ERRORS as error:
        raise DetectorError(f"{path}: onnxruntime can't read it ({error}); export or download it again") from error


def _input_size(path: Path, session: InferenceSession, free_size_px: int = FREE_SIZE_PX) -> Size:
    """Return height and width of the input; free_size_px if it accepts any."""
    inputs = session.get_inputs()
    shapes = [one.shape for one in inputs]
    images_first = (
        len(shapes) in (1, 2) and len(shapes[0]) == 4 and (shapes[0][1] == 3 or not isinstance(shapes[0][1], int))
    )
    if not images_first or any(one.type not in _TYPES for one in inputs) or (shapes[1:] and len(shapes[1]) != 2):
        raise DetectorError(f"{path}: {_describe(session, None)}. {_known()}")
    height, width = (side if isinstance(side, int) else free_size_px for side in shapes[0][2:])
    if not (32 <= height <= MAX_SIZE_PX and 32 <= width <= MAX_SIZE_PX):
        raise DetectorError(f"{path}: takes images of {width} x {height} px; expected 32 to {MAX_SIZE_PX}")
    return height, width


def _describe(session: InferenceSession, outputs: Sequence[Array] | None) -> str:
    inputs = ", ".join(f"{one.name} {one.shape} {one.type}" for one in session.get_inputs())
    if outputs is None:
        shapes = ", ".join(f"{one.name} {one.shape}" for one in session.get_outputs())
    else:
        pairs = zip(session.get_outputs(), outputs, strict=True)
        shapes = ", ".join(f"{one.name} {list(values.shape)}" for one, values in pairs)
    return f"unknown layout: inputs {inputs}; outputs {shapes}"


def _known() -> str:
    rows = "; ".join(f"{layout.name}: {layout.outputs}" for layout in LAYOUTS)
    return f"Expected images [N, 3, H, W], COCO's 80 classes or persons alone, classes as probabilities: {rows}"
