"""uniemox: predict the emotions that images evoke, and, with a model trained for it, what the people in them feel.

Based on UniEmoX (arXiv 2409.18877). Importing the package imports neither torch nor any other large library: each
public name is imported at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniemox.data.sample import DataSet
    from uniemox.data.source import open_data
    from uniemox.errors import ImageError, UniemoxError
    from uniemox.labels import LabelSet
    from uniemox.persons.box import Box
    from uniemox.predict.explain.explanation import Explanation
    from uniemox.predict.explain.maps import open_explainer
    from uniemox.predict.film import read_film
    from uniemox.predict.opening import load
    from uniemox.predict.prediction import Face, Failure, Person, Prediction
    from uniemox.predict.predictor import Predictor
    from uniemox.predict.tables import to_frame

__version__ = "0.1.0"
__all__ = [
    "Box",
    "DataSet",
    "Explanation",
    "Face",
    "Failure",
    "ImageError",
    "LabelSet",
    "Person",
    "Prediction",
    "Predictor",
    "UniemoxError",
    "load",
    "open_data",
    "open_explainer",
    "read_film",
    "to_frame",
]
_MODULES = {
    "Box": "uniemox.persons.box",
    "DataSet": "uniemox.data.sample",
    "Explanation": "uniemox.predict.explain.explanation",
    "Face": "uniemox.predict.prediction",
    "Failure": "uniemox.predict.prediction",
    "ImageError": "uniemox.errors",
    "LabelSet": "uniemox.labels",
    "Person": "uniemox.predict.prediction",
    "Prediction": "uniemox.predict.prediction",
    "Predictor": "uniemox.predict.predictor",
    "UniemoxError": "uniemox.errors",
    "load": "uniemox.predict.opening",
    "open_data": "uniemox.data.source",
    "open_explainer": "uniemox.predict.explain.maps",
    "read_film": "uniemox.predict.film",
    "to_frame": "uniemox.predict.tables",
}


def __getattr__(name: str) -> Any:
    """Import a public name at first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]
