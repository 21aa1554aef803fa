"""Comparison of names that look the same: labels, columns, groups and paths, as different systems write them.

macOS decomposes accents (NFD), Windows and Linux mostly compose them (NFC). Spreadsheets and web pages add blanks of
other widths and characters without any width.
"""

import unicodedata
from collections.abc import Collection, Iterable

VARIATION_SELECTORS = "".join(map(chr, range(0xFE00, 0xFE10)))
INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0" + VARIATION_SELECTORS
"""Characters without a glyph whose category is not Cf: joiners, fillers, variation selectors.

Source: Default_Ignorable_Code_Point of Unicode 15, DerivedCoreProperties.txt.
"""

QUOTES = "'\"\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb"
"""Straight quotes, and those that word processors and spreadsheets write instead."""


def spelled(name: str) -> str:
    """Return the form of a name that is compared: composed (NFC), each run of blanks as one space, nothing invisible.

    >>> spelled("fro\\u0308hlich\\u200b") == spelled("fr\\u00f6hlich ") == "fr\\u00f6hlich"
    True
    """
    if name.isascii():
        return " ".join(name.split())
    visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf" and letter not in INVISIBLE)
    return " ".join(unicodedata.normalize("NFC", visible).split())


def spelled_alike(names: Iterable[str]) -> list[str]:
    """Return the first names that differ from each other only in spelling; an empty list if there are none.

    >>> spelled_alike(["awe", "fear", "awe "])
    ['awe', 'awe ']
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        groups.setdefault(spelled(name), []).append(name)
    return next((group for group in groups.values() if len(group) > 1), [])


def match_names(names: Iterable[str], existing: Collection[str]) -> dict[str, str]:
    """Return the existing name of each name: the same one, or the only one that is spelled alike.

    Names without a counterpart are left out.

    Args:
        names: Names to look up.
        existing: A set or mapping, in which looking up a name takes no time.
    """
    # Filled at the first name that is not found, because it takes long for large data sets.
    by_spelling: dict[str, list[str]] = {}
    matches: dict[str, str] = {}
    for name in names:
        if name in existing:
            matches[name] = name
            continue
        if not by_spelling:
            for other in existing:
                by_spelling.setdefault(spelled(other), []).append(other)
        others = by_spelling.get(spelled(name), [])
        if len(others) == 1:
            matches[name] = others[0]
    return matches


def similar_name(name: str, known: Iterable[str], cutoff: float = 0.65) -> str | None:
    """Return the known name that is most similar to an unknown one; None if none is similar.

    Args:
        name: The unknown name.
        known: Names to choose from.
        cutoff: Minimum similarity, 0 to 1, see `difflib.get_close_matches`.

    >>> similar_name("embeded", ["small", "embedded"]), similar_name("joy", ["fear"])
    ('embedded', None)
    """
    import difflib  # noqa: PLC0415 - only after a mistake

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name; empty if no known name is similar.

    >>> did_you_mean("embeded", ["small", "embedded"])
    "; did you mean 'embedded'?"
    """
    similar = similar_name(name, known)
    return "" if similar is None else f"; did you mean {similar!r}?"
