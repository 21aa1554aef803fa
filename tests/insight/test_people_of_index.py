"""People, who take half of the time of a first index, are looked for only where somebody asks for them."""

from pathlib import Path

import pytest

import uniemox
from tests.drawn import draw_image
from uniemox.insight.index_file import index_folder, open_for_index


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        draw_image(number).save(folder / f"{number}.jpg")
    return folder


def indices(photos: Path) -> list[str]:
    """Names of the indices of a folder."""
    return sorted(path.name for path in index_folder(photos).glob("*.jsonl"))


def test_a_condition_on_people_looks_for_them(photos: Path) -> None:
    uniemox.search(photos, emotion="awe", unfamiliar=True)
    uniemox.tag(photos, unfamiliar=True)
    [plain] = indices(photos)
    assert '"persons": null' in (index_folder(photos) / plain).read_text()
    hits = uniemox.search(photos, mood="people=0", unfamiliar=True)
    assert all(hit.values["people"] == 0 for hit in hits)
    assert len(indices(photos)) == 2
    # The index without people serves as before.
    assert open_for_index(photos, None).finder is None


def test_the_index_of_a_survey_has_people_and_serves_all(photos: Path, tmp_path: Path) -> None:
    uniemox.survey(photos, out=tmp_path / "survey.html")
    before = indices(photos)
    uniemox.search(photos, emotion="awe", unfamiliar=True)
    uniemox.tag(photos, unfamiliar=True)
    assert indices(photos) == before
    assert len(before) == 1
    assert open_for_index(photos, None).finder is not None
