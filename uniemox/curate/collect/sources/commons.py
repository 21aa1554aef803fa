"""Wikimedia Commons: free images, licence and author known for each (https://commons.wikimedia.org/w/api.php)."""

import json
from collections.abc import Iterator
from typing import Any
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

API = "https://commons.wikimedia.org/w/api.php"
PAGE = 50
PAUSE_S = 1.0
WIDTH_PX = 1024  # originals may have 100 megapixels; the service scales them
QUERY = {
    "action": "query",
    "format": "json",
    "formatversion": "2",
    "generator": "search",
    "gsrnamespace": "6",
    "gsrlimit": str(PAGE),
    "prop": "imageinfo",
    "iiprop": "url|size|mime|extmetadata",
    "iiurlwidth": str(WIDTH_PX),
    "maxlag": "5",
}


class Commons:
    """The search of Wikimedia Commons.

    ask: how its pages are fetched.  api: its address, for tests.
    """

    name = "commons"

    def __init__(self, ask: PagedSearch, api: str = API) -> None:
        self.ask, self.api = ask, api

    def words(self, plan: CollectionPlan) -> Words:
        """Every keyword of the plan."""
        return plan_words(plan)

    def offers(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        """Results in the order of the service. Raises DataError if it can't be asked or answers otherwise."""
        return numbered(lambda: self._pages(label, keyword, limit), limit)

    def _pages(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        found, more = 0, dict[str, str]()
        while found < limit:
            query = urlencode({**QUERY, "gsrsearch": f"filetype:bitmap {keyword}", **more})
            content = self._ask(f"{self.api}?{query}")
            rows = entries(content, self.api, "query", "pages") if "query" in content else []
            rows = [row for row in rows if isinstance(row, dict)]
            for row in sorted(rows, key=lambda row: row["index"] if isinstance(row.get("index"), int) else 0):
                found += 1
                yield _candidate(row, label, keyword, found - 1)
            told = content.get("continue")
            if not rows or not isinstance(told, dict):
                return
            more = {name: str(value) for name, value in told.items()}

    def _ask(self, address: str) -> dict[str, Any]:
        try:
            content = json.loads(self.ask(address))
        except ValueError as error:
            raise DataError(f"{self.api}: its answer is no JSON ({error})") from error
        if not isinstance(content, dict) or "error" in content:
            told = content.get("error") if isinstance(content, dict) else None
            info = told.get("info") if isinstance(told, dict) else None
            raise DataError(f"{self.api}: it answers with an error: {text_of(info) or 'unknown'}")
        return content


def _candidate(row: dict[str, Any], label: str | None, keyword: str, rank: int) -> Candidate:
    rows = row.get("imageinfo")
    info = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    told_of = info.get("extmetadata")
    about: dict[str, Any] = told_of if isinstance(told_of, dict) else {}

    def told(name: str) -> Any:
        entry = about.get(name)
        return entry.get("value") if isinstance(entry, dict) else None

    return Candidate(
        address=address_of(info.get("thumburl")) or address_of(info.get("url")),
        rank=rank,
        keyword=keyword,
        label=label,
        page=address_of(info.get("descriptionurl")),
        title=text_of(row.get("title")).removeprefix("File:"),
        licence=text_of(told("LicenseShortName")),
        licence_address=address_of(told("LicenseUrl")),
        author=text_of(told("Artist")),
    )
