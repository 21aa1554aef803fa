"""Models on the server, and the work of the worker thread."""

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from uniemox.errors import BoxError, ImageError
from uniemox.insight import heat_map
from uniemox.io import (
    DecoderPool,
    Decoders,
    MinSides,
    SizedImage,
    encode_image,
    image_border,
    is_raw,
    open_image,
    usable_cores,
)
from uniemox.persons import Box
from uniemox.predict import Failure, Predictor, max_coverage, possible_sets
from uniemox_serve.answers import ModelAnswer, RefusedError

# Slightly more than most phone photos.
LARGE_PIXELS = 13_000_000
LARGE_AT_ONCE = 2
# At least two, so that one slow file delays no other.
MIN_DECODERS = 2
MAX_DECODERS = 8
BATCH_DECODE_S = 2.0
"""Images of a batch whose decoding has not begun after this time return to the queue."""
PUT_BACK = object()
"""Result for an image that must be queued again, alone, because earlier images in its batch took too long."""
_FOLDERS = re.compile(r"(?<![\w.:])(?:[A-Za-z]:)?(?:[\\/][^\s\\/:'\"]+)*[\\/](?=[^\s\\/:'\"]+)")


@dataclass(frozen=True, slots=True)
class PredictAsk:
    """Request for a prediction; images with equal asks go through the network together."""

    model: str
    coverage: float | None
    labels: str | None


@dataclass(frozen=True, slots=True)
class ExplainAsk:
    """Request for a heat map; label None: the most probable."""

    model: str
    label: str | None
    full_scale: float | None = None
    """Evidence with the brightest colour; None: the most in the map."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """Heat map on its image."""

    label: str
    method: str
    box: Box
    """Part of the image that the model reads, px."""
    png: bytes
    evidence: float
    """At the brightest place, before scaling."""


class Models:
    """Predictors by name; the first is the default.

    Call `close` at the end, because they hold processes.

    Args:
        predictors: At least one.
        max_megapixels: Per image; larger ones are refused before decoding.
        decode_s: Time limit for one image.
    """

    def __init__(self, predictors: Sequence[Predictor], *, max_megapixels: int, decode_s: float) -> None:
        self._max_megapixels = max_megapixels
        self._decoders = DecoderPool(min(MAX_DECODERS, max(MIN_DECODERS, usable_cores())), wait_s=decode_s)
        counts: Counter[str] = Counter()
        self._predictors: dict[str, Predictor] = {}
        for predictor in predictors:
            counts[predictor.name] += 1
            count = counts[predictor.name]
            suffix = f"-{count}" if count > 1 else ""
            self._predictors[predictor.name + suffix] = predictor
        self.names = list(self._predictors)
        """Names in the given order; equal names are numbered."""

    def limits(self) -> dict[str, dict[str, Any]]:
        """Return the JSON schema of each query parameter; its value is empty or 0 if no model supports it."""
        predictors = self._predictors.values()
        infos = [predictor.network.info for predictor in predictors]
        sets = dict.fromkeys(name for info in infos if info.has_shares for name in possible_sets(info.find_labels()))
        labels = dict.fromkeys(label for predictor in predictors for label in predictor.labels)
        return {
            "model": {"enum": self.names},
            "labels": {"enum": list(sets)},
            "label": {"enum": list(labels)},
            "coverage": {
                "maximum": max(max_coverage(predictor.network.info.conformal_scores) for predictor in predictors)
            },
        }

    def find(self, name: str | None) -> str:
        """Return the name of a model, the first for None.

        Raises:
            RefusedError: For an unknown name.
        """
        if name is not None and name not in self._predictors:
            message = f"no model of that name is served; there are {', '.join(self.names)}"
            raise RefusedError(422, "unknown_model", message)
        return name or self.names[0]

    def describe(self) -> list[ModelAnswer]:
        """Return the description of each model for clients."""
        return [
            ModelAnswer(
                name=name,
                labels=list(predictor.labels),
                label_set=predictor.label_set,
                kind=predictor.network.info.kind,
                task=predictor.network.info.task,
                trained_on=predictor.network.info.trained_on,
                finds_persons=predictor.finder is not None,
                tells_persons_emotions=predictor.person_network is not None,
                finds_faces=predictor.face_reader is not None,
                flags_unfamiliar=predictor.flags_unfamiliar,
                max_coverage=max_coverage(predictor.network.info.conformal_scores),
            )
            for name, predictor in self._predictors.items()
        ]

    def warm_up(self) -> None:
        """Run every network on one image, so that the first client does not wait for the start."""
        grey = Image.fromarray(np.full((64, 64, 3), 127, np.uint8))
        for predictor in self._predictors.values():
            predictor.predict(grey)
        self._decoders.start_all()

    def close(self) -> None:
        """End the decoding processes; images in progress become failures."""
        self._decoders.close()

    def work(self, ask: PredictAsk | ExplainAsk, images: list[bytes]) -> Iterator[tuple[int, object]]:
        """Yield the index and the result of each image when it is ready; large images come last.

        A result is a Prediction, an Overlay, a Failure, or PUT_BACK.

        Args:
            ask: The work on each image.
            images: The content of their files.

        Raises:
            UniemoxError: For an ask that the model does not support.
        """
        until = time.monotonic() + BATCH_DECODE_S
        decoders = _PromptDecoders(self._decoders, until, self._max_megapixels * 1_000_000)
        yield from self._answers(ask, dict(enumerate(images)), decoders)
        large = [index for index, image in enumerate(images) if image in decoders.large]
        decoders.takes_large = True
        # A predictor decodes up to eight images at a time, so it gets only a few large ones at a time.
        for i in range(0, len(large), LARGE_AT_ONCE):
            part = {index: images[index] for index in large[i : i + LARGE_AT_ONCE]}
            yield from self._answers(ask, part, decoders)

    def _answers(
        self, ask: PredictAsk | ExplainAsk, images: dict[int, bytes], decoders: "_PromptDecoders"
    ) -> Iterator[tuple[int, object]]:
        """Yield the index and the result of each image that the decoders take.

        Args:
            ask: The work on each image.
            images: The content of their files by index.
            decoders: They record images that they did not decode.
        """
        predictor = self._predictors[ask.model]
        contents = list(images.values())
        results: Iterator[object]
        if isinstance(ask, ExplainAsk):
            results = (overlay_of(predictor, image, ask, decoders) for image in contents)
        else:
            results = predictor.predict_each(
                contents, batch_size=len(contents), coverage=ask.coverage, labels=ask.labels, decoders=decoders
            )
        for (index, image), answer in zip(images.items(), results, strict=True):
            if not isinstance(answer, Failure):
                yield index, answer
            # Otherwise the image is large, and `work` tries it again.
            elif decoders.takes_large or image not in decoders.large:
                yield index, PUT_BACK if image in decoders.not_begun else answer


class _PromptDecoders:
    """Pool that starts no decoding after a given time, and records images that it did not start.

    Args:
        pool: The decoding processes.
        until: Value of time.monotonic() after which no decoding starts.
        max_pixels: Per image; larger ones are refused before decoding.
    """

    def __init__(self, pool: DecoderPool, until: float, max_pixels: int) -> None:
        self._pool = pool
        self._until = until
        self._max_pixels = max_pixels
        self.not_begun: set[bytes] = set()
        self.large: set[bytes] = set()
        self.takes_large = False
        """False: images over LARGE_PIXELS are only recorded."""

    def decode(self, data: bytes, name: str, *, shrink: MinSides | None = None) -> SizedImage:
        """Decode as the pool does.

        Raises:
            ImageError: Also for images that are too large or too late.
        """
        if time.monotonic() > self._until:
            self.not_begun.add(data)
            raise ImageError(f"{name}: not decoded: others in its batch took too long")
        # Only a decoding process looks into a camera raw, so it counts as large until its size is known.
        size = None if is_raw(data) else open_image(data, name).size
        if size is not None:
            self._check_size(size, name)
        if not self.takes_large and (size is None or size[0] * size[1] > LARGE_PIXELS):
            self.large.add(data)
            raise ImageError(f"{name}: not decoded: it is large")
        sized = self._pool.decode(data, name, shrink=shrink)
        self._check_size(sized.full_size, name)
        return sized

    def _check_size(self, size: tuple[int, int], name: str) -> None:
        width, height = size
        if width * height > self._max_pixels:
            limit = f"the {self._max_pixels // 10**6} megapixels that are read"
            raise ImageError(f"{name}: {width} x {height} px is more than {limit}; scale it down")


def overlay_of(predictor: Predictor, data: bytes, ask: ExplainAsk, decoders: Decoders) -> Overlay | Failure:
    """Return the heat map of an image; Failure if the image can't be read.

    Raises:
        LabelError: For an unknown label.
    """
    try:
        with image_border("image"):
            image, _ = decoders.decode(data, "image")
            explanation = heat_map(predictor, image, ask.label, full_scale=ask.full_scale)
            drawn = encode_image(explanation.overlay(), "PNG", compress_level=3)
    except (ImageError, BoxError) as error:
        return Failure(path=None, error=str(error))
    return Overlay(explanation.label, explanation.method, explanation.box, drawn, explanation.evidence)


def without_folders(message: str) -> str:
    """Shorten every absolute path in a message to its last part, so that clients do not see this machine's folders.

    >>> without_folders("/srv/models/fi.onnx has no such label; use 1/2 or a/b")
    'fi.onnx has no such label; use 1/2 or a/b'
    """
    return _FOLDERS.sub("", message)
