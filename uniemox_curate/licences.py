"""Terms of licences by their names."""

import re
from typing import NamedTuple

# Name of a licence that is not known. It withdraws one that was given for a folder, where no name changes nothing.
UNKNOWN_LICENCE = "unknown"
# Source of files on this machine with their licence.
FOLDER_EXAMPLE = "'folder:PATH?licence=CC-BY-4.0&author=NAME'"


class Terms(NamedTuple):
    """Terms of a licence; None where unknown."""

    needs_credit: bool | None = None
    allows_commerce: bool | None = None
    allows_changes: bool | None = None


def terms_of(licence: str) -> Terms:
    """Return the terms of a licence by its short name, as Openverse, Commons and people write it.

    >>> terms_of("CC BY-NC-SA 4.0")
    Terms(needs_credit=True, allows_commerce=False, allows_changes=True)
    """
    word = re.sub(r"[\s_]+", "-", licence.strip().lower())
    if word.startswith("bing"):
        return Terms()
    if re.search(r"(^|-)(cc0|cc-zero|pdm|public-domain)", word) or word.startswith("pd"):
        return Terms(False, True, True)
    match = re.match(r"(cc-)?by((?:-(?:nc|nd|sa))*)(-\d.*)?$", word)
    if match:
        return Terms(True, "-nc" not in match.group(2), "-nd" not in match.group(2))
    return Terms()
