"""Pre-training: the whole method of arXiv 2409.18877."""

import lazy_loader

from uniemox.callable_package import make_callable

make_callable(__name__)
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
