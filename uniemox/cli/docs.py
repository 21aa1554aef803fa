"""The command that shows the documentation; its pages come with the package."""

from pathlib import Path

import uniemox
from uniemox.cli.console import out
from uniemox.errors import ConfigError

DOCS_FOLDERS = (Path(uniemox.__file__).parent / "docs", Path(uniemox.__file__).parents[1] / "docs")
"""Folders of the pages: in an installed package, and in a clone."""


def docs(page: str | None = None, /) -> None:
    """Show a page of the documentation; without a name, list the pages.

    Prints formatted text in a terminal, and plain Markdown elsewhere.

    For example:

    - uniemox docs
    - uniemox docs data | less

    Args:
        page: Name of the page, such as data or tutorials/predict.
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
    if name not in pages:
        raise ConfigError(f"there is no page {page!r}; there are {', '.join(pages)}")
    text = pages[name].read_text("utf-8")
    if out.is_terminal:
        out.print(Markdown(text, hyperlinks=False))
    else:
        print(text, end="")
