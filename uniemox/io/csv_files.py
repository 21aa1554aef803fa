"""CSV tables that we write, and cells of ours read again.

A spreadsheet runs a text that begins with = or such as a formula; names of files and words of strangers may. OWASP's
advice, an apostrophe before it, is followed by `write_rows`, and taken back by `plain_cell`.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from typing import IO, Any

# Those of OWASP, full-width ones, and ESC, which steers terminals. An apostrophe before one of them is doubled, so that
# what was written can be told from what was there.
_RISKY = re.compile("'*[=+\\-@\t\r\n\x1b＝＋－＠]")
_MARKED = re.compile("'+[=+\\-@\t\r\n\x1b＝＋－＠]")


def write_rows(file: IO[str], rows: Iterable[Sequence[Any]], *, line_end: str = "\n") -> None:
    """Write rows, the header first; numbers as they are, texts as `safe_cell`, None as an empty cell."""
    writer = csv.writer(file, lineterminator=line_end)
    writer.writerows([safe_cell(value) for value in row] for row in rows)


def safe_cell(value: Any) -> Any:
    """A text that no spreadsheet runs; anything else as it is.

    >>> safe_cell("=1+1"), safe_cell("joy"), safe_cell(-0.5)
    ("'=1+1", 'joy', -0.5)
    """
    return f"'{value}" if isinstance(value, str) and _RISKY.match(value) else value


def plain_cell(text: str) -> str:
    """A text as it was before `safe_cell`; also of a cell to which somebody's spreadsheet has put the apostrophe.

    >>> plain_cell("'=1+1"), plain_cell("'tis joy")
    ('=1+1', "'tis joy")
    """
    return text[1:] if _MARKED.match(text) else text
