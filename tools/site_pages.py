"""Add files from outside docs/ to the site as pages: README, model card, changelog and licence. A hook of mkdocs."""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

PAGES = {
    "README.md": "project/readme.md",
    "uniemox/predict/embedded/MODEL_CARD.md": "project/model-card.md",
    "recipes/README.md": "project/recipes.md",
    "CHANGELOG.md": "project/changelog.md",
    "LICENSE": "project/licence.md",
    "NOTICE": "project/notice.md",
}
"""Pages of the site by their file in the repository."""

DOWNLOADS = {"CITATION.cff": "project/CITATION.cff"}
"""Files that pages link to and that are no pages."""

SOURCES = {page: source for source, page in PAGES.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and downloads to the files of the site; nothing is written into docs/."""
    for source, uri in (PAGES | DOWNLOADS).items():
        text = (ROOT / source).read_text("utf-8")
        if source in ("LICENSE", "NOTICE"):
            # They are plain text: their line breaks and indents must stay.
            text = f"# {source}\n\n```text\n{text}```\n"
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links between files of the repository to their pages on the site."""
    uri = page.file.src_uri
    return relink(markdown, SOURCES.get(uri, f"docs/{uri}"), uri)


def relink(markdown: str, source: str, page: str) -> str:
    """Rewrite the relative links of a text for its place on the site.

    Args:
        markdown: The text.
        source: Its path in the repository, such as `docs/faq.md`.
        page: Its path on the site, such as `faq.md`.

    Returns:
        The text. Links to files that are not on the site stay as they are, so that a strict build reports them.
    """

    def rewritten(match: re.Match[str]) -> str:
        path = normpath((PurePosixPath(source).parent / match["path"]).as_posix())
        target = (PAGES | DOWNLOADS).get(path)
        if target is None and path.startswith("docs/"):
            target = path.removeprefix("docs/")
        if target is None:
            return match[0]
        return f"]({relpath(target, PurePosixPath(page).parent)}{match['anchor']})"

    return re.sub(r"\]\((?!https?:|mailto:)(?P<path>[^)#\s]+)(?P<anchor>(?:#[^)\s]*)?)\)", rewritten, markdown)
