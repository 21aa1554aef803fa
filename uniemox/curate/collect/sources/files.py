"""Images that somebody has already: a local folder, and a table of addresses."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from uniemox.curate.collect.sources.candidate import Candidate, Words, address_of, one_line, text_of
from uniemox.curate.plan import CollectionPlan
from uniemox.data.readers.folders import checked_folder, images_below
from uniemox.data.readers.tables import read_rows
from uniemox.errors import DataError, LabelError
from uniemox.io.csv_files import plain_cell
from uniemox.labels import clean

MAX_NAMED = 8  # folders in a message
ALIASES = {
    "url": "address",
    "license": "licence",
    "license_address": "licence_address",
    "license_url": "licence_address",
}


class LocalFolder:
    """`[<label>/][<keyword>/]<image>` below a folder; what lies in no folder has no label.

    with_labels: whether folders at the top are labels; otherwise all folders are keywords, and no image has a label.
    Raises DataError without images, LabelError for a folder at the top that is no label and no search word of the plan.
    """

    name = "folder"

    def __init__(self, root: Path, plan: CollectionPlan, *, with_labels: bool = True) -> None:
        self.paths = images_below(checked_folder(root))
        if not self.paths:
            raise DataError(f"{root}: no images below this folder")
        of_word = {word.lower(): label for label, words in plan.keywords.items() for word in words}
        tops = Counter(key.split("/")[0] for key in self.paths if "/" in key) if with_labels else Counter[str]()
        self.labels = {top: _label(plan, top) or of_word.get(top.lower()) for top in tops}
        unknown = {top: tops[top] for top, label in self.labels.items() if label is None}
        if unknown:
            named = ", ".join(
                f"{top} ({count:,} image{'s' * (count != 1)})" for top, count in list(unknown.items())[:MAX_NAMED]
            )
            raise LabelError(
                f"{root}: these folders are none of the labels {', '.join(plan.labels)}: {named}; rename them, begin "
                f"with a plan of your own (uniemox curate init --plan), or take all images without a label: "
                f"--source 'folder:{root}?labels=none'"
            )

    def words(self, plan: CollectionPlan) -> Words:
        """One list of everything."""
        return [(None, "")]

    def offers(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        """All images in the order of their names, whatever limit says; titles are their paths below the folder."""
        for rank, (key, path) in enumerate(self.paths.items()):
            first, *between = key.split("/")[:-1] or [""]
            found = self.labels.get(first)
            is_label = found is not None and clean(first) == found
            words = between if is_label else [first, *between]
            yield Candidate(
                address=path.absolute().as_uri(),
                rank=rank,
                keyword="/".join(word for word in words if word),
                label=found,
                title=one_line(key),
            )


class AddressTable:
    """A table with address (or url); keyword, label, page, title, licence, licence_address, author where known.

    Where no keyword is known its label stands for it, so that an address may be there under several labels.
    Raises DataError, with file and line, for a row that makes no sense.
    """

    name = "csv"

    def __init__(self, table: Path, plan: CollectionPlan) -> None:
        self.candidates = list(_read(table, plan))

    def words(self, plan: CollectionPlan) -> Words:
        """One list of everything."""
        return [(None, "")]

    def offers(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        """All rows, whatever limit says."""
        yield from self.candidates


def _read(table: Path, plan: CollectionPlan) -> Iterator[Candidate]:
    labels: dict[tuple[str, str], str | None] = {}
    by_word = {word.lower(): name for name, words in plan.keywords.items() for word in words}
    for rank, (line, raw) in enumerate(read_rows(table)):
        row = {ALIASES.get(name.lower(), name.lower()): plain_cell(value) for name, value in raw.items()}
        where = f"{table}:{line}"
        if not address_of(row.get("address", "")):
            raise DataError(f"{where}: expected http(s)://... in the column address, got {row.get('address')!r}")
        found = _label(plan, row.get("label", ""))
        if row.get("label") and found is None:
            raise DataError(f"{where}: {row['label']!r} is none of the labels {', '.join(plan.labels)}")
        found = found or by_word.get(row.get("keyword", "").lower())
        keyword = text_of(row.get("keyword", ""), 200) or found or ""
        if labels.setdefault((row["address"], keyword), found) != found:
            raise DataError(f"{where}: {row['address']} has the keyword {keyword!r} for another label; use another")
        yield Candidate(
            address=row["address"],
            rank=rank,
            keyword=keyword,
            label=found,
            page=address_of(row.get("page")),
            title=text_of(row.get("title")),
            licence=text_of(row.get("licence"), 200),
            licence_address=address_of(row.get("licence_address")),
            author=text_of(row.get("author")),
        )


def _label(plan: CollectionPlan, word: str) -> str | None:
    """The label that a word is, by its own name or an alias of the published set."""
    label_set = plan.label_set
    try:
        return label_set.labels[label_set.index(word)]
    except LabelError:
        return None
