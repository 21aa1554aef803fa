"""Prediction over HTTP, and a web page: wraps uniemox.predict and uniemox.predict.explain, without torch."""
