"""The command that shows the documentation; its pages come with the package."""

from pathlib import Path

import uniemox
from uniemox.cli.console import out
from uniemox.errors import ConfigError

PLACES = (Path(uniemox.__file__).parent / "docs", Path(uniemox.__file__).parents[1] / "docs")
"""Of an installed package, of a clone."""


def docs(page: str | None = None, /) -> None:
    """Show a page of the documentation; without a name, which pages there are.

    In a terminal it is laid out; elsewhere it is the Markdown itself.

    For example:

    - uniemox docs
    - uniemox docs data | less

    Args:
        page: Such as data, or tutorials/predict.
    """
    from rich.markdown import Markdown

    pages = find_pages()
    if page is None:
        width = max(map(len, pages))
        for name, path in pages.items():
            print(f"{name:{width}}  {title_of(path)}")
        return
    name = page.removeprefix("docs/").removesuffix(".md")
    if name not in pages:
        raise ConfigError(f"there is no page {page!r}; there are {', '.join(pages)}")
    text = pages[name].read_text("utf-8")
    if out.is_terminal:
        out.print(Markdown(text, hyperlinks=False))
    else:
        print(text, end="")


def find_pages() -> dict[str, Path]:
    """The pages by name. Raises ConfigError if they are not there."""
    for place in PLACES:
        found = {path.relative_to(place).with_suffix("").as_posix(): path for path in sorted(place.rglob("*.md"))}
        if found:
            return found
    raise ConfigError("this installation came without its documentation; install uniemox again")


def title_of(path: Path) -> str:
    """The heading of a page."""
    return path.read_text("utf-8").partition("\n")[0].lstrip("# ")
