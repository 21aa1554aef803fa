"""Answers as a data frame of pandas or polars, whichever is installed."""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from uniemox.errors import MissingPackageError
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.tables import as_cells, headings

LIBRARIES = ("pandas", "polars")


def to_frame(answers: Prediction | Failure | Iterable[Prediction | Failure]) -> Any:
    """A row for each image, with the columns of `uniemox predict --out answers.csv`.

    answers: what `Predictor.predict` gave; images that could not be read have their reason under `error`.
    Returns a DataFrame of pandas, or of polars where there is no pandas. Raises MissingPackageError without both.
    """
    values = [one.to_dict() for one in ([answers] if isinstance(answers, Prediction | Failure) else answers)]
    labels = next((tuple(value["scene"]) for value in values if "scene" in value), ())
    name = next((name for name in LIBRARIES if find_spec(name)), None)
    if name is None:
        raise MissingPackageError("a data frame needs pandas or polars; run: pip install pandas")
    of_film = any("time_s" in value for value in values)
    names, rows = headings(labels, of_film=of_film), [as_cells(value, labels, of_film=of_film) for value in values]
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    return import_module(name).DataFrame(dict(zip(names, map(list, columns), strict=True)))
