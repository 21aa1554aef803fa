"""scikit-learn transformer from images to features."""

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from uniemox.errors import ConfigError
from uniemox.predict.images import ImageLike
from uniemox.predict.opening import load
from uniemox.predict.predictor import Predictor

# Side of the blank image with which `fit` measures the number of features.
SAMPLE_PX = 32


class SceneFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Transformer from images to the features that a model's last layer reads; needs `uniemox[data]`.

    A fitted transformer can be copied, pickled and sent to other processes; it opens its model again where it is used.

    Args:
        model: Name or path of the model, see `load`; None: the package's own.
        threads: Number of threads of the network; None: one per core.
    """

    def __init__(self, model: str | None = None, threads: int | None = None) -> None:
        self.model = model
        self.threads = threads

    def fit(self, X: Iterable[ImageLike] | ArrayLike, y: object = None) -> Self:  # noqa: N803 - scikit-learn's names
        """Open the model; images are not read.

        Args:
            X: Not used.
            y: Not used.

        Raises:
            CheckpointError: For a model that can't be opened.
            HubError: For a model that can't be fetched.
        """
        # scikit-learn's `get_feature_names_out` reads the number of columns from this attribute.
        self._n_features_out = self._predictor().embed(Image.new("RGB", (SAMPLE_PX, SAMPLE_PX))).shape[1]
        return self

    def transform(self, X: Iterable[ImageLike] | ArrayLike) -> NDArray[np.float32]:  # noqa: N803
        """Return the features of N images, (N, D).

        Args:
            X: Images that `Predictor.predict` takes: a list, a Series or column of paths, or a table with one column.

        Raises:
            ConfigError: For a single path, and for a table with several columns.
            ImageError: For the first unreadable image.
        """
        return self._predictor().embed(_listed(X))

    def _predictor(self) -> Predictor:
        if not hasattr(self, "_opened"):
            self._opened = load(self.model, finder=None, threads=self.threads)
        return self._opened

    def __sklearn_is_fitted__(self) -> bool:
        """Return True if `fit` was called."""
        return hasattr(self, "_n_features_out")

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but the open model, whose sessions can't be copied."""
        return {name: value for name, value in super().__getstate__().items() if name != "_opened"}


def _listed(images: Any) -> list[ImageLike]:
    """Return images as a list.

    Raises:
        ConfigError: For a single path, and for a table with several columns.
    """
    if isinstance(images, (str, bytes)) or hasattr(images, "__fspath__"):
        raise ConfigError(f"expected a list of images, got {images!r} alone; write [{images!r}]")
    # A Series or DataFrame of pandas or polars.
    if hasattr(images, "to_numpy"):
        images = images.to_numpy()
    # Tables and scikit-learn's pipelines give one column as (N, 1); an array of pixels is no array of objects.
    if isinstance(images, np.ndarray) and images.dtype.kind in "OUS" and images.ndim > 1:
        if images.ndim != 2 or images.shape[1] != 1:
            raise ConfigError(f"expected one column of images, got {images.shape}; choose the column with the paths")
        images = images[:, 0]
    if isinstance(images, np.ndarray) and images.dtype.kind in "US":
        return [str(image) for image in images]
    return list(images)
