"""Pre-training: the whole method of arXiv 2409.18877."""

from uniemox.callable_package import make_callable

make_callable(__name__)
