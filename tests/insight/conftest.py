"""A folder of photographs that tests of the index and of the search share."""

from pathlib import Path

import pytest

from tests.insight.photos import draw_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images and a broken one."""
    folder = tmp_path / "photos"
    draw_photos(folder, 6)
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder
