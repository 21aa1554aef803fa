# Public names of uniemox.insight; clients import no others.
from .explain.maps import heat_map as heat_map
from .explain.reconstructions import check_mae_decoder as check_mae_decoder
from .site.writing import PAGE_FOLDER as PAGE_FOLDER
from .site.writing import STYLE_NAME as STYLE_NAME
