"""Weight files: safe loading of published ones, and writing of our own."""

from uniemox.checkpoints.published import load_published, load_start
from uniemox.checkpoints.reading import LoadReport
from uniemox.checkpoints.saving import convert, save_encoder

__all__ = ["LoadReport", "convert", "load_published", "load_start", "save_encoder"]
