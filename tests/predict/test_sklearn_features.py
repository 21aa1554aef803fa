"""`SceneFeatures` in a pipeline of scikit-learn."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted

from tests.drawn import draw_image
from uniemox.predict.opening import load
from uniemox.predict.sklearn_features import SceneFeatures


def test_a_pipeline_learns_from_images(tmp_path: Path) -> None:
    paths = []
    for i in range(8):
        draw_image(i % 2).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    pipeline = make_pipeline(SceneFeatures("small"), LogisticRegression()).fit(paths, [i % 2 for i in range(8)])
    assert pipeline.predict(paths).tolist() == [0, 1] * 4
    features = pipeline[0].transform(paths[:2])
    np.testing.assert_array_equal(features, load("small", finder=None).embed(paths[:2]))


def test_settings_are_cloned_and_pickled_without_the_model() -> None:
    fitted = SceneFeatures("small", threads=1).fit([])
    for copy in (clone(fitted), pickle.loads(pickle.dumps(fitted))):  # noqa: S301
        assert copy.get_params() == {"model": "small", "threads": 1}
        with pytest.raises(NotFittedError):
            check_is_fitted(copy)
