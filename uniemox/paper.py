"""The figures of arXiv 2409.18877, as published."""

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def paper_tables() -> dict[str, Any]:
    """Return every table of the paper by name; its entry "about" explains the numbers and lists missing ones."""
    return json.loads(files("uniemox").joinpath("paper.json").read_text("utf-8"))
