# Public names of uniemox.
from .api import Run as Run
from .api import evaluate as evaluate
from .api import explain as explain
from .api import export as export
from .api import few_labels as few_labels
from .api import finetune as finetune
from .api import pretrain as pretrain
from .api import search as search
from .api import survey as survey
from .api import tag as tag
from .api import untag as untag
from .data.sample import DataSet as DataSet
from .data.source import open_data as open_data
from .errors import ImageError as ImageError
from .errors import UniemoxError as UniemoxError
from .insight.explain.explanation import Explanation as Explanation
from .insight.explain.maps import open_explainer as open_explainer
from .labels.sets import LabelSet as LabelSet
from .persons.box import Box as Box
from .predict.film import read_film as read_film
from .predict.opening import load as load
from .predict.prediction import Face as Face
from .predict.prediction import Failure as Failure
from .predict.prediction import Person as Person
from .predict.prediction import Prediction as Prediction
from .predict.predictor import Predictor as Predictor
from .predict.sklearn_features import SceneFeatures as SceneFeatures
from .predict.tables import to_frame as to_frame

__version__: str
