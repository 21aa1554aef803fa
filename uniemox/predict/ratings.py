"""Valence and arousal as people rate images, predicted from a classifier's features, with intervals."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import CheckpointError
from uniemox.predict.confidence import UNFAMILIAR, log_softmax

LOWEST, HIGHEST = 1.0, 9.0
SHAPES = {"bias": (2,), "half_widths": (2,), "spread": (2, 2)}
HASH_DIGITS = 16  # first digits of an image's SHA-256, which identify it
Array = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class RatingHead:
    """A linear map from features and log-probabilities to valence and arousal, 1 to 9."""

    weights: NDArray[np.float32]
    """(2, D + E)."""
    bias: NDArray[np.float64]
    """(2,)."""
    half_widths: NDArray[np.float64]
    """(2,) half widths of the intervals: the 90 % quantile of errors on held-out images."""
    spread: NDArray[np.float64]
    """(2, 2): interval that contains 90 % of all ratings, whatever the image shows."""
    images: int
    """Number of images on which the head was fitted."""
    trained_on: str
    """Name of the data set, or the kinds of several."""
    seen: frozenset[str] = frozenset()
    """First 16 digits of the SHA-256 of the images on which the head was fitted."""

    def rate(self, features: Array, logits: Array) -> NDArray[np.float64]:
        """Return (N, 2) valence and arousal, 1 to 9.  features: (N, D).  logits: (N, E)."""
        ratings = head_inputs(features, logits) @ self.weights.T.astype(np.float64) + self.bias
        return ratings.clip(LOWEST, HIGHEST)

    def intervals(self, ratings: Array, familiarity: Array | None) -> NDArray[np.float64]:
        """Return (N, 2, 2), low and high end of each rating, at 90 % for images like those of the fit.

        ratings: (N, 2).  familiarity: (N,); below 0.05 the interval is widened to contain the spread of all ratings.
        Split conformal prediction with cross-fitted residuals (arXiv 2107.07511, section 1).
        """
        ends = np.stack([ratings - self.half_widths, ratings + self.half_widths], axis=2)
        if familiarity is not None:
            strange = np.asarray(familiarity) < UNFAMILIAR  # (N,)
            ends[strange, :, 0] = np.minimum(ends[strange, :, 0], self.spread[:, 0])
            ends[strange, :, 1] = np.maximum(ends[strange, :, 1], self.spread[:, 1])
        return ends.clip(LOWEST, HIGHEST)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form for a model's metadata."""
        weights = base64.b64encode(self.weights.astype("<f4").tobytes()).decode()
        arrays = {name: getattr(self, name).tolist() for name in SHAPES}
        return asdict(self) | arrays | {"weights": weights, "seen": "".join(sorted(self.seen))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RatingHead":
        """Parse the form that `to_dict` returns. Raises CheckpointError for anything else."""
        try:
            weights = np.frombuffer(base64.b64decode(values["weights"], validate=True), "<f4").reshape(2, -1)
            arrays = {name: np.array(values[name], float).reshape(shape) for name, shape in SHAPES.items()}
            digits = str(values["seen"])
            seen = frozenset(digits[i : i + HASH_DIGITS] for i in range(0, len(digits), HASH_DIGITS))
            images, trained_on = int(values["images"]), str(values["trained_on"])
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise CheckpointError(f"its head for valence and arousal can't be read ({error}); fit it again") from error
        if not all(np.isfinite(part).all() for part in (weights, *arrays.values())) or arrays["half_widths"].min() < 0:
            raise CheckpointError("its head for valence and arousal has numbers that are not finite; fit it again")
        return cls(weights, **arrays, images=images, trained_on=trained_on, seen=seen)


def head_inputs(features: Array, logits: Array) -> NDArray[np.float64]:
    """Join the inputs of a rating head: features (N, D) and log-probabilities (N, E), as (N, D + E)."""
    return np.concatenate([np.asarray(features, np.float64), log_softmax(logits)], axis=1)
