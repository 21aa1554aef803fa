"""Person detectors in ONNX files, run by onnxruntime."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uniemox.errors import DetectorError
from uniemox.io.files import fingerprint_of
from uniemox.io.onnx_external import refuse_external_files
from uniemox.io.onnx_sessions import RUNTIME_ERRORS, InferenceSession, Session
from uniemox.persons.box import Detection, DetectorConfig, select
from uniemox.persons.fitting import Size, fit_image, fit_images
from uniemox.persons.layouts import LAYOUTS, Array

# Side of the first input to a graph that accepts any size, until its layout is known.
FREE_SIZE_PX = 416
MAX_SIZE_PX = 4096
# Part of the fingerprint: increase it when code changes boxes.
REVISION = 1
# Maximum number of images per batch, to limit memory.
MAX_CONCURRENT = 32
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32}


class OnnxDetector:
    """Person detector from an ONNX file of a known layout; see `load_detector`."""

    def __init__(
        self, path: Path, config: DetectorConfig, *, threads: int | None = None, provider: str = "cpu"
    ) -> None:
        self.name = path.name
        refuse_external_files(path, DetectorError)
        self._session = _start_session(path, threads, provider)
        self._size = _input_size(path, self._session.wide)
        self._inputs = {node.name: _TYPES[node.type] for node in self._session.wide.get_inputs()}
        self._batch, outputs = self._try_out(path)
        has_size_input = len(self._inputs) == 2
        candidates = (layout for layout in LAYOUTS if layout.takes_size == has_size_input)
        layout = next((layout for layout in candidates if layout.matches(self._size, outputs)), None)
        if layout is None:
            raise DetectorError(f"{path}: {_describe(self._session.wide, outputs)}. {_known_layouts()}")
        self.layout = layout
        self._size = _input_size(path, self._session.wide, layout.free_size_px)
        if layout.takes_size:
            # The zoo's graph scales all boxes by the first image's size.
            self._batch = 1
        self._thresholds = config.thresholds(layout.confidence, layout.nms_overlap)
        settings = " ".join(map(str, (layout.name, REVISION, self._size, *self._thresholds)))
        self.fingerprint = fingerprint_of([path], settings)

    def detect(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        """Detect people in upright RGB images of any size; boxes in px of each, clipped to it, most confident first."""
        step = self._batch or MAX_CONCURRENT
        return [boxes for i in range(0, len(images), step) for boxes in self._detect_batch(images[i : i + step])]

    def squash(self, image: Image.Image) -> Image.Image:
        """Return an image in the size in which the network reads it; unchanged if the network does not squash it."""
        if self.layout.preparation.fit != "squash":
            return image
        squashed, _ = fit_image(image, self._size, self.layout.preparation)
        return squashed

    def _detect_batch(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        pixels, placements = fit_images(images, self._size, self.layout.preparation)
        # A graph with a fixed batch gets copies of the first image as filling.
        missing = (self._batch or len(images)) - len(images)
        pixels = np.concatenate([pixels, pixels[:1].repeat(missing, axis=0)])
        outputs = self._run(pixels, (images[0].height, images[0].width))
        boxes, confidences = self.layout.decode(outputs, self._size)
        detections = []
        for image, placement, image_boxes, scores in zip(images, placements, boxes, confidences, strict=False):
            placed = image_boxes if self.layout.takes_size else placement.back(image_boxes)
            detections.append(select(placed, scores, image.size, self._thresholds))
        return detections

    def _run(self, pixels: Array, image: Size) -> list[Array]:
        """Return the outputs for a batch (N, 3, H, W), as float32.

        Args:
            image: Height and width of the first image before resizing, for layouts that take it.
        """
        values: list[Any] = [pixels, np.array([image])]
        feed = {name: value.astype(kind) for (name, kind), value in zip(self._inputs.items(), values, strict=False)}
        return [np.asarray(output, dtype=np.float32) for output in self._session.run(None, feed)]

    def _run_grey(self, path: Path, batch: int) -> list[Array]:
        """Return the outputs for a batch of grey images.

        Raises:
            DetectorError: If the graph does not run.
        """
        grey = np.full((batch, 3, *self._size), 0.5, dtype=np.float32)
        try:
            return self._run(grey, self._size)
        except RUNTIME_ERRORS as error:
            raise DetectorError(f"{path}: does not run on an image ({error}). {_known_layouts()}") from error

    def _try_out(self, path: Path) -> tuple[int | None, list[Array]]:
        """Run the graph on grey images, to know its batch and its layout.

        Returns:
            Images per run, the graph's own number or None for any (1 if it can't run two); and the outputs.
        """
        batch = self._session.wide.get_inputs()[0].shape[0]
        if not isinstance(batch, int):
            batch = 1
            with suppress(DetectorError):
                outputs = self._run_grey(path, 2)
                if all(len(output) == 2 for output in outputs):
                    return None, outputs
        return batch, self._run_grey(path, batch)


def _start_session(path: Path, threads: int | None, provider: str) -> Session:
    try:
        return Session(path, threads=threads, provider=provider)
    except RUNTIME_ERRORS as error:
        raise DetectorError(f"{path}: onnxruntime can't read it ({error}); export or download it again") from error


def _input_size(path: Path, session: InferenceSession, free_size_px: int = FREE_SIZE_PX) -> Size:
    """Return height and width of the input; free_size_px if it accepts any.

    Raises:
        DetectorError: If the inputs are not images and optionally their sizes, or images are too small or large.
    """
    inputs = session.get_inputs()
    shapes = [node.shape for node in inputs]
    takes_images = (
        len(shapes) in (1, 2) and len(shapes[0]) == 4 and (shapes[0][1] == 3 or not isinstance(shapes[0][1], int))
    )
    has_known_types = all(node.type in _TYPES for node in inputs)
    takes_other_than_size = bool(shapes[1:]) and len(shapes[1]) != 2
    if not takes_images or not has_known_types or takes_other_than_size:
        raise DetectorError(f"{path}: {_describe(session, None)}. {_known_layouts()}")
    height, width = (side if isinstance(side, int) else free_size_px for side in shapes[0][2:])
    if not (32 <= height <= MAX_SIZE_PX and 32 <= width <= MAX_SIZE_PX):
        raise DetectorError(f"{path}: takes images of {width} x {height} px; expected 32 to {MAX_SIZE_PX}")
    return height, width


def _describe(session: InferenceSession, outputs: Sequence[Array] | None) -> str:
    """Describe inputs and outputs for a message.  outputs: of a run; None: the graph was not run."""
    inputs = ", ".join(f"{node.name} {node.shape} {node.type}" for node in session.get_inputs())
    if outputs is None:
        shapes = ", ".join(f"{node.name} {node.shape}" for node in session.get_outputs())
    else:
        pairs = zip(session.get_outputs(), outputs, strict=True)
        shapes = ", ".join(f"{node.name} {list(values.shape)}" for node, values in pairs)
    return f"unknown layout: inputs {inputs}; outputs {shapes}"


def _known_layouts() -> str:
    """List the known layouts for a message."""
    rows = "; ".join(f"{layout.name}: {layout.outputs}" for layout in LAYOUTS)
    return f"Expected images [N, 3, H, W], COCO's 80 classes or persons alone, classes as probabilities: {rows}"
