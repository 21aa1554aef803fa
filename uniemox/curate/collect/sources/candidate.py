"""What a source offers, and what a source is."""

import html
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from uniemox.curate.collect.fetch import FetchConfig, Fetched, FetchFailure, get
from uniemox.curate.collect.politeness import PolitenessConfig
from uniemox.curate.plan import CollectionPlan
from uniemox.errors import DataError

Words = list[tuple[str | None, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An image that a source offers for a keyword. What the source does not say is empty."""

    address: str
    rank: int
    """Place among the keyword's results, from 0."""
    keyword: str = ""
    label: str | None = None
    page: str = ""
    """Where it is shown."""
    title: str = ""
    licence: str = ""
    """As short as the source has it: by-sa 4.0."""
    licence_address: str = ""
    author: str = ""


class ImageSource(Protocol):
    """Where candidates come from."""

    name: str

    def words(self, plan: CollectionPlan) -> Words:
        """Label and keyword of every search; [(None, "")] for a source that is a list already."""

    def offers(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        """The first results of a search. Raises DataError if the source can't be asked."""


class PagedSearch:
    """Pages of a search service, one after the other, with pauses and patience.

    pause_s: between two requests, what the service asks for.
    """

    def __init__(self, fetching: FetchConfig, politeness: PolitenessConfig, *, pause_s: float) -> None:
        self.fetching, self.politeness, self.pause_s = fetching, politeness, pause_s
        self._next_at = 0.0

    def __call__(self, address: str) -> bytes:
        """The bytes of a page. Raises DataError, with the address, after all tries."""
        failures = 0
        while True:
            time.sleep(max(0.0, self._next_at - time.monotonic()))
            found = get(address, self.fetching)
            self._next_at = time.monotonic() + self.pause_s
            if isinstance(found, Fetched):
                return found.data
            failures += 1
            pause = self.politeness.wait_after(failures, found.wait_s)
            if not found.may_pass or failures >= self.politeness.tries or pause > self.politeness.max_wait_s:
                raise DataError(_message(address, found))
            self._next_at = time.monotonic() + pause


def plan_words(plan: CollectionPlan) -> Words:
    """Every keyword of a plan with its label."""
    return [(label, word) for label in plan.labels for word in plan.keywords[label]]


def text_of(value: Any, limit: int = 500) -> str:
    """Plain text of what a service says, tags removed, on one line; empty for anything but texts and numbers."""
    if not isinstance(value, str | int | float):
        return ""
    return one_line(html.unescape(re.sub(r"<[^>]*>", " ", str(value))), limit)


def one_line(text: str, limit: int = 500) -> str:
    """A text without what can't be printed, on one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:limit]


def address_of(value: Any) -> str:
    """An http address that a service says; empty for anything else, such as javascript:."""
    text = value.strip() if isinstance(value, str) else ""
    return text if re.match(r"https?://", text) and len(text) <= 2000 else ""


def entries(value: Any, service: str, *path: str) -> list[Any]:
    """The list at a path of names in a JSON value. Raises DataError if there is none."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, list):
        raise DataError(f"{service}: its answer has no list {'.'.join(path)}; has its interface changed?")
    return value


def numbered(found: Callable[[], Iterator[Candidate]], limit: int) -> Iterator[Candidate]:
    """The first results, each address once."""
    seen: set[str] = set()
    for candidate in found():
        if len(seen) >= limit:
            return
        if candidate.address and candidate.address not in seen:
            seen.add(candidate.address)
            yield candidate


def _message(address: str, failure: FetchFailure) -> str:
    return f"{address}: {failure.reason}; what was found is kept, run collect again to go on"
