# Public names of uniemox.pretrain; clients import no others.
from .config import PretrainConfig as PretrainConfig
from .presets import PRESETS as PRESETS
from .run import dry_run as dry_run
