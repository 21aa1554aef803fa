"""Prediction over HTTP, and a page for people: wraps uniemox.predict and uniemox.explain, without torch."""
