"""Collect: search the sources, download politely, and drop unsuitable images automatically."""
