"""Terms of licences by their names."""

import re
from typing import NamedTuple

# Name of a licence that is not known. It withdraws one that was given for a folder, where no name changes nothing.
UNKNOWN_LICENCE = "unknown"
# Source of files on this machine with their licence.
FOLDER_EXAMPLE = "'folder:PATH?licence=CC-BY-4.0&author=NAME'"
ENCODING = "in a value, write %26 for &, %3F for ? and %25 for %"


class Terms(NamedTuple):
    """Terms of a licence; None where unknown."""

    needs_credit: bool | None = None
    allows_commerce: bool | None = None
    allows_changes: bool | None = None


# Names of the whole licence: "not public domain" and "CC-BY-4.0 or MIT" have other terms than their parts.
_VERSION = r"(?:-[1-4]\.\d)?"
# Ports of a licence to the law of a country, such as CC BY-SA 3.0 DE.
_COUNTRY = r"(?:-(?:[a-z]{2}|igo|unported|international))?"
# PD-old-70, PD-USGov-NASA: templates of Wikimedia Commons have a few short words.
_PUBLIC_DOMAIN = re.compile(
    r"cc0(?:-1\.0)?|cc-zero|(?:pdm|public-domain(?:-mark)?)(?:-1\.0)?|pd(?:-(?!no|not|all|rights|reserved)[a-z0-9]+){0,3}"
)
_BY = re.compile(rf"(?:cc-)?by(-nc-sa|-nc-nd|-nd-nc|-nc|-nd|-sa|){_VERSION}{_COUNTRY}")


def terms_of(licence: str) -> Terms:
    """Return the terms of a licence by its short name, as Openverse, Commons and people write it.

    >>> terms_of("CC BY-NC-SA 4.0")
    Terms(needs_credit=True, allows_commerce=False, allows_changes=True)
    """
    word = re.sub(r"[\s_]+", "-", licence.strip().lower())
    if _PUBLIC_DOMAIN.fullmatch(word):
        return Terms(False, True, True)
    match = _BY.fullmatch(word)
    if match is None:
        return Terms()
    parts = match.group(1)
    return Terms(True, "-nc" not in parts, "-nd" not in parts)
