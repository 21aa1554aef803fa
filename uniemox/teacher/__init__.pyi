# Public names of uniemox.teacher; clients import no others.
from .attributes import ObjectClassifier as ObjectClassifier
from .config import FitConfig as FitConfig
from .features import StoredTeacher as StoredTeacher
from .features import save_features as save_features
from .fitting import dry_run as dry_run
from .opening import open_teacher as open_teacher
