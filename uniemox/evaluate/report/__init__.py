"""Report: runs and their scores as one HTML page."""
