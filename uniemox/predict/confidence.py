"""From a network's numbers to its answer: its temperature, and less confidence in images that it does not know."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo, to_affect

Array = NDArray[np.floating]
UNFAMILIAR = 0.05  # below it an image is flagged: that unlike is one in twenty of those like the training images
TRUSTED = 0.2  # from here on the network's own confidence counts in full
MIN_WEIGHT = 0.2  # of the network's own probabilities: their order stays


def familiarity_of(distances: Array, known: Sequence[float]) -> NDArray[np.float64]:
    """Share of held-out images, and of each image itself, that are at least as far from the training images, 0 to 1.

    distances: (N,).  known: of the held-out images, sorted.  Among images like them every value is as frequent: it is
    the conformal p-value of "this image is like them" (arXiv 2107.07511, section 4.4).

    >>> familiarity_of(np.array([1.0, 2.0, 9.0]), (1.0, 2.0, 3.0, 4.0)).tolist()
    [1.0, 0.8, 0.2]
    """
    nearer = np.searchsorted(np.asarray(known), np.asarray(distances, np.float64))  # (N,)
    return (len(known) - nearer + 1) / (len(known) + 1)


def probabilities_of(
    logits: Array, temperature: float | None, familiarity: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Calibrated probabilities (N, E), rows of sum 1.

    logits: (N, E).  temperature: divides them (arXiv 1706.04599); None: 1.
    familiarity: (N,). The network's probabilities count with the weight familiarity / 0.2, from 0.2 to 1; the rest is
    spread over all labels alike, since nobody can tell.

    >>> probabilities_of(np.log([[1.0, 3.0]]), None, np.array([0.1])).tolist()
    [[0.375, 0.625]]
    """
    values = np.asarray(logits, np.float64) / (temperature or 1.0)
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    shares = exponentials / exponentials.sum(axis=1, keepdims=True)
    if familiarity is None:
        return shares
    weight = np.clip(familiarity / TRUSTED, MIN_WEIGHT, 1.0)[:, None]  # (N, 1)
    return weight * shares + (1 - weight) / shares.shape[1]


def answers_of(info: ClassifierInfo, logits: Array, distances: Array | None = None) -> NDArray[np.float64]:
    """What a classifier answers: calibrated probabilities (N, E); for task affect valence and arousal (N, 2), 1 to 9.

    distances: (N,), from the training images; None: it does not know.
    """
    if info.task == "affect":
        return to_affect(np.asarray(logits, np.float64))
    familiarity = familiarity_of(distances, info.distances) if distances is not None and info.distances else None
    return probabilities_of(logits, info.temperature, familiarity)
