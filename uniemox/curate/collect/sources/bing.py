"""Bing image search, as Emo8 used it; addresses of its pages by icrawler. It does not tell an image's licence."""

import json
import re
from collections.abc import Iterator
from queue import Queue
from typing import Any
from urllib.parse import quote_plus

from uniemox.curate.collect.sources.candidate import (
    Candidate,
    PagedSearch,
    Words,
    address_of,
    numbered,
    plan_words,
    text_of,
)
from uniemox.curate.plan import CollectionPlan
from uniemox.errors import ConfigError, DataError, MissingPackageError

SITE = "https://www.bing.com"
PAGE = 20
PAUSE_S = 2.0
MOST = 1000  # results that the service gives for a search
LICENCES = ("creativecommons", "publicdomain", "noncommercial", "commercial")


class Bing:
    """The image search of Bing.

    ask: how its pages are fetched.  licence: one of LICENCES, by which the service filters; None takes everything.
    site: its address, for tests.
    """

    name = "bing"

    def __init__(self, ask: PagedSearch, *, licence: str | None = None, site: str = SITE) -> None:
        if licence is not None and licence not in LICENCES:
            raise ConfigError(f"licence must be one of {', '.join(LICENCES)}, got {licence!r}")
        self.ask, self.licence, self.site = ask, licence, site

    def words(self, plan: CollectionPlan) -> Words:
        """Every keyword of the plan."""
        return plan_words(plan)

    def offers(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        """Results in the order of the service, at most 1,000. Raises DataError if it can't be asked."""
        return numbered(lambda: self._pages(label, keyword, min(limit, MOST)), min(limit, MOST))

    def _pages(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        rank, seen = 0, set()
        for address in page_addresses(keyword, limit, self.licence):
            rows = read_results(self.ask(address.replace(SITE, self.site, 1)))
            fresh = [row for row in rows if row.get("murl") not in seen]
            for row in fresh:
                seen.add(row.get("murl"))
                yield Candidate(
                    address=address_of(row.get("murl")),
                    rank=rank,
                    keyword=keyword,
                    label=label,
                    page=address_of(row.get("purl")),
                    title=text_of(row.get("t")),
                    licence=f"Bing's filter {self.licence}" if self.licence else "",
                )
                rank += 1
            if not fresh:  # the service repeats its last page for ever
                return


def page_addresses(keyword: str, limit: int, licence: str | None) -> Iterator[str]:
    """Addresses of the result pages, as icrawler's feeder makes them. Raises MissingPackageError without icrawler."""
    try:
        from icrawler.builtin.bing import BingFeeder  # type: ignore[import-untyped]  # noqa: PLC0415
        from icrawler.utils import Signal  # type: ignore[import-untyped]  # noqa: PLC0415
    except ImportError:
        raise MissingPackageError("the source bing needs icrawler; run: pip install 'uniemox[curate]'") from None
    feeder = BingFeeder(1, Signal(), None)
    feeder.out_queue = Queue()
    feeder.feed(quote_plus(keyword), 0, limit, {"license": licence} if licence else None)
    while not feeder.out_queue.empty():
        yield feeder.out_queue.get()


def read_results(page: bytes) -> list[dict[str, Any]]:
    """What a result page says of each image: murl its address, purl the page that shows it, t the title.

    icrawler's own parser takes only the address, and only of .jpg files. Raises DataError for a page that asks for
    a proof that a person is there.
    """
    from bs4 import BeautifulSoup  # noqa: PLC0415 - icrawler brings it

    text = page.decode("utf-8", "ignore")
    rows = []
    for link in BeautifulSoup(text, "lxml").select("div.imgpt a[m]"):
        try:
            row = json.loads(str(link["m"]))
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    if not rows and re.search("captcha|unusual traffic", text, re.IGNORECASE):
        raise DataError("Bing asks whether a person is there; wait some hours, or take another source")
    return rows
