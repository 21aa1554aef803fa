"""Under which licences images are, and what these ask of those who use them."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a licence allows; None where it is not known."""

    name: str
    needs_credit: bool | None
    allows_commerce: bool | None
    allows_changes: bool | None


def terms_of(licence: str) -> Terms:
    """The terms of a licence by its short name, as Openverse, Commons and people write it.

    >>> terms_of("CC BY-NC-SA 4.0")
    Terms(name='CC BY-NC-SA 4.0', needs_credit=True, allows_commerce=False, allows_changes=True)
    """
    word = re.sub(r"[\s_]+", "-", licence.strip().lower())
    if not word or word == UNKNOWN or word.startswith("bing"):
        return Terms(licence.strip() or UNKNOWN, None, None, None)
    if re.search(r"(^|-)(cc0|cc-zero|pdm|public-domain)", word) or word.startswith("pd"):
        return Terms(licence.strip(), False, True, True)
    match = re.match(r"(cc-)?by((?:-(?:nc|nd|sa))*)(-\d.*)?$", word)
    if match:
        parts = match.group(2)
        return Terms(licence.strip(), True, "-nc" not in parts, "-nd" not in parts)
    return Terms(licence.strip(), None, None, None)


def is_known_licence(licence: str) -> bool:
    """Whether its terms are known."""
    return terms_of(licence).needs_credit is not None


def report(licences: Iterable[str]) -> list[str]:
    """A report in Markdown, line by line: images under each licence, and what that means for the whole."""
    counts = Counter(licence.strip() or UNKNOWN for licence in licences)
    total = counts.total()
    lines = ["| licence | images | credit | commercial use | changes |", "| --- | --- | --- | --- | --- |"]
    for name, count in counts.most_common():
        terms = terms_of(name)
        cells = (_word(terms.needs_credit), _word(terms.allows_commerce), _word(terms.allows_changes))
        lines.append(f"| {_cell(name)} | {count} | {' | '.join(cells)} |")
    known = {name: terms_of(name) for name in counts}
    unknown = sum(counts[name] for name, terms in known.items() if terms.needs_credit is None)
    closed = sum(counts[name] for name, terms in known.items() if terms.allows_commerce is False)
    fixed = sum(counts[name] for name, terms in known.items() if terms.allows_changes is False)
    lines += [
        "",
        f"{total} images; of {unknown} the licence is not known, {closed} exclude commercial use, {fixed} changes.",
    ]
    if unknown:
        lines.append(
            "An image of unknown licence is somebody's: where no law excepts research, it may not be passed on."
        )
    return lines


def _word(value: bool | None) -> str:
    return "not known" if value is None else "yes" if value else "no"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
