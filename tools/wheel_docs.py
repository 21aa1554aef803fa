"""Add the pages of docs to the wheel, without their images, for `uniemox docs`. Called by hatchling."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelDocs(BuildHookInterface):
    """Build hook for wheels; clones are installed without a copy of the pages."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Set the pages and their paths in the wheel."""
        if version == "editable":
            return
        root = Path(self.root)
        pages = (root / "docs").rglob("*.md")
        build_data["force_include"] |= {str(page): f"uniemox/{page.relative_to(root).as_posix()}" for page in pages}
