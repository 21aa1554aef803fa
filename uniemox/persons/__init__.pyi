# Public names of uniemox.persons; clients import no others.
from .box import Box as Box
