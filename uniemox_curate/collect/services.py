"""Search services: Openverse, Commons and Bing."""

import json
import re
import time
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any
from urllib.parse import quote_plus, urlencode

from uniemox.errors import DataError
from uniemox.io import parse_json
from uniemox_curate.collect.candidates import Candidate, ImageSource, address_of, cleaned, text_of
from uniemox_curate.collect.config import CollectConfig
from uniemox_curate.collect.fetch import FetchError, get
from uniemox_curate.collect.schedule import Download, fetch_all

OPENVERSE = "https://api.openverse.org/v1/images/"
# Maximum number of results on a page without a key.
OPENVERSE_PAGE = 20
# Names of a candidate's fields in answers.
OPENVERSE_FIELDS = {
    **{"address": "url", "page": "foreign_landing_url", "title": "title", "author": "creator"},
    **{"licence": "license", "licence_address": "license_url"},
}
COMMONS = "https://commons.wikimedia.org/w/api.php"
COMMONS_QUERY = {
    **{"action": "query", "format": "json", "formatversion": "2", "generator": "search", "gsrnamespace": "6"},
    **{"gsrlimit": "50", "prop": "imageinfo", "iiprop": "url|size|mime|extmetadata", "maxlag": "5"},
    # The service scales images, because originals may have 100 megapixels.
    "iiurlwidth": "1024",
}
BING = "https://www.bing.com"
# Maximum number of results that the service gives for a search.
BING_MAX = 1000
# Pauses between two requests. Openverse allows 20 requests a minute without a key.
PAUSES_S = {"openverse": 3.0, "commons": 1.0, "bing": 2.0}


def search_service(name: str, results: Callable[[str, int], Iterator[dict[str, str]]]) -> ImageSource:
    """Return a source that is searched for keywords and returns each address once.

    Args:
        name: Name of the service.
        results: Function that yields the fields of candidates for a keyword, in the service's order, up to about a
            limit.
    """

    def offers(label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        addresses: set[str] = set()
        for rank, fields in enumerate(results(keyword, limit)):
            if len(addresses) >= limit:
                return
            if fields["address"] and fields["address"] not in addresses:
                addresses.add(fields["address"])
                yield Candidate(rank=rank, keyword=keyword, label=label, **fields)

    return ImageSource(name, offers)


class PagedSearch:
    """Downloads the pages of a search service one by one, with pauses and retries.

    Args:
        config: Limits of the requests.
        pause_s: Pause between two requests.
    """

    def __init__(self, config: CollectConfig, *, pause_s: float) -> None:
        self.config = config
        self.pause_s = pause_s
        self._next_at = 0.0

    def __call__(self, address: str) -> bytes:
        """Return the bytes of a page.

        Raises:
            DataError: With the address, after all tries.
        """
        time.sleep(max(0.0, self._next_at - time.monotonic()))
        ((_, result),) = fetch_all([Download(address)], lambda job: get(job.address, self.config), self.config)
        self._next_at = time.monotonic() + self.pause_s
        if isinstance(result, FetchError):
            raise DataError(f"{address}: {result.reason}; earlier results are kept, run collect again to continue")
        return result


def openverse(fetch_page: PagedSearch, api: str = OPENVERSE) -> ImageSource:
    """Return the search of Openverse: openly licensed images with licence and author.

    Args:
        fetch_page: Function that returns the bytes of a page.
        api: Address of the service.
    """

    def results(keyword: str, limit: int) -> Iterator[dict[str, str]]:
        count = 0
        page = 1
        pages = 1
        while count < limit and page <= pages:
            query = urlencode({"q": keyword, "page": page, "page_size": OPENVERSE_PAGE})
            response = parse_json(fetch_page(f"{api}?{query}"), Any, f"{api}: its response", remedy="try again later")
            content = _dict(response)
            rows = content.get("results")
            if not isinstance(rows, list):
                raise DataError(f"{api}: its answer has no list results; has its interface changed?")
            for row in map(_dict, rows):
                count += 1
                fields = cleaned({name: row.get(key) for name, key in OPENVERSE_FIELDS.items()})
                fields["licence"] = f"{fields['licence']} {text_of(row.get('license_version'))}".strip()
                yield fields
            page_count = content.get("page_count")
            # A service may count pages that it does not have.
            pages = page_count if isinstance(page_count, int) and rows else 0
            page += 1

    return search_service("openverse", results)


def commons(fetch_page: PagedSearch, api: str = COMMONS) -> ImageSource:
    """Return the search of Wikimedia Commons: free images with licence and author.

    Args:
        fetch_page: Function that returns the bytes of a page.
        api: Address of the service.
    """

    def results(keyword: str, limit: int) -> Iterator[dict[str, str]]:
        count = 0
        continuation = dict[str, str]()
        while count < limit:
            query = urlencode({**COMMONS_QUERY, "gsrsearch": f"filetype:bitmap {keyword}", **continuation})
            content = parse_json(fetch_page(f"{api}?{query}"), Any, f"{api}: its response", remedy="try again later")
            if not isinstance(content, dict) or "error" in content:
                reason = text_of(_dict(_dict(content).get("error")).get("info")) or "unknown"
                raise DataError(f"{api}: it reports an error: {reason}")
            # Without any result, the answer has no query.
            rows = _dict(content["query"]).get("pages") if "query" in content else []
            if not isinstance(rows, list):
                raise DataError(f"{api}: its answer has no list query.pages; has its interface changed?")
            rows = [row for row in rows if isinstance(row, dict)]
            for row in sorted(rows, key=lambda row: row["index"] if isinstance(row.get("index"), int) else 0):
                count += 1
                yield _commons_fields(row)
            continuation = {name: str(value) for name, value in _dict(content.get("continue")).items()}
            if not rows or not continuation:
                return

    return search_service("commons", results)


def _commons_fields(row: dict[str, Any]) -> dict[str, str]:
    infos = row.get("imageinfo")
    info = _dict(infos[0]) if isinstance(infos, list) and infos else {}
    values = {name: _dict(entry).get("value") for name, entry in _dict(info.get("extmetadata")).items()}
    named = {"licence": "LicenseShortName", "licence_address": "LicenseUrl", "author": "Artist"}
    fields = {"page": info.get("descriptionurl"), **{name: values.get(key) for name, key in named.items()}}
    address = address_of(info.get("thumburl")) or info.get("url")
    return cleaned({"address": address, "title": text_of(row.get("title")).removeprefix("File:"), **fields})


def bing(fetch_page: PagedSearch, *, licence: str | None = None, site: str = BING) -> ImageSource:
    """Return the image search of Bing, which Emo8 used. It gives about 1,000 results and no licences.

    Args:
        fetch_page: Function that returns the bytes of a page.
        licence: Licence filter; None takes everything.
        site: Address of the service.
    """

    def results(keyword: str, limit: int) -> Iterator[dict[str, str]]:
        addresses = set()
        for address in bing_pages(keyword, min(limit, BING_MAX), licence):
            rows = _bing_rows(fetch_page(address.replace(BING, site, 1)))
            fresh = [row for row in rows if row.get("murl") not in addresses]
            for row in fresh:
                addresses.add(row.get("murl"))
                yield cleaned({"address": row.get("murl"), "page": row.get("purl"), "title": row.get("t")}) | {
                    "licence": f"Bing's filter {licence}" if licence else ""
                }
            # The service repeats its last page forever.
            if not fresh:
                return

    return search_service("bing", results)


def bing_pages(keyword: str, limit: int, licence: str | None) -> Iterator[str]:
    """Yield the addresses of result pages, which icrawler's feeder makes."""
    from icrawler.builtin.bing import BingFeeder  # type: ignore[import-untyped]  # noqa: PLC0415 - it takes a second
    from icrawler.utils import Signal  # type: ignore[import-untyped]  # noqa: PLC0415

    feeder = BingFeeder(1, Signal(), None)
    feeder.out_queue = Queue()
    feeder.feed(quote_plus(keyword), 0, limit, {"license": licence} if licence else None)
    while not feeder.out_queue.empty():
        yield feeder.out_queue.get()


def _bing_rows(page: bytes) -> list[dict[str, Any]]:
    """Return murl (address), purl (page) and t (title) of each image.

    icrawler's own parser takes only addresses that end in .jpg.

    Raises:
        DataError: For a page that asks for proof of a person.
    """
    from bs4 import BeautifulSoup  # noqa: PLC0415 - icrawler brings it

    text = page.decode("utf-8", "ignore")
    rows = []
    for link in BeautifulSoup(text, "lxml").select("div.imgpt a[m]"):
        try:
            rows.append(_dict(json.loads(str(link["m"]))))
        except (ValueError, RecursionError):
            continue
    if not rows and re.search("captcha|unusual traffic", text, re.IGNORECASE):
        raise DataError("Bing asks for proof that you are a person; wait some hours, or use another source")
    return rows


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
