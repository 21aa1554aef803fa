"""uniemox: predict the emotions that images evoke, and, with a model trained for it, what the people in them feel.

Based on UniEmoX (arXiv 2409.18877). Importing the package imports neither torch nor any other large library: each
public name is imported at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniemox.api import Run as Run
    from uniemox.api import evaluate as evaluate
    from uniemox.api import explain as explain
    from uniemox.api import export as export
    from uniemox.api import finetune as finetune
    from uniemox.api import pretrain as pretrain
    from uniemox.api import search as search
    from uniemox.api import survey as survey
    from uniemox.api import tag as tag
    from uniemox.api import untag as untag
    from uniemox.data.sample import DataSet as DataSet
    from uniemox.data.source import open_data as open_data
    from uniemox.errors import ImageError as ImageError
    from uniemox.errors import UniemoxError as UniemoxError
    from uniemox.insight.explain.explanation import Explanation as Explanation
    from uniemox.insight.explain.maps import open_explainer as open_explainer
    from uniemox.labels import LabelSet as LabelSet
    from uniemox.persons.box import Box as Box
    from uniemox.predict.film import read_film as read_film
    from uniemox.predict.opening import load as load
    from uniemox.predict.prediction import Face as Face
    from uniemox.predict.prediction import Failure as Failure
    from uniemox.predict.prediction import Person as Person
    from uniemox.predict.prediction import Prediction as Prediction
    from uniemox.predict.predictor import Predictor as Predictor
    from uniemox.predict.sklearn_features import SceneFeatures as SceneFeatures
    from uniemox.predict.tables import to_frame as to_frame

__version__ = "0.1.0"
_MODULES = {
    "Box": "uniemox.persons.box",
    "DataSet": "uniemox.data.sample",
    "Explanation": "uniemox.insight.explain.explanation",
    "Face": "uniemox.predict.prediction",
    "Failure": "uniemox.predict.prediction",
    "ImageError": "uniemox.errors",
    "LabelSet": "uniemox.labels",
    "Person": "uniemox.predict.prediction",
    "Prediction": "uniemox.predict.prediction",
    "Predictor": "uniemox.predict.predictor",
    "Run": "uniemox.api",
    "SceneFeatures": "uniemox.predict.sklearn_features",
    "UniemoxError": "uniemox.errors",
    "evaluate": "uniemox.api",
    "explain": "uniemox.api",
    "export": "uniemox.api",
    "finetune": "uniemox.api",
    "load": "uniemox.predict.opening",
    "open_data": "uniemox.data.source",
    "open_explainer": "uniemox.insight.explain.maps",
    "pretrain": "uniemox.api",
    "read_film": "uniemox.predict.film",
    "search": "uniemox.api",
    "survey": "uniemox.api",
    "tag": "uniemox.api",
    "to_frame": "uniemox.predict.tables",
    "untag": "uniemox.api",
}
if not TYPE_CHECKING:  # type checkers read the names above
    __all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name at first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return [*_MODULES, "__version__"]
