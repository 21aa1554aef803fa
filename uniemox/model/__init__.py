"""Networks from views to features: encoder, decoder, fusion, and the whole model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
