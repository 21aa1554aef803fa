# Public names of uniemox.predict; clients import no others.
from .answer_labels import possible_sets as possible_sets
from .confidence import max_coverage as max_coverage
from .confidence import sigmoid as sigmoid
from .opening import load as load
from .opening import open_finder as open_finder
from .prediction import Failure as Failure
from .prediction import Prediction as Prediction
from .predictor import Predictor as Predictor
from .schema import FIELDS as FIELDS
from .schema import Field as Field
from .schema import add_field as add_field
from .schema import columns_of as columns_of
from .schema import required_type as required_type
from .schema import table_fields as table_fields
