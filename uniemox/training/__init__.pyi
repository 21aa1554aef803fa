# Public names of uniemox.training; clients import no others.
from .config import ScheduleConfig as ScheduleConfig
from .counting import multiply_adds as multiply_adds
from .counting import parameter_count as parameter_count
from .counting import timed as timed
from .data_record import describe_data as describe_data
from .hardware import ready_to_train as ready_to_train
from .optimization import build_optimizer as build_optimizer
from .run_folder import PACKAGES as PACKAGES
