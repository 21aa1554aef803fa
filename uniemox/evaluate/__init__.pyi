# Public names of uniemox.evaluate; clients import no others.
from .evaluation import Evaluation as Evaluation
from .evaluation_files import write_evaluation as write_evaluation
from .outputs import Outputs as Outputs
from .report.scores import BELOW as BELOW
from .run import evaluate as evaluate
from .run_records import Predictions as Predictions
from .run_records import SavedEvaluation as SavedEvaluation
from .run_records import read_evaluation as read_evaluation
from .scorer import Scorer as Scorer
