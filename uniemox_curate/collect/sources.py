"""Sources of images: a local folder, a table of addresses, and search services."""

import os
import re
import warnings
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

from uniemox.data import checked_folder, images_below, note_left_out, parse_source, read_rows
from uniemox.errors import ConfigError, DataError, LabelError
from uniemox.io import plain_cell
from uniemox.labels import clean
from uniemox_curate.collect.candidates import (
    ALIASES,
    FIELDS,
    MAX_KEYWORD,
    MAX_LICENCE,
    Candidate,
    ImageSource,
    cleaned,
    list_source,
    one_line,
    text_of,
)
from uniemox_curate.collect.config import CollectConfig
from uniemox_curate.collect.services import PAUSES_S, PagedSearch, bing, commons, openverse
from uniemox_curate.licences import ENCODING, FOLDER_EXAMPLE, UNKNOWN_LICENCE, terms_of
from uniemox_curate.plan import CollectionPlan
from uniemox_curate.tables import FOLDER

# Maximum number of folders in a message.
MAX_LISTED = 8


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


def _labels_by_word(plan: CollectionPlan) -> dict[str, str]:
    return {clean(word): label for label, words in plan.keywords.items() for word in words}


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
