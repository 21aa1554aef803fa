"""Sources of images: the interface, a local folder, and a table of addresses. Search services are in services.py."""

import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from uniemox.curate.plan import CollectionPlan
from uniemox.data.readers.csv_table import read_rows
from uniemox.data.readers.folders import checked_folder, images_below
from uniemox.errors import DataError, LabelError
from uniemox.io.files import plain_cell
from uniemox.labels import clean

MAX_LISTED = 8  # folders in a message
ALIASES = {"url": "address", "license": "licence"}
ALIASES |= dict.fromkeys(("license_address", "license_url"), "licence_address")
Searches = list[tuple[str | None, str]]
"""Label and keyword of each search."""
EVERYTHING: Searches = [(None, "")]  # of a source that is a list already


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


class ImageSource(Protocol):
    """Anything that offers candidates."""

    @property
    def name(self) -> str:
        """Name of the source in the provenance."""

    def searches(self, plan: CollectionPlan) -> Searches:
        """Return label and keyword of every search; EVERYTHING for a source that is a list already."""

    def offers(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        """Yield the first results of a search. Raises DataError if the source can't be asked."""


class LocalFolder:
    """`[<label>/][<keyword>/]<image>` below a folder; images in no subfolder have no label.

    with_labels: top folders are labels; otherwise all folders are keywords, and no image has a label.
    Raises DataError without images, LabelError for a top folder that is neither a label nor a search word of the plan.
    """

    name = "folder"

    def __init__(self, root: Path, plan: CollectionPlan, *, with_labels: bool = True) -> None:
        self.paths = images_below(checked_folder(root))
        if not self.paths:
            raise DataError(f"{root}: no images below this folder")
        of_word = _labels_by_word(plan)
        tops = Counter(key.split("/")[0] for key in self.paths if "/" in key) if with_labels else Counter[str]()
        self.labels = {top: plan.label_of(top) or of_word.get(top.lower()) for top in tops}
        unknown = [
            f"{top} ({tops[top]:,} image{'s' * (tops[top] != 1)})"
            for top, label in self.labels.items()
            if label is None
        ]
        if unknown:
            raise LabelError(
                f"{root}: these folders are none of the labels {', '.join(plan.labels)}: "
                f"{', '.join(unknown[:MAX_LISTED])}; rename them, begin with a plan of your own (uniemox curate init "
                f"--plan), or take all images without a label: --source 'folder:{root}?labels=none'"
            )

    def searches(self, plan: CollectionPlan) -> Searches:
        """Return one search for everything."""
        return EVERYTHING

    def offers(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        """Yield all images in the order of their names; titles are their paths below the folder."""
        for rank, (key, path) in enumerate(self.paths.items()):
            first, *between = key.split("/")[:-1] or [""]
            found = self.labels.get(first)
            words = between if found is not None and clean(first) == found else [first, *between]
            keyword = "/".join(word for word in words if word)
            title = one_line(key)
            yield Candidate(address=path.absolute().as_uri(), rank=rank, keyword=keyword, label=found, title=title)


class AddressTable:
    """A table with address (or url), and keyword, label, page, title, licence, licence_address, author where known.

    A row without a keyword takes its label as keyword, so that an address may have several labels.
    Raises DataError, with file and line, for an invalid row.
    """

    name = "csv"

    def __init__(self, table: Path, plan: CollectionPlan) -> None:
        self.candidates = list(_read(table, plan))

    def searches(self, plan: CollectionPlan) -> Searches:
        """Return one search for everything."""
        return EVERYTHING

    def offers(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        """Yield all rows."""
        yield from self.candidates


def text_of(value: Any, limit: int = 500) -> str:
    """Return a service's value as plain text on one line, without tags; empty unless it is a text or number."""
    if not isinstance(value, str | int | float):
        return ""
    return one_line(html.unescape(re.sub(r"<[^>]*>", " ", str(value))), limit)


def one_line(text: str, limit: int = 500) -> str:
    """Return a text on one line, without unprintable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:limit]


def address_of(value: Any) -> str:
    """Return an http address; empty for anything else, such as javascript:."""
    text = value.strip() if isinstance(value, str) else ""
    return text if re.match(r"https?://", text) and len(text) <= 2000 else ""


def _read(table: Path, plan: CollectionPlan) -> Iterator[Candidate]:
    labels: dict[tuple[str, str], str | None] = {}
    of_word = _labels_by_word(plan)
    for rank, (line, raw) in enumerate(read_rows(table)):
        row = {ALIASES.get(name.lower(), name.lower()): plain_cell(value) for name, value in raw.items()}
        where = f"{table}:{line}"
        if not address_of(row.get("address", "")):
            raise DataError(f"{where}: expected http(s)://... in the column address, got {row.get('address')!r}")
        label = plan.label_of(row.get("label", ""))
        if row.get("label") and label is None:
            raise DataError(f"{where}: {row['label']!r} is none of the labels {', '.join(plan.labels)}")
        label = label or of_word.get(row.get("keyword", "").lower())
        keyword = text_of(row.get("keyword", ""), 200) or label or ""
        if labels.setdefault((row["address"], keyword), label) != label:
            raise DataError(f"{where}: {row['address']} has the keyword {keyword!r} for another label; use another")
        yield Candidate(
            address=row["address"],
            rank=rank,
            keyword=keyword,
            label=label,
            page=address_of(row.get("page")),
            title=text_of(row.get("title")),
            licence=text_of(row.get("licence"), 200),
            licence_address=address_of(row.get("licence_address")),
            author=text_of(row.get("author")),
        )


def _labels_by_word(plan: CollectionPlan) -> dict[str, str]:
    return {word.lower(): label for label, words in plan.keywords.items() for word in words}
