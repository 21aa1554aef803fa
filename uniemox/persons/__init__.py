"""People in an image: boxes, detectors, crops. Does not import torch and knows no data sets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
