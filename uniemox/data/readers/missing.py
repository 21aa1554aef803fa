"""Values that tables write where something is missing, and labels that are numbers."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence

from uniemox.errors import LabelError
from uniemox.labels import LabelSet

WORDS = frozenset(
    ("na", "n/a", "nan", "-nan", "<na>", "null", "#n/a", "#na", "#n/a n/a", "1.#qnan", "-1.#qnan", "1.#ind", "-1.#ind")
)
"""Missing values as R, pandas, spreadsheets and databases write them, in lower case (pandas' default `na_values`)."""
PYTHON_NONE = "None"  # only in this case: "none" may be a class
FIELDS = ("label", "split", "text", "domain", "group", "valence", "arousal", "x1", "y1", "x2", "y2")
NUMBER = re.compile(r"(-?\d+)(\.0+)?")
MIN_IDS = 3  # with fewer classes, -1 may be one: -1, 0, 1 for negative, neutral, positive


def is_missing(text: str) -> bool:
    """Return True for a word that stands for a missing value."""
    return text == PYTHON_NONE or text.lower() in WORDS


def remove_missing(rows: Iterable[MutableMapping[str, str]], labels: LabelSet | None = None) -> tuple[str, ...]:
    """Empty the cells that hold a word for a missing value; return notes with their numbers by column.

    rows: cells by column of FIELDS; other columns stay.  labels: a set in which such a word is a label, and stays.
    """
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for field in FIELDS:
            text = row.get(field)
            if text and is_missing(text) and not (field == "label" and _is_label(text, labels)):
                counts.setdefault(field, Counter())[text] += 1
                row[field] = ""
    return tuple(_note(field, words) for field, words in counts.items())


def _is_label(text: str, labels: LabelSet | None) -> bool:
    try:
        return labels is not None and labels.index(text) >= 0
    except LabelError:
        return False


def _note(field: str, words: Mapping[str, int]) -> str:
    note = f"{sum(words.values())} values of column {field} are missing ({', '.join(sorted(words))})"
    return f"{note}: no label; if this is a class, list all classes, as in ?labels=a,b" if field == "label" else note


def unify_numbers(rows: Sequence[MutableMapping[str, str]]) -> tuple[str, ...]:
    """Write label and group numbers without decimals, as tables with missing values add them: 3 for 3.0.

    A column with any other word stays. If the labels are the numbers of at least three classes from 0 on, -1 means no
    label, as in Arrow files of `datasets`. Returns notes.
    """
    for field in ("label", "group"):
        values = {text for row in rows if (text := row.get(field))}
        if values and all(map(NUMBER.fullmatch, values)):
            for row in rows:
                if text := row.get(field):
                    row[field] = text.partition(".")[0]
    labels = {text for row in rows if (text := row.get("label"))}
    classes = sorted(labels - {"-1"}, key=lambda text: (len(text), text))
    if "-1" not in labels or len(classes) < MIN_IDS or not all(map(str.isdecimal, classes)):
        return ()
    unlabelled = [row for row in rows if row.get("label") == "-1"]
    for row in unlabelled:
        row["label"] = ""
    return (f"{len(unlabelled)} images have the label -1: no label",)
