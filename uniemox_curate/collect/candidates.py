"""Candidates for images, and the texts about them that sources give."""

import html
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Maximum numbers of characters; the column of licences in the database has 200.
MAX_TEXT = 500
MAX_LICENCE = 200
MAX_KEYWORD = 200
MAX_ADDRESS = 2000
ADDRESSES = ("address", "page", "licence_address")
# Fields of a candidate besides label and keyword.
FIELDS = (*ADDRESSES, "title", "licence", "author")
# Other names of columns in tables.
ALIASES = {"url": "address", "license": "licence"}
ALIASES |= dict.fromkeys(("license_address", "license_url"), "licence_address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An image that a source offers for a keyword. Fields that the source does not know are empty."""

    address: str
    rank: int
    """Place among the keyword's results, from 0."""
    keyword: str = ""
    label: str | None = None
    page: str = ""
    """Address of the page that shows it."""
    title: str = ""
    licence: str = ""
    """Short name of the licence, such as by-sa 4.0."""
    licence_address: str = ""
    author: str = ""


Offers = Callable[[str | None, str, int], Iterator[Candidate]]
"""Function that yields the candidates of a label and a keyword, up to about a limit. Raises DataError if it fails."""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """A source of candidates."""

    name: str
    offers: Offers
    is_searched: bool = True
    """True if it is searched for every keyword of the plan; False: read once, for everything that it has."""


def list_source(name: str, candidates: Sequence[Candidate]) -> ImageSource:
    """Return a source that is already a list of candidates; the first one of each address and keyword counts."""
    first = {(candidate.address, candidate.keyword): candidate for candidate in reversed(candidates)}
    return ImageSource(name, lambda *_: reversed(first.values()), is_searched=False)


def cleaned(values: Mapping[str, Any]) -> dict[str, str]:
    """Return fields of a candidate from what a stranger wrote: http addresses, and plain texts on one line."""
    limits = {"licence": MAX_LICENCE}
    return {
        name: address_of(value) if name in ADDRESSES else text_of(value, limits.get(name, MAX_TEXT))
        for name, value in values.items()
    }


def text_of(value: Any, limit: int = MAX_TEXT) -> str:
    """Return a service's value as plain text on one line, without tags; empty for anything but text or numbers."""
    if not isinstance(value, str | int | float):
        return ""
    # Without < inside a tag, the time grows with the length alone.
    return one_line(html.unescape(re.sub(r"<[^<>]*>", " ", str(value))), limit)


def one_line(text: str, limit: int = MAX_TEXT) -> str:
    """Return a text on one line, without unprintable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:limit]


def address_of(value: Any) -> str:
    """Return an http address; empty for anything else, such as javascript:."""
    text = value.strip() if isinstance(value, str) else ""
    # Half a surrogate pair is no text, and can't be saved.
    is_text = not re.search("[\ud800-\udfff]", text)
    if re.match(r"https?://", text) and len(text) <= MAX_ADDRESS and is_text:
        return text
    return ""
