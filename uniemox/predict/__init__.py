"""Prediction: from an image to a Prediction, with onnxruntime and without torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
