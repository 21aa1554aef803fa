"""Readers, one module per layout of data sets on disk; `uniemox.data.source` picks one by its name."""
