"""Docstrings on the reference page: each parameter that a docstring tells of is an item of a list."""

import re
from typing import Any

import griffe

ITEM = re.compile(r"(?:^|(?<=\.  )|(?<=;  ))((?:\w+)(?:, \w+)*): ")


class Parameters(griffe.Extension):
    """Turns lines such as "images: (N, 3, H, W).  size: px." into a list of Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Of every object that is collected."""
        if obj.docstring is not None:
            obj.docstring.value = with_lists(obj.docstring.value)


def with_lists(text: str) -> str:
    """A docstring with its parameters as a list; the first paragraph stays.

    >>> print(with_lists("Do it.\\n\\nimages: (N, 3).  size: px.\\nRaises OSError."))
    Do it.
    <BLANKLINE>
    - `images`: (N, 3).
    - `size`: px.
    <BLANKLINE>
    Raises OSError.
    """
    first, blank, rest = text.partition("\n\n")
    lines: list[str] = []
    for line in rest.splitlines():
        if line[:1].isalpha():
            starts = [match.start(1) for match in ITEM.finditer(line)]
        else:
            starts = []
        if starts and starts[0] == 0:
            lines += ["", *(_item(line[a:b]) for a, b in zip(starts, [*starts[1:], len(line)], strict=True))]
        elif lines and lines[-1].startswith("- `") and not re.match(r"(Returns|Raises|See|As|The|With|Of) ", line):
            lines[-1] += f" {line}" if line else ""
            lines += [] if line else [""]
        else:
            lines += ["", line] if lines and lines[-1].startswith("- `") else [line]
    return first + blank + re.sub(r"(- `[^\n]*\n)\n(?=- `)", r"\1", "\n".join(lines)).strip("\n")


def _item(text: str) -> str:
    names, _, about = text.strip().partition(": ")
    return "- " + ", ".join(f"`{name}`" for name in names.split(", ")) + f": {about}"
