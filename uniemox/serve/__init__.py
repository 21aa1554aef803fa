"""Prediction over HTTP, and a page for people: wraps uniemox.predict and uniemox.predict.explain, without torch."""
