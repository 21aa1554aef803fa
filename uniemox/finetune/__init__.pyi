# Public names of uniemox.finetune; clients import no others.
from .config import AugmentConfig as AugmentConfig
from .config import FinetuneConfig as FinetuneConfig
from .presets import PRESETS as PRESETS
from .run import check_parts as check_parts
from .run import dry_run as dry_run
