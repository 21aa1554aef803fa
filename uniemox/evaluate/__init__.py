"""Evaluation: from predictions to scores, each with its interval over other possible images."""

import lazy_loader

from uniemox.callable_package import make_callable

make_callable(__name__)
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
