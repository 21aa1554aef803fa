"""Weight files: published ones read safely into encoders, and our own written."""

from uniemox.checkpoints.published import LoadReport, load_published, load_start

__all__ = ["LoadReport", "load_published", "load_start"]
