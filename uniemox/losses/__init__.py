"""Losses: equations 1, 7 to 10 and 12 of arXiv 2409.18877, and losses of other methods."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
