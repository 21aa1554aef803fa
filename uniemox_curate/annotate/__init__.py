"""Annotate: the web application for annotators and the owner, and the agreement between annotators."""
