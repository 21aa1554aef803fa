"""Openverse: openly licensed images, licence and author known for each (https://api.openverse.org/v1/)."""

import json
from collections.abc import Iterator
from urllib.parse import urlencode

from uniemox.curate.collect.sources.candidate import (
    Candidate,
    PagedSearch,
    Words,
    address_of,
    entries,
    numbered,
    plan_words,
    text_of,
)
from uniemox.curate.plan import CollectionPlan
from uniemox.errors import DataError

API = "https://api.openverse.org/v1/images/"
PAGE = 20  # most that may be asked for without a key
PAUSE_S = 3.0  # 20 requests a minute without a key


class Openverse:
    """The search of Openverse.

    ask: how its pages are fetched.  api: its address, for tests.
    """

    name = "openverse"

    def __init__(self, ask: PagedSearch, api: str = API) -> None:
        self.ask, self.api = ask, api

    def words(self, plan: CollectionPlan) -> Words:
        """Every keyword of the plan."""
        return plan_words(plan)

    def offers(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        """Results in the order of the service. Raises DataError if it can't be asked or answers otherwise."""
        return numbered(lambda: self._pages(label, keyword, limit), limit)

    def _pages(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        rank, page, pages = 0, 1, 1
        while rank < limit and page <= pages:
            query = urlencode({"q": keyword, "page": page, "page_size": PAGE})
            try:
                content = json.loads(self.ask(f"{self.api}?{query}"))
            except ValueError as error:
                raise DataError(f"{self.api}: its answer is no JSON ({error})") from error
            for row in entries(content, self.api, "results"):
                if isinstance(row, dict):
                    yield _candidate(row, label, keyword, rank)
                rank += 1
            told = content.get("page_count")
            pages, page = told if isinstance(told, int) else 0, page + 1


def _candidate(row: dict[str, object], label: str | None, keyword: str, rank: int) -> Candidate:
    return Candidate(
        address=address_of(row.get("url")),
        rank=rank,
        keyword=keyword,
        label=label,
        page=address_of(row.get("foreign_landing_url")),
        title=text_of(row.get("title")),
        licence=f"{text_of(row.get('license'))} {text_of(row.get('license_version'))}".strip(),
        licence_address=address_of(row.get("license_url")),
        author=text_of(row.get("creator")),
    )
