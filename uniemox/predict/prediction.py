"""Prediction of a model for an image, and the failure to read one."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.errors import ImageError
from uniemox.labels import AXES, Kind
from uniemox.persons.box import Box
from uniemox.plurals import counted
from uniemox.predict.confidence import is_unfamiliar
from uniemox.predict.images import ImageLike
from uniemox.predict.schema import FIELDS, MAX_UNMAPPED, shares_with_none, values_of

NOTEBOOK_PX = 640


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Person detected in the image; `schema.PERSON` documents its fields."""

    box: Box
    confidence: float
    emotions: dict[str, float] | None
    assigned_labels: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """Face detected in the image; `schema.FACE` documents its fields."""

    box: Box
    confidence: float
    expressions: dict[str, float] | None
    person: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Prediction of a model for one image; `schema.FIELDS` documents its fields."""

    scene: dict[str, float]
    """Probability by label, with sum 1, in the labels' order; of a model that gives several labels, a probability of
    each; or valence and arousal, 1 to 9."""
    kind: Kind
    """evoked: what the image makes people feel.  felt: what people in it feel.  expressed: what a face shows."""
    persons: list[Person] | None
    likely: tuple[str, ...] | None
    """Labels of which one is the true one with the requested coverage, most probable first; None: no request."""
    path: str | None
    width_px: int
    height_px: int
    label_set: str
    model: str
    assigned_labels: tuple[str, ...] | None = None
    """Labels above their thresholds, most probable first; None: the model gives one label."""
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None
    """1 (not in control) to 9 (in control); None: the model has not learned it."""
    valence_interval: tuple[float, float] | None = None
    """90 % interval of the mean rating, for images like those with ratings; wider for unfamiliar images."""
    arousal_interval: tuple[float, float] | None = None
    affect_from: Literal["ratings", "model", "norms"] | None = None
    """ratings: a head fitted to people's ratings of images. model: a network that predicts nothing else (task affect).
    norms: the expected word norm of the labels (NRC-VAD, valence alone). None: no source."""
    familiarity: float | None = None
    """Similarity to the training images, 0 to 1: share of held-out images that are at least as far from the training
    images. Below 0.15 the probabilities are drawn towards each other. None: the model has no distance."""
    is_colourless: bool = False
    """True if the image has no colour, as an old photograph; see predict/colour.py."""
    view: Box | None = None
    faces: list[Face] | None = None
    time_s: float | None = None
    """Time in the video, s; None for an image."""
    shot: int | None = None
    unmapped: float | None = None
    """Probability of the model's labels that have no counterpart in the requested label set, 0 to 1; `scene` divides
    the rest. None: no other label set was requested."""
    embedding: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    """(D,) input of the last layer; None: not requested."""
    source: ImageLike | None = field(default=None, repr=False, compare=False)
    """The image, or the path, bytes or file from which it can be read again."""

    def __repr__(self) -> str:
        values = [f"{label} {value:.1f}" if label in AXES else f"{label} {value:.0%}" for label, value in self.top()]
        values += [
            f"{axis} {value:.1f}"
            for axis, value in (("valence", self.valence), ("arousal", self.arousal))
            if value is not None and axis not in self.scene
        ]
        if self.persons is not None:
            values.append(counted(len(self.persons), "person", "people"))
        if self.is_unfamiliar:
            values.append("a guess")
        return f"<Prediction of {self.path or 'an image'}: {self.kind} {', '.join(values)}>"

    @property
    def is_unfamiliar(self) -> bool:
        """True if familiarity is below 0.05: the prediction is a guess."""
        return is_unfamiliar(self.familiarity)

    @property
    def has_no_counterpart(self) -> bool:
        """True if more than half of the probability is unmapped: no label of the requested set describes the image."""
        return self.unmapped is not None and self.unmapped > MAX_UNMAPPED

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """Return the k most probable labels, or the k highest values, highest first.

        If no requested label describes the image (`has_no_counterpart`), `none` comes first with its probability
        `unmapped`, and the others have their shares of the rest.
        """
        values = self.scene
        if self.unmapped is not None and self.has_no_counterpart:
            values = shares_with_none(values, self.unmapped)
        return sorted(values.items(), key=lambda pair: -pair[1])[:k]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form, with the fields of `schema.FIELDS`; probabilities have 6 digits."""
        return values_of([field for field in FIELDS if self.time_s is not None or not field.of_film], self)

    def plot(self) -> Image.Image:
        """Draw boxes around people and faces, and a bar for each label; likely or assigned labels have darker bars.

        Raises:
            ImageError: If the image can't be read again.
        """
        from uniemox.predict.plot import plot_answer  # noqa: PLC0415 - fonts; few predictions are drawn

        return plot_answer(self)

    def _repr_html_(self) -> str:
        """Show the plot in a notebook, or the JSON form if the image is no longer available."""
        from uniemox.io.html import jpeg_url, render  # noqa: PLC0415 - in notebooks alone

        try:
            url = jpeg_url(self.plot(), max_side_px=NOTEBOOK_PX)
            text = ""
        except ImageError:
            url = ""
            text = json.dumps(self.to_dict(), indent=1)
        return render("uniemox/predict/prediction.html", alt=self.path or "image", url=url, text=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An image that could not be read."""

    path: str | None
    error: str
    """The reason, with the image's name."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        return {"path": self.path, "error": self.error}
