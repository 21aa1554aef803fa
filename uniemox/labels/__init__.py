"""Label sets of emotion research, the kind of emotion that each describes, and maps between them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
