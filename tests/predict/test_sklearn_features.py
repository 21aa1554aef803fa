"""`SceneFeatures` in a pipeline of scikit-learn."""

import pickle
from copy import deepcopy
from pathlib import Path

import joblib
import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted

from tests.drawn import draw_image
from uniemox.errors import ConfigError
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


def test_a_clone_has_the_settings_and_is_not_fitted() -> None:
    copy = clone(SceneFeatures("small", threads=1).fit([]))
    assert copy.get_params() == {"model": "small", "threads": 1}
    with pytest.raises(NotFittedError):
        check_is_fitted(copy)


def test_copies_of_a_fitted_transformer_give_the_same_features(tmp_path: Path) -> None:
    fitted = SceneFeatures("small", threads=1).fit([])
    image = draw_image(1)
    expected = fitted.transform([image])
    joblib.dump(fitted, tmp_path / "features.joblib")
    copies = (
        pickle.loads(pickle.dumps(fitted)),  # noqa: S301
        deepcopy(fitted),
        joblib.load(tmp_path / "features.joblib"),
    )
    for copy in copies:
        np.testing.assert_array_equal(copy.transform([image]), expected)


def test_features_have_names_and_become_a_data_frame() -> None:
    transformer = SceneFeatures("small").set_output(transform="pandas")
    frame = transformer.fit_transform([draw_image(0), draw_image(1)])
    assert len(frame) == 2
    assert list(frame.columns) == list(transformer.get_feature_names_out())
    assert frame.columns[0] == "scenefeatures0"


def test_columns_of_tables_are_lists_of_images(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    draw_image(0).save(path)
    transformer = SceneFeatures("small").fit([])
    expected = transformer.transform([path])
    table = pandas.DataFrame({"path": [str(path)], "label": [1]})
    columns = (table["path"], table[["path"]], np.array([str(path)]), np.array([[str(path)]]), [str(path)])
    for column in columns:
        np.testing.assert_array_equal(transformer.transform(column), expected)


@pytest.mark.parametrize("images", ["a.png", b"a", Path("a.png"), np.array([["a.png", "b.png"]])])
def test_single_images_and_tables_with_several_columns_are_refused(images: object) -> None:
    with pytest.raises(ConfigError, match="expected"):
        SceneFeatures("small").fit([]).transform(images)
