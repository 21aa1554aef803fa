"""Images that somebody has already: a local folder, and a table of addresses."""

from collections.abc import Iterator
from pathlib import Path

from uniemox.csv_files import plain_cell
from uniemox.curate.collect.sources.candidate import Candidate, Words, address_of, one_line, text_of
from uniemox.curate.plan import CollectionPlan
from uniemox.data.readers.folders import checked_folder, images_below
from uniemox.data.readers.tables import read_rows
from uniemox.errors import DataError, LabelError

ALIASES = {
    "url": "address",
    "license": "licence",
    "license_address": "licence_address",
    "license_url": "licence_address",
}


class LocalFolder:
    """`[<label>/][<keyword>/]<image>` below a folder; what lies in no folder of a label has none."""

    name = "folder"

    def __init__(self, root: Path, plan: CollectionPlan) -> None:
        self.root, self.plan = root, plan

    def words(self, plan: CollectionPlan) -> Words:
        """One list of everything."""
        return [(None, "")]

    def offers(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        """All images in the order of their names, whatever most says. Raises DataError without any."""
        paths = images_below(checked_folder(self.root))
        if not paths:
            raise DataError(f"{self.root}: no images below this folder")
        for rank, (key, path) in enumerate(paths.items()):
            first, *between = key.split("/")[:-1] or [""]
            found = _label(self.plan, first)
            words = between if found else [first, *between]
            yield Candidate(
                address=path.absolute().as_uri(),
                rank=rank,
                keyword="/".join(word for word in words if word),
                label=found,
                title=one_line(path.name),
            )


class AddressTable:
    """A table with address (or url); keyword, label, page, title, licence, licence_address, author where known.

    Where no keyword is known its label stands for it, so that an address may be there under several labels.
    """

    name = "csv"

    def __init__(self, table: Path, plan: CollectionPlan) -> None:
        self.table, self.plan = table, plan

    def words(self, plan: CollectionPlan) -> Words:
        """One list of everything."""
        return [(None, "")]

    def offers(self, label: str | None, keyword: str, limit: int) -> Iterator[Candidate]:
        """All rows, whatever most says. Raises DataError, with file and line, for a row that makes no sense."""
        labels: dict[tuple[str, str], str | None] = {}
        by_word = {word.lower(): name for name, words in self.plan.keywords.items() for word in words}
        for rank, (line, raw) in enumerate(read_rows(self.table)):
            row = {ALIASES.get(name.lower(), name.lower()): plain_cell(value) for name, value in raw.items()}
            where = f"{self.table}:{line}"
            if not address_of(row.get("address", "")):
                raise DataError(f"{where}: expected http(s)://... in the column address, got {row.get('address')!r}")
            found = _label(self.plan, row.get("label", ""))
            if row.get("label") and found is None:
                raise DataError(f"{where}: {row['label']!r} is none of the labels {', '.join(self.plan.labels)}")
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
