"""Notes on classes that are probably no classes of their own: other spellings, and words for a missing label."""

import html
import re
import unicodedata
from collections.abc import Mapping, Sequence

from uniemox.labels import LABEL_SETS, LabelSet, names_of_one_label, quoted
from uniemox.plurals import counted
from uniemox.spelling import similar_name

# Combining classes of the accents of Latin, Greek and Cyrillic letters. Marks of other scripts are parts of words.
_ACCENTS = frozenset((202, 216, 220, 230))
# Cyrillic and Greek letters that look like Latin ones.
_LOOKALIKES = str.maketrans("аеорсухіјѕνοι", "aeopcyxijsvoi")
_NUMBER_SIGNS = re.compile(r"-(?=\d)|(?<=\d)[.,](?=\d)")
# First letters of the Unicode categories of punctuation and blanks.
_SEPARATING = "PZ"
# A class of so few images may be a misspelt one, if the class of a similar name has so many times more.
MAX_OF_RARE = 2
MIN_TIMES_LARGER = 5
SIMILARITY = 0.8
MAX_NOTES = 5
_PUBLISHED = frozenset(label for labels in LABEL_SETS for label in labels.labels)
_WORDS_FOR_MISSING = frozenset(
    ("missing", "undefined", "unlabeled", "unlabelled", "unknown", "unspecified", "no label", "not available", "todo")
)


def notes_on_labels(labels: LabelSet) -> list[str]:
    """Return notes on classes that look alike, and on those whose name says that the label is missing."""
    notes = []
    same = names_of_one_label(labels)
    if same is not None:
        published, names = same
        notes.append(
            f"the classes {' and '.join(names)} are one label of {published.name}, and two here; to make them one, "
            f"give them one name, or read a folder or a table with labels={published.name}"
        )
    notes += [
        f"the classes {' and '.join(map(quoted, group))} look like one; if they are, give them one name"
        for group in _alike(labels.labels)
    ]
    notes += [
        f"{label} counts as a class; if it means that the label is missing, leave its images out"
        for label in labels.labels
        if label in _WORDS_FOR_MISSING
    ]
    return notes


def notes_on_rare_labels(labels: LabelSet, counts: Mapping[str, int]) -> list[str]:
    """Return notes on classes of one or two images whose name resembles that of a large class.

    Args:
        labels: The classes.
        counts: Number of images by class.
    """
    notes = []
    for label in labels.labels:
        count = counts.get(label, 0)
        # Numbers resemble each other.
        if not 0 < count <= MAX_OF_RARE or re.search(r"\d", label):
            continue
        large = [other for other in labels.labels if counts.get(other, 0) >= MIN_TIMES_LARGER * count]
        large = [other for other in large if not _is_derived(label, other)]
        similar = similar_name(label, large, cutoff=SIMILARITY)
        if similar is not None and not _PUBLISHED.issuperset((label, similar)):
            notes.append(
                f"the class {quoted(label)} has {counted(count, 'image')} and resembles {quoted(similar)} "
                f"({counts[similar]:,}); if it is misspelt, correct it"
            )
    if len(notes) > MAX_NOTES:
        more = counted(len(notes) - MAX_NOTES, "more class resembles", "more classes resemble")
        notes[MAX_NOTES:] = [f"{more} a large one by name"]
    return notes


def _is_derived(label: str, other: str) -> bool:
    """Return True if one word contains the other and more than a letter besides, such as unhappy."""
    return abs(len(label) - len(other)) > 1 and (label in other or other in label)


def _alike(labels: Sequence[str]) -> list[list[str]]:
    """Return groups of labels that are equal without accents, punctuation and the like; not of published labels."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(_skeleton(label), []).append(label)
    return [group for key, group in groups.items() if key and len(group) > 1 and not _PUBLISHED.issuperset(group)]


def _skeleton(label: str) -> str:
    """Return what remains of a label without case, accents, punctuation, blanks, and zeros before numbers.

    >>> _skeleton("Very_Happy!") == _skeleton("very happy"), _skeleton("SPASS") == _skeleton("spa\\u00df")
    (True, True)
    >>> _skeleton("-1") == _skeleton("1"), _skeleton("1.0") == _skeleton("10")
    (False, False)
    """
    decomposed = unicodedata.normalize("NFKD", html.unescape(label).casefold())
    letters = "".join(letter for letter in decomposed if unicodedata.combining(letter) not in _ACCENTS)
    without_zeros = re.sub(r"(?<![\w.,])0+(?=\d)", "", letters.translate(_LOOKALIKES))
    # The sign and the point of a number are part of it.
    number_signs = {match.start() for match in _NUMBER_SIGNS.finditer(without_zeros)}
    return "".join(
        letter
        for index, letter in enumerate(without_zeros)
        if index in number_signs or unicodedata.category(letter)[0] not in _SEPARATING
    )
