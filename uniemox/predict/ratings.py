"""Valence and arousal as people rate images, predicted from a classifier's features, with intervals."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import CheckpointError
from uniemox.labels.rating_scale import HIGHEST_RATING, LOWEST_RATING
from uniemox.predict.confidence import UNFAMILIAR, log_softmax

# Shapes of the arrays in a head's JSON form.
SHAPES = {"bias": (2,), "spread": (2, 2), "ends": (-1, 2, 2, 2), "colourless_ends": (-1, 2, 2, 2)}
# Number of first digits of an image's SHA-256, which identify the image.
HASH_DIGITS = 16
# Digits of a perceptual hash, see data/perceptual.py.
PERCEPTUAL_DIGITS = 32
Array = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class RatingHead:
    """A linear map from features and log-probabilities to valence and arousal, 1 to 9."""

    weights: NDArray[np.float32]
    """(2, D + E)."""
    bias: NDArray[np.float64]
    """(2,)."""
    ends: NDArray[np.float64]
    """(S, 2, 2, 2): a and b for each of S data sets of the fit, each rating, and both ends of its interval, low first.
    The errors a + b · rating of both ends enclose 90 % of the errors on held-out images of the data set."""
    colourless_ends: NDArray[np.float64]
    """(S, 2, 2, 2): the same for images without colour, fitted to grey copies of the rated images."""
    spread: NDArray[np.float64]
    """(2, 2): interval that contains 90 % of all ratings, whatever the image shows."""
    images: int
    """Number of images on which the head was fitted."""
    trained_on: str
    """Name of the data set, or the kinds of several."""
    seen: frozenset[str] = frozenset()
    """First 16 digits of the SHA-256 of the images on which the head was fitted."""
    perceptual: frozenset[str] = frozenset()
    """Perceptual hashes of these images, 32 digits each."""

    def rate(self, features: Array, logits: Array) -> NDArray[np.float64]:
        """Return valence and arousal, (N, 2), 1 to 9.

        A linear map may leave the scale for an image that is unlike the rated ones in it; such a value is cut off at
        the end of the scale. No image of the shipped heads' fit has a mean rating there.

        Args:
            features: (N, D).
            logits: (N, E).

        Raises:
            CheckpointError: For a head of another network.
        """
        inputs = head_inputs(features, logits)
        if inputs.shape[1] != self.weights.shape[1]:
            raise CheckpointError(
                f"its head for valence and arousal takes {self.weights.shape[1]} numbers, its network gives "
                f"{inputs.shape[1]}; fit it again"
            )
        ratings = inputs @ self.weights.T.astype(np.float64) + self.bias
        return ratings.clip(LOWEST_RATING, HIGHEST_RATING)

    def intervals(
        self, ratings: Array, familiarity: Array | None, is_colourless: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Return the 90 % interval of each rating, low and high end, (N, 2, 2), for images like those of the fit.

        The interval of an image holds those of every data set of the fit, because nobody knows which of them the image
        is like. Conformalised quantile regression with cross-fitted errors (arXiv 1905.03222). The interval of a rating
        that was cut off at an end of the scale also contains the spread of all ratings: the errors were measured on
        ratings inside of the scale.

        Args:
            ratings: Predicted valence and arousal, (N, 2).
            familiarity: (N,); below 0.05 the interval is widened to contain the spread of all ratings. None: it is not
                known, and no interval is widened.
            is_colourless: (N,); the intervals of these images also hold those fitted to grey copies. None: no image is.
        """
        low, high = _outermost(self.ends, ratings)
        if is_colourless is not None:
            low_of_grey, high_of_grey = _outermost(self.colourless_ends, ratings)
            low[is_colourless] = np.minimum(low, low_of_grey)[is_colourless]
            high[is_colourless] = np.maximum(high, high_of_grey)[is_colourless]
        is_widened = (ratings <= LOWEST_RATING) | (ratings >= HIGHEST_RATING)  # (N, 2)
        if familiarity is not None:
            is_widened |= np.asarray(familiarity)[:, None] < UNFAMILIAR
        low = np.where(is_widened, np.minimum(low, self.spread[:, 0]), low)
        high = np.where(is_widened, np.maximum(high, self.spread[:, 1]), high)
        return np.stack([low, high], axis=2).clip(LOWEST_RATING, HIGHEST_RATING)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form for a model's metadata."""
        weights = base64.b64encode(self.weights.astype("<f4").tobytes()).decode()
        arrays = {name: getattr(self, name).tolist() for name in SHAPES}
        hashes = {name: "".join(sorted(getattr(self, name))) for name in ("seen", "perceptual")}
        return asdict(self) | arrays | hashes | {"weights": weights}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RatingHead":
        """Parse the form that `to_dict` returns.

        Raises:
            CheckpointError: For any other form, and for numbers that are not finite.
        """
        try:
            weights = np.frombuffer(base64.b64decode(values["weights"], validate=True), "<f4").reshape(2, -1)
            # Older files have one width for all images.
            if "half_widths" in values:
                valence, arousal = values["half_widths"]
                if not min(valence, arousal) >= 0:
                    raise ValueError(f"half_widths {values['half_widths']}")
                ends = [[[[-width, 0], [width, 0]] for width in (valence, arousal)]]
                values = {**values, "ends": ends, "colourless_ends": ends}
            arrays = {name: np.array(values[name], float).reshape(shape) for name, shape in SHAPES.items()}
            digits = str(values["seen"])
            seen = frozenset(digits[i : i + HASH_DIGITS] for i in range(0, len(digits), HASH_DIGITS))
            digits = str(values.get("perceptual", ""))
            bytes.fromhex(digits)
            perceptual = frozenset(digits[i : i + PERCEPTUAL_DIGITS] for i in range(0, len(digits), PERCEPTUAL_DIGITS))
            if len(digits) % PERCEPTUAL_DIGITS:
                raise ValueError(f"{len(digits)} digits of perceptual hashes")
            images = int(values["images"])
            trained_on = str(values["trained_on"])
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
            raise CheckpointError(f"its head for valence and arousal can't be read ({error}); fit it again") from error
        has_ends = arrays["ends"].size and arrays["colourless_ends"].size
        if not has_ends or not all(np.isfinite(part).all() for part in (weights, *arrays.values())):
            raise CheckpointError("its head for valence and arousal has numbers that are not finite; fit it again")
        return cls(weights, **arrays, images=images, trained_on=trained_on, seen=seen, perceptual=perceptual)


def _outermost(ends: NDArray[np.float64], ratings: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and the highest ends over S data sets, (N, 2) each.

    Args:
        ends: a and b of the linear error of each data set, rating and end, (S, 2, 2, 2).
        ratings: (N, 2).
    """
    values = ratings[:, :, None]  # (N, 2, 1)
    both = values + ends[:, None, :, :, 0] + ends[:, None, :, :, 1] * values  # (S, N, 2, 2)
    # The rating itself always lies in its interval.
    low = np.minimum(both[..., 0].min(axis=0), ratings)
    high = np.maximum(both[..., 1].max(axis=0), ratings)
    return low, high


def head_inputs(features: Array, logits: Array) -> NDArray[np.float64]:
    """Join the inputs of a rating head: features (N, D) and log-probabilities (N, E), as (N, D + E)."""
    return np.concatenate([np.asarray(features, np.float64), log_softmax(logits)], axis=1)
