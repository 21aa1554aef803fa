"""Values that tables write where something is missing, and labels that are numbers."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence

from uniemox.errors import LabelError
from uniemox.labels import AXES, LabelSet, clean
from uniemox.plurals import counted
from uniemox.spelling import QUOTES, spelled

_OF_PANDAS = (
    *("na", "n/a", "nan", "-nan", "<na>", "null", "#n/a", "#na", "#n/a n/a", "1.#qnan", "-1.#qnan", "1.#ind"),
    "-1.#ind",
)
# Results of formulas that failed in a spreadsheet.
_SPREADSHEET_ERRORS = ("#ref!", "#value!", "#name?", "#div/0!", "#num!", "#null!")
# As MySQL, other databases, SAS and Stata, and people write them.
_OF_OTHERS = ("\\n", "(null)", ".", "n.a.", "nat")
# Dashes in a cell without a value, and question marks.
_DASHES = frozenset("-\u2013\u2014\u2212")
_SIGNS = ("-", "--", "---", "\u2013", "\u2014", "?", "??", "???")
WORDS = frozenset((*_OF_PANDAS, *_SPREADSHEET_ERRORS, *_OF_OTHERS, *_SIGNS))
"""Missing values as programs write them, in lower case (pandas' default `na_values`, and others)."""
# Only in this case: "none" may be a class.
PYTHON_NONE = "None"
# Letters of the longest word, with quotes and invisible ones; comparing long captions would take 70 us each.
MAX_LENGTH = 40
FIELDS = ("label", "split", "text", "domain", "group", *AXES, "x1", "y1", "x2", "y2")
NUMBER = re.compile(r"(-?\d+)(\.0+)?")
# With fewer classes, -1 may be one: -1, 0, 1 for negative, neutral, positive.
MIN_IDS = 3


def is_missing(text: str) -> bool:
    """Return True for a word for a missing value, also in quotes or with invisible characters."""
    if len(text) > MAX_LENGTH:
        return False
    return _unquoted(text) == PYTHON_NONE or clean(text) in WORDS


def _unquoted(text: str) -> str:
    """Return a text as `clean` does, but in its own case."""
    return spelled(text).strip(QUOTES).strip()


def remove_missing(
    rows: Iterable[MutableMapping[str, str]], labels: LabelSet | None = None, *, votes: Sequence[str] = ()
) -> tuple[str, ...]:
    """Empty the cells that hold a word for a missing value; return notes with their numbers by column.

    Args:
        rows: Cells by column of FIELDS; other columns stay.
        labels: A set; if such a word is one of its labels, it stays. None: there is none.
        votes: Columns of votes. An empty one counts as 0; the errors of a spreadsheet stay, and are refused later.
    """
    counts: dict[str, Counter[str]] = {}
    rows = list(rows)
    vote_columns = frozenset(votes)
    # Beside +, a minus is a polarity.
    has_plus = any(set(_unquoted(row.get("label") or "")) == {"+"} for row in rows)
    for row in rows:
        for field in (*FIELDS, *votes):
            text = row.get(field)
            if not text or not is_missing(text) or (field in vote_columns and text.startswith("#")):
                continue
            is_label = field == "label" and (
                _is_label(text, labels) or (has_plus and _DASHES.issuperset(_unquoted(text)))
            )
            if not is_label:
                counts.setdefault(field, Counter())[_unquoted(text)] += 1
                row[field] = ""
    return tuple(_note(field, words) for field, words in counts.items())


def _is_label(text: str, labels: LabelSet | None) -> bool:
    """Return True if a text is a label of the set."""
    try:
        return labels is not None and labels.index(text) >= 0
    except LabelError:
        return False


def _note(field: str, words: Mapping[str, int]) -> str:
    """Return the note about a column's missing values.  words: number of cells by word."""
    values = counted(sum(words.values()), f"value of column {field} is", f"values of column {field} are")
    note = f"{values} missing ({', '.join(sorted(words))})"
    if field == "label":
        return f"{note}: no label; if this is a class, list all classes, as in ?labels=a,b"
    return note


def unify_numbers(rows: Sequence[MutableMapping[str, str]], labels: LabelSet | None = None) -> tuple[str, ...]:
    """Write label and group numbers without decimals, as tables with missing values add them: 3 for 3.0.

    A column with any other word stays. If the labels are the numbers of at least three classes from 0 on, -1 means no
    label, as in Arrow files of `datasets`.

    Args:
        labels: A set whose labels stay unchanged; None: there is none.

    Returns:
        Notes about the labels and groups -1.
    """
    for field in ("label", "group"):
        values = {text for row in rows if (text := row.get(field))}
        if field == "label" and all(_is_label(text, labels) for text in values):
            continue
        if values and all(map(NUMBER.fullmatch, values)):
            for row in rows:
                if text := row.get(field):
                    row[field] = text.partition(".")[0]
    return _empty_label_ids(rows, labels) + _group_notes(rows)


def _empty_label_ids(rows: Sequence[MutableMapping[str, str]], label_set: LabelSet | None) -> tuple[str, ...]:
    """Empty the labels -1 that mean no label; return a note with their number."""
    labels = {text for row in rows if (text := row.get("label"))}
    classes = sorted(labels - {"-1"}, key=lambda text: (len(text), text))
    if "-1" not in labels or _is_label("-1", label_set):
        return ()
    if len(classes) < MIN_IDS or not all(map(str.isdecimal, classes)):
        return ()
    unlabelled = [row for row in rows if row.get("label") == "-1"]
    for row in unlabelled:
        row["label"] = ""
    return (f"{counted(len(unlabelled), 'image has', 'images have')} the label -1: no label",)


def _group_notes(rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return a note about the group -1 among numbers, which many programs write for no group."""
    groups = Counter(text for row in rows if (text := row.get("group")))
    if "-1" not in groups or not all(map(NUMBER.fullmatch, groups)):
        return ()
    images = counted(groups["-1"], "image has", "images have")
    return (f"{images} the group -1, so one split; if it means no group, empty these cells",)
