"""The command that shows the documentation; its pages come with the package."""

from collections.abc import Mapping
from pathlib import Path

import uniemox
from uniemox.cli.console import out, say
from uniemox.cli.reference import fill_in
from uniemox.errors import ConfigError
from uniemox.plurals import counted

DOCS_FOLDERS = (Path(uniemox.__file__).parent / "docs", Path(uniemox.__file__).parents[1] / "docs")
"""Folders of the pages: in an installed package, and in a clone."""


MAX_LINES = 40
"""Lines that a search prints; a common word is in hundreds."""


def docs(page: str | None = None, /) -> None:
    """Show a page of the documentation, or the lines that contain a word; without an argument, list the pages.

    Prints formatted text in a terminal, and plain Markdown elsewhere.

    For example:

    - uniemox docs
    - uniemox docs data | less
    - uniemox docs 'likely sets'

    Args:
        page: Name of the page, such as data or tutorials/predict; or a word or phrase to search for.
    """
    from rich.markdown import Markdown

    folder = next((candidate for candidate in DOCS_FOLDERS if any(candidate.rglob("*.md"))), None)
    if folder is None:
        raise ConfigError("this installation lacks its documentation; install uniemox again")
    pages = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.md"))}
    if page is None:
        width = max(map(len, pages))
        for name, path in pages.items():
            title = path.read_text("utf-8").partition("\n")[0].lstrip("# ")
            print(f"{name:{width}}  {title}")
        return
    name = page.removeprefix("docs/").removesuffix(".md")
    # The folder of a page may be left out.
    names = [other for other in pages if other == name or other.endswith(f"/{name}")]
    if name not in pages and len(names) == 1:
        [name] = names
    if name not in pages:
        _search(page, pages)
        return
    text = _text_of(pages[name])
    if out.is_terminal:
        out.print(Markdown(text, hyperlinks=False))
    else:
        print(text, end="")


def _text_of(page: Path) -> str:
    """Return the text of a page, with signatures and docstrings where mkdocstrings would put them."""
    return fill_in(page.read_text("utf-8"))


def _search(words: str, pages: Mapping[str, Path]) -> None:
    """Print the lines that contain the words, in any case, with their pages: headings first.

    Raises:
        ConfigError: If no line contains them.
    """
    matches = [
        (name, line.strip())
        for name, path in pages.items()
        for line in _text_of(path).splitlines()
        if words.casefold() in line.casefold()
    ]
    if not matches:
        raise ConfigError(f"there is no page {words!r}, and no page contains it; there are {', '.join(pages)}")
    # A common word is in more lines than are printed, and a heading says what a whole section is about.
    matches.sort(key=lambda match: not match[1].startswith("#"))
    for name, line in matches[:MAX_LINES]:
        print(f"{name}: {line}")
    if len(matches) > MAX_LINES:
        say(f"and {counted(len(matches) - MAX_LINES, 'more line')}")
