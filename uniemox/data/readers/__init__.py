"""One module for each way in which data sets lie on disk; `uniemox.data.source` picks one by its name."""
