"""Prediction over HTTP, and a web page: wraps uniemox.predict and uniemox.insight.explain, without torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
