"""scikit-learn transformer from images to features."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from uniemox.predict.images import ImageLike
from uniemox.predict.opening import load


class SceneFeatures(TransformerMixin, BaseEstimator):
    """Transformer from images to the features that a model's last layer reads; needs `uniemox[data]`.

    Args:
        model: As for `load`; None: the package's own.
        threads: Cores of the network; None: all.
    """

    def __init__(self, model: str | None = None, threads: int | None = None) -> None:
        self.model = model
        self.threads = threads

    def fit(self, X: Sequence[ImageLike], y: object = None) -> Self:  # noqa: N803 - scikit-learn's names
        """Open the model; images are ignored. Raises the errors of `load`."""
        self.predictor_ = load(self.model, finder=None, threads=self.threads)
        return self

    def transform(self, X: Sequence[ImageLike]) -> NDArray[np.float32]:  # noqa: N803
        """Return features (N, D) of N images; see `Predictor.embed` for the images and errors."""
        return self.predictor_.embed(list(X))

    def __sklearn_is_fitted__(self) -> bool:
        """Return True if the model is open."""
        return hasattr(self, "predictor_")

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings; an unpickled transformer is fitted again."""
        return {name: value for name, value in super().__getstate__().items() if name != "predictor_"}
