# Public names of uniemox.pretrain; clients import no others.
from .config import PretrainConfig as PretrainConfig
from .config import TeacherConfig as TeacherConfig
from .presets import PRESETS as PRESETS
from .presets import demo as demo
from .run import dry_run as dry_run
from .run import pretrain as pretrain
from .step import PretrainBatch as PretrainBatch
from .step import pretrain_step as pretrain_step
