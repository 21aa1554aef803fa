"""The models that are served, and what the worker thread does with images."""

import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from uniemox.errors import ImageError, LabelError
from uniemox.io.decoding.pool import DecoderPool, Decoders
from uniemox.io.images import MinSides, encode_image, open_image
from uniemox.labels import LABEL_SETS, LabelSet
from uniemox.persons.box import Box
from uniemox.predict.confidence import max_coverage
from uniemox.predict.explain.maps import heat_map
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.predictor import Predictor
from uniemox.predict.question import answers_in
from uniemox.serve.answers import ModelAnswer, RefusedError

LARGE_PIXELS = 13_000_000  # a little more than most phones take
LARGE_AT_ONCE = 2
MIN_DECODERS, MAX_DECODERS = 2, 8  # two at least, so that one file holds up no other
BATCH_DECODE_S = 2.0  # images of a batch whose decoding has not begun by then are put back into the queue
PUT_BACK = object()
"""The answer for an image that shall be asked about again, alone: those before it in its batch took too long."""
_FOLDERS = re.compile(r"(?<![\w.:])(?:[A-Za-z]:)?(?:[\\/][^\s\\/:'\"]+)*[\\/](?=[^\s\\/:'\"]+)")


@dataclass(frozen=True, slots=True)
class PredictAsk:
    """A prediction by a model; images with equal asks go through the network together."""

    model: str
    coverage: float | None
    labels: str | None


@dataclass(frozen=True, slots=True)
class ExplainAsk:
    """A heat map by a model; label None: the most probable."""

    model: str
    label: str | None


@dataclass(frozen=True, slots=True)
class Overlay:
    """A heat map over its image."""

    label: str
    method: str
    box: Box
    """The part of the image that the model saw, px."""
    png: bytes


class Models:
    """Predictors by name; the first is the one that is asked if no name is given.

    predictors: at least one.  max_megapixels: of an image; larger ones are refused before they are decoded.
    decode_s: for one image.  Close them at the end: they hold processes.
    """

    def __init__(self, predictors: Sequence[Predictor], *, max_megapixels: int, decode_s: float) -> None:
        self._max_megapixels = max_megapixels
        self._decoders = DecoderPool(min(MAX_DECODERS, max(MIN_DECODERS, os.cpu_count() or 1)), wait_s=decode_s)
        seen: Counter[str] = Counter()
        self._predictors: dict[str, Predictor] = {}
        for predictor in predictors:
            seen[predictor.name] += 1
            number = f"-{seen[predictor.name]}" if seen[predictor.name] > 1 else ""
            self._predictors[predictor.name + number] = predictor
        self.names = list(self._predictors)
        """In the order given; equal names are numbered."""

    def limits(self) -> dict[str, dict[str, Any]]:
        """JSON schema of each query parameter that at least one model takes; empty if none does."""
        predictors = self._predictors.values()
        sets = [one.name for one in LABEL_SETS if any(_can_answer_in(each, one) for each in predictors)]
        labels = dict.fromkeys(label for predictor in predictors for label in predictor.labels)
        return {
            "model": {"enum": self.names},
            "labels": {"enum": sets},
            "label": {"enum": list(labels)},
            "coverage": {"maximum": max(max_coverage(each.network.info.conformal_scores) for each in predictors)},
        }

    def find(self, name: str | None) -> str:
        """The name of a model, the first's for None. Raises RefusedError, with all names, if there is none such."""
        if name is not None and name not in self._predictors:
            known = f"no model of that name is served; there are {', '.join(self.names)}"
            raise RefusedError(422, "unknown_model", known)
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
                max_coverage=max_coverage(predictor.network.info.conformal_scores),
            )
            for name, predictor in self._predictors.items()
        ]

    def warm_up(self) -> None:
        """Let every network see one image, so that the first client does not wait for its start."""
        grey = Image.fromarray(np.full((64, 64, 3), 127, np.uint8))
        for predictor in self._predictors.values():
            predictor.predict(grey)
        self._decoders.start_all()

    def close(self) -> None:
        """End the processes that decode; images that are being worked on become failures."""
        self._decoders.close()

    def work(self, ask: PredictAsk | ExplainAsk, images: list[bytes]) -> Sequence[object]:
        """The answers for images that came with equal asks, in order: Prediction, Overlay, Failure, or PUT_BACK.

        Raises UniemoxError for an ask that the model can't answer.
        """
        sizes = [self._size(image) for image in images]
        answers: list[object] = list(sizes)
        readable = [(place, size) for place, size in enumerate(sizes) if not isinstance(size, Failure)]
        small = [place for place, size in readable if size <= LARGE_PIXELS]
        large = [place for place, size in readable if size > LARGE_PIXELS]
        # A predictor decodes up to eight images at a time, so large ones are given to it a few at a time.
        parts = [small, *(large[i : i + LARGE_AT_ONCE] for i in range(0, len(large), LARGE_AT_ONCE))]
        decoders = _PromptDecoders(self._decoders, time.monotonic() + BATCH_DECODE_S)
        for part in parts:
            found = self._answers(ask, [images[place] for place in part], decoders)
            for place, answer in zip(part, found, strict=True):
                is_late = isinstance(answer, Failure) and images[place] in decoders.not_begun
                answers[place] = PUT_BACK if is_late else answer
        return answers

    def _answers(
        self, ask: PredictAsk | ExplainAsk, images: list[bytes], decoders: "_PromptDecoders"
    ) -> Iterator[Prediction | Failure] | Iterator[Overlay | Failure]:
        predictor = self._predictors[ask.model]
        if isinstance(ask, ExplainAsk):
            return (overlay_of(predictor, image, ask.label, decoders) for image in images)
        size = max(1, len(images))
        return predictor.predict_each(
            images, batch_size=size, coverage=ask.coverage, labels=ask.labels, decoders=decoders
        )

    def _size(self, data: bytes) -> int | Failure:
        """Pixels of an image by its header, or why it is refused by that."""
        try:
            image = open_image(data, "image")
        except ImageError as error:
            return Failure(path=None, error=str(error))
        if image.width * image.height > self._max_megapixels * 1_000_000:
            size = f"{image.width} x {image.height} px"
            why = f"image: {size} is more than the {self._max_megapixels} megapixels that are read; scale it down"
            return Failure(path=None, error=why)
        return image.width * image.height


class _PromptDecoders:
    """A pool that begins to decode nothing after a moment of time.monotonic(), and notes what it did not begin."""

    def __init__(self, pool: DecoderPool, until: float) -> None:
        self._pool, self._until = pool, until
        self.not_begun: set[bytes] = set()

    def decode(self, data: bytes, name: str, *, shrink: MinSides | None = None) -> tuple[Image.Image, tuple[int, int]]:
        """Decode as the pool does. Raises ImageError also for what comes too late."""
        if time.monotonic() > self._until:
            self.not_begun.add(data)
            raise ImageError(f"{name}: not decoded: others in its batch took too long")
        return self._pool.decode(data, name, shrink=shrink)


def _can_answer_in(predictor: Predictor, labels: LabelSet) -> bool:
    """Return whether a predictor's answers can be mapped to the set."""
    if predictor.network.info.task == "affect":
        return False
    try:
        answers_in(predictor.network.info.find_labels(), labels.name)
    except LabelError:
        return False
    return True


def overlay_of(predictor: Predictor, data: bytes, label: str | None, decoders: Decoders) -> Overlay | Failure:
    """The heat map for a label; Failure if the image can't be read. Raises LabelError if there is no such label."""
    try:
        image, _ = decoders.decode(data, "image")
        explanation = heat_map(predictor, image, label)
    except ImageError as error:
        return Failure(path=None, error=str(error))
    drawn = encode_image(explanation.overlay(), "PNG", compress_level=3)
    return Overlay(explanation.label, explanation.method, explanation.box, drawn)


def without_folders(message: str) -> str:
    """A message with every absolute path in it cut to its last part: where files lie here is nobody's business.

    >>> without_folders("/srv/models/fi.onnx has no such label; use 1/2 or a/b")
    'fi.onnx has no such label; use 1/2 or a/b'
    """
    return _FOLDERS.sub("", message)
