"""What is said of an image."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.errors import ImageError
from uniemox.labels import Kind
from uniemox.persons.box import Box
from uniemox.predict.confidence import UNFAMILIAR
from uniemox.predict.images import ImageLike

DIGITS = 6  # of probabilities in JSON
SHOWN_PX = 640  # in notebooks


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody in the image."""

    box: Box
    """In px of the upright image."""
    confidence: float
    """0 to 1, that this is a person."""
    emotions: dict[str, float] | None
    """What the person feels: probability by label; None until a model that knows is given."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "box": [round(value, 2) for value in self.box],
            "confidence": round(self.confidence, DIGITS),
            "emotions": None if self.emotions is None else _rounded(self.emotions),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A face in the image."""

    box: Box
    """In px of the upright image."""
    confidence: float
    """0 to 1, that this is a face."""
    expressions: dict[str, float] | None
    """What the face shows to others: probability by label; not what its owner feels. None: too small to tell."""
    person: int | None
    """Whose it is, as a place in `persons`; None: nobody's that was found."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "box": [round(value, 2) for value in self.box],
            "confidence": round(self.confidence, DIGITS),
            "expressions": None if self.expressions is None else _rounded(self.expressions),
            "person": self.person,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What is said of one image."""

    scene: dict[str, float]
    """Probability by label, with sum 1, in the labels' order; or valence and arousal, 1 to 9."""
    kind: Kind
    """evoked: what it makes people feel.  felt: what the people in it feel."""
    persons: list[Person] | None
    """Most confident first. []: nobody was found. None: there is no person finder."""
    likely: tuple[str, ...] | None
    """The labels that hold the true one with the coverage asked for, most probable first; None: not asked."""
    path: str | None
    """None for an image that came from memory."""
    width_px: int
    """Of the upright image."""
    height_px: int
    label_set: str
    model: str
    """The model's name."""
    valence: float | None = None
    """1 (negative) to 9 (positive); see `affect_from`. None where the model can't tell."""
    arousal: float | None = None
    """1 (calm) to 9 (excited); None where the model has not learned it."""
    valence_interval: tuple[float, float] | None = None
    """Holds the mean rating of nine images in ten that are like those with ratings; wider where the image is unlike
    the training images. None without a head for ratings."""
    arousal_interval: tuple[float, float] | None = None
    """Likewise."""
    affect_from: Literal["ratings", "model", "norms"] | None = None
    """ratings: a head fitted to people's ratings of images. model: a network that predicts nothing else (task affect).
    norms: the mean of the labels' word norms (NRC-VAD, valence alone), each as probable as here. None: from nothing."""
    familiarity: float | None = None
    """0 to 1, how like the training images this one is: the share of such images that are as unlike them, or more.
    Below 0.2 the probabilities are drawn towards each other. None: the model does not know."""
    view: Box | None = None
    """The part of the image that was judged, px."""
    faces: list[Face] | None = None
    """Most confident first. []: there is none. None: nobody asked for faces."""
    time_s: float | None = None
    """The moment of a film; None for an image."""
    shot: int | None = None
    """1, 2, …: between which cuts of the film it is."""
    embedding: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    """(D,), what the labels are read off, if it was asked for."""
    source: ImageLike | None = field(default=None, repr=False, compare=False)
    """Where the image can be had again."""

    @property
    def is_unfamiliar(self) -> bool:
        """Whether the image is so unlike the training images that its answer is a guess: familiarity below 0.05."""
        return self.familiarity is not None and self.familiarity < UNFAMILIAR

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """The k most probable labels, or the k highest values, highest first."""
        return sorted(self.scene.items(), key=lambda pair: -pair[1])[:k]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; probabilities with 6 digits."""
        return {
            "path": self.path,
            "scene": _rounded(self.scene),
            "kind": self.kind,
            "valence": _number(self.valence),
            "arousal": _number(self.arousal),
            "valence_interval": _ends(self.valence_interval),
            "arousal_interval": _ends(self.arousal_interval),
            "affect_from": self.affect_from,
            "familiarity": _number(self.familiarity),
            "is_unfamiliar": self.is_unfamiliar,
            "view": None if self.view is None else [round(value, 2) for value in self.view],
            "persons": None if self.persons is None else [person.to_dict() for person in self.persons],
            "faces": None if self.faces is None else [face.to_dict() for face in self.faces],
            "likely": None if self.likely is None else list(self.likely),
            "width_px": self.width_px,
            "height_px": self.height_px,
            "label_set": self.label_set,
            "model": self.model,
            **({} if self.time_s is None else {"time_s": self.time_s, "shot": self.shot}),
        }

    def plot(self) -> Image.Image:
        """The image with boxes around people and faces, and bars for the labels; those of the likely ones are darker.

        Raises ImageError if the image's file is gone.
        """
        from uniemox.predict.plot import plot_prediction  # noqa: PLC0415 - it knows this module

        return plot_prediction(self)

    def _repr_html_(self) -> str:
        """In notebooks: the plot, or the answer as JSON where the image is gone."""
        from uniemox.io.html import element, scaled_image  # noqa: PLC0415 - in notebooks alone

        try:
            return scaled_image(self.plot(), self.path or "image", max_side_px=SHOWN_PX)
        except ImageError:
            return element("pre", json.dumps(self.to_dict(), indent=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An image that could not be read."""

    path: str | None
    error: str
    """What is wrong, with the image's name."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"path": self.path, "error": self.error}


def _number(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _ends(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [round(end, DIGITS) for end in interval]


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {label: round(value, DIGITS) for label, value in values.items()}
