# Public names of uniemox.checkpoints; clients import no others.
from .classifier import load_classifier as load_classifier
from .published import load_published as load_published
from .published import load_start as load_start
from .reading import LoadReport as LoadReport
from .saving import convert as convert
from .saving import save_encoder as save_encoder
from .timm_networks import TIMM as TIMM
