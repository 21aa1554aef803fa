"""Puts the pages of docs into the wheel, without their images: what `uniemox docs` shows. Called by hatchling."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelDocs(BuildHookInterface):  # type: ignore[type-arg]
    """A build hook; clones are installed without a copy."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files and where they go."""
        if version == "editable":
            return
        root = Path(self.root)
        pages = (root / "docs").rglob("*.md")
        build_data["force_include"] |= {str(page): f"uniemox/{page.relative_to(root).as_posix()}" for page in pages}
