# Public names of uniemox.views; clients import no others.
from .loader import load_batches as load_batches
from .transforms import WholeViews as WholeViews
