"""Prediction over HTTP, and a web page: wraps uniemox.predict and uniemox.insight.explain, without torch."""
