# Public names of uniemox.model; clients import no others.
from .config import ModelConfig as ModelConfig
from .encoder import build_encoder as build_encoder
from .fusion import build_fusion as build_fusion
from .methods.relation import Attention as Attention
from .methods.relation import Embed as Embed
from .methods.relation import GroupedRegions as GroupedRegions
from .methods.relation import Relation as Relation
from .methods.relation import build_method as build_method
from .methods.relation import method_class as method_class
from .methods.relation import polarity_matrix as polarity_matrix
from .region_groups import PERSON_GROUPS as PERSON_GROUPS
from .region_groups import REGIONS_BY_DETECTOR as REGIONS_BY_DETECTOR
from .region_groups import Group as Group
from .regions import GRID as GRID
from .regions import Regions as Regions
from .regions import softmax_over_present as softmax_over_present
from .uniemox import UniEmoX as UniEmoX
