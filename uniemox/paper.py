"""The figures of arXiv 2409.18877, as published."""

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def paper_tables() -> dict[str, Any]:
    """Every table of the paper by name; its entry "about" says what the numbers are and which are missing."""
    return json.loads(files("uniemox").joinpath("paper.json").read_text("utf-8"))
