"""Sources of images: a local folder, a table of addresses, and search services (Openverse, Commons, Bing)."""

import html
import json
import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import quote_plus, unquote, urlencode

from uniemox.data import checked_folder, images_below, note_left_out, parse_source, read_rows
from uniemox.errors import ConfigError, DataError, LabelError
from uniemox.io import parse_json, plain_cell
from uniemox.labels import clean
from uniemox_curate.collect.config import CollectConfig
from uniemox_curate.collect.fetch import FetchError, get
from uniemox_curate.collect.schedule import Download, fetch_all
from uniemox_curate.licences import ENCODING, FOLDER_EXAMPLE, UNKNOWN_LICENCE, terms_of
from uniemox_curate.plan import CollectionPlan
from uniemox_curate.tables import FOLDER

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
# Maximum number of folders in a message.
MAX_LISTED = 8
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


def local_folder(
    root: Path, plan: CollectionPlan, *, with_labels: bool = True, licence: str = "", author: str = ""
) -> ImageSource:
    """Return images `[<label>/][<keyword>/]<image>` below a folder in the order of names; others have no label.

    Titles are paths below the folder.

    Args:
        with_labels: Top folders are labels; otherwise all folders are keywords, and no image has a label.
        licence: Licence of all images; empty if it is not known.
        author: Whom the licence names; empty if it is not known.

    Raises:
        DataError: Without images or for links that lead out of the folder.
        LabelError: For a top folder that is neither a label nor a search word of the plan.
    """
    paths = images_below(checked_folder(root))
    if not paths:
        raise DataError(f"{root}: no images below this folder")
    for note in note_left_out(root):
        warnings.warn(note, stacklevel=2)
    inner = root.resolve()
    outside = [key for key, path in paths.items() if not path.resolve().is_relative_to(inner)]
    if outside:
        raise DataError(
            f"{root}: {len(outside)} links lead out of this folder, such as {outside[0]}; put copies in their places"
        )
    label_by_word = _labels_by_word(plan)
    tops = Counter(key.split("/")[0] for key in paths if "/" in key and with_labels)
    labels = {top: plan.label_of(top) or label_by_word.get(clean(top)) for top in tops}
    unknown = [f"{top} ({count:,} image{'s' * (count != 1)})" for top, count in tops.items() if labels[top] is None]
    if unknown:
        named = ", ".join(unknown[:MAX_LISTED])
        raise LabelError(
            f"{root}: these folders are none of the labels {', '.join(plan.labels)}: {named}; "
            "rename them, begin with a plan of your own (uniemox curate init --plan), or take all images without a "
            f"label: --source 'folder:{root}?labels=none'"
        )
    candidates = []
    for rank, (key, path) in enumerate(paths.items()):
        first, *between = key.split("/")[:-1] or [""]
        label = labels.get(first)
        # A folder that is named like a search word gives both the label and the keyword.
        is_label = label is not None and clean(first) == label
        words = between if is_label else [first, *between]
        keyword = "/".join(word for word in words if word)
        title = one_line(key)
        address = Path(os.path.abspath(path)).as_uri()
        candidates.append(
            Candidate(
                address=address, rank=rank, keyword=keyword, label=label, title=title, licence=licence, author=author
            )
        )
    return list_source(FOLDER, candidates)


def address_table(table: Path, plan: CollectionPlan) -> ImageSource:
    """Read a table with address (or url), and keyword, label, page, title, licence, licence_address, author.

    A row without a keyword takes its label as keyword, so that an address may have several labels.

    Raises:
        DataError: With file and line, for an invalid row.
    """
    labels: dict[tuple[str, str], str | None] = {}
    candidates = []
    label_by_word = _labels_by_word(plan)
    for rank, (line, raw) in enumerate(read_rows(table)):
        row = {ALIASES.get(name.lower(), name.lower()): plain_cell(value) for name, value in raw.items()}
        where = f"{table}:{line}"
        fields = cleaned({name: row.get(name) for name in FIELDS})
        if not fields["address"]:
            raise DataError(
                f"{where}: expected http(s)://... in the column address, got {row.get('address')!r}; "
                f"files on this machine are collected with --source {FOLDER_EXAMPLE}"
            )
        label = plan.label_of(row.get("label", ""))
        if row.get("label") and label is None:
            raise DataError(f"{where}: {row['label']!r} is none of the labels {', '.join(plan.labels)}")
        label = label or label_by_word.get(clean(row.get("keyword", "")))
        keyword = text_of(row.get("keyword", ""), MAX_KEYWORD) or label or ""
        if labels.setdefault((fields["address"], keyword), label) != label:
            raise DataError(f"{where}: {fields['address']} has the keyword {keyword!r} for another label; use another")
        candidates.append(Candidate(rank=rank, keyword=keyword, label=label, **fields))
    return list_source("csv", candidates)


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
    return one_line(html.unescape(re.sub(r"<[^>]*>", " ", str(value))), limit)


def one_line(text: str, limit: int = MAX_TEXT) -> str:
    """Return a text on one line, without unprintable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:limit]


def address_of(value: Any) -> str:
    """Return an http address; empty for anything else, such as javascript:."""
    text = value.strip() if isinstance(value, str) else ""
    if re.match(r"https?://", text) and len(text) <= MAX_ADDRESS:
        return text
    return ""


def _labels_by_word(plan: CollectionPlan) -> dict[str, str]:
    return {clean(word): label for label, words in plan.keywords.items() for word in words}


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


def open_source(name: str, plan: CollectionPlan, config: CollectConfig) -> ImageSource:
    """Return the source of a name: folder:PATH, csv:TABLE or a service.

    Raises:
        ConfigError: For an unknown name.
    """
    kind, _, path = name.partition(":")
    if kind == FOLDER and path:
        return _open_folder(name, plan)
    if kind == "csv" and path:
        return address_table(Path(path), plan)
    if name not in PAUSES_S:
        raise ConfigError(f"{name!r} is not a source; there are openverse, commons, bing, csv:TABLE and folder:PATH")
    fetch_page = PagedSearch(config, pause_s=PAUSES_S[name])
    if name == "bing":
        return bing(fetch_page, licence=config.licence)
    if name == "openverse":
        return openverse(fetch_page)
    return commons(fetch_page)


def _open_folder(name: str, plan: CollectionPlan) -> ImageSource:
    """Return the source of folder:PATH?labels=none&licence=LICENCE&author=NAME; values are percent-decoded.

    Raises:
        ConfigError: For another option, a licence whose terms are not known, or one that needs an author.
    """
    _, folder, options = parse_source(name)
    if re.search(r"\?\w+=", folder) and not Path(folder).is_dir():
        raise ConfigError(f"{name!r}: every part after & must be an option, as in {FOLDER_EXAMPLE}; {ENCODING}")
    if {"licence", "license"} <= options.keys():
        raise ConfigError(f"{name!r}: licence is given twice; give it once")
    options = {ALIASES.get(option, option): unquote(value) for option, value in options.items()}
    if options.keys() - {"labels", "licence", "author"} or options.get("labels", "none") != "none":
        raise ConfigError(f"{name!r}: the options of a folder are labels=none, licence and author")
    licence = one_line(options.get("licence", ""), MAX_LICENCE)
    author = one_line(options.get("author", ""))
    terms = terms_of(licence)
    if licence not in ("", UNKNOWN_LICENCE) and terms.needs_credit is None:
        raise ConfigError(
            f"{name!r}: the terms of the licence {licence!r} are not known; give CC0-1.0, public-domain, CC-BY-4.0 or "
            f"another licence CC BY, or licence={UNKNOWN_LICENCE} to withdraw one"
        )
    if terms.needs_credit and not author:
        raise ConfigError(f"{name!r}: {licence} requires credit; say to whom, as in {FOLDER_EXAMPLE}")
    return local_folder(Path(folder), plan, with_labels="labels" not in options, licence=licence, author=author)


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
            pages = page_count if isinstance(page_count, int) else 0
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
