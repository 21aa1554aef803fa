"""Takedown of an image that is named by a path."""

from pathlib import Path

import pytest
from sqlalchemy import select, update

from tests.curate.test_release import agreed
from uniemox.errors import ConfigError
from uniemox_curate import tables as t
from uniemox_curate.project import Project
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.run import release
from uniemox_curate.release.takedown import take_down


def test_an_image_is_named_by_its_path_in_a_release_or_in_the_folder_that_was_collected(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    first, second, *_ = sorted((tmp_path / "a" / "pictures").rglob("*.jpg"))
    done = take_down(project, str(first.relative_to(tmp_path)), because="asked")
    assert first.stem in {digest[:20] for digest in done.sha256}
    assert not first.exists()
    photo = tmp_path / "photos" / "my photo.jpg"
    [row] = project.rows(select(t.images).where(t.images.c.sha256.startswith(second.stem)))
    with project.store.write() as connection:
        of_image = update(t.candidates).where(t.candidates.c.picture_id == row.id)
        connection.execute(of_image.values(source=t.FOLDER, address=photo.as_uri()))
    assert row.sha256 in take_down(project, str(photo), because="asked").sha256
    with pytest.raises(ConfigError, match="expected an address, the path of an image in a release"):
        take_down(project, str(photo.with_name("other.jpg")), because="asked")


def collected_from(tmp_path: Path, *folders: str) -> Project:
    """Return a project with the images that were collected from folders."""
    project = agreed(tmp_path)
    rows = project.rows(select(t.images).order_by(t.images.c.id))
    with project.store.write() as connection:
        for row, folder in zip(rows, folders, strict=False):
            of_image = update(t.candidates).where(t.candidates.c.picture_id == row.id)
            address = (tmp_path / folder / "awe" / "1.jpg").as_uri()
            connection.execute(of_image.values(source=t.FOLDER, address=address, title="awe/1.jpg"))
    return project


def test_a_path_in_a_collected_folder_is_found_through_links_and_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, which in enumerate(("../%_ photos/awe/1.jpg", "link/awe/1.jpg", "awe/1.jpg")):
        folder = tmp_path / str(number)
        (folder / "%_ photos").mkdir(parents=True)
        (folder / "link").symlink_to(folder / "%_ photos")
        project = collected_from(folder, "sub/../%_ photos")
        (folder / "sub").mkdir()
        monkeypatch.chdir(folder / "sub" if which.startswith("..") else folder)
        first = project.rows(select(t.images).order_by(t.images.c.id))[0]
        assert take_down(project, which, because="asked").sha256 == (first.sha256,)


def test_a_path_in_one_collected_folder_spares_the_image_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = collected_from(tmp_path, "a", "b")
    first, second, *_ = project.rows(select(t.images).order_by(t.images.c.id))
    with pytest.raises(ConfigError, match=r"2 collected folders have an image awe/1.jpg: give one of .*/b/awe/1.jpg"):
        take_down(project, "awe/1.jpg", because="asked")
    monkeypatch.chdir(tmp_path)
    assert take_down(project, "b/awe/1.jpg", because="asked").sha256 == (second.sha256,)
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert take_down(project, "awe/1.jpg", because="asked").sha256 == (first.sha256,)


def test_a_title_without_the_double_blank_of_its_file_is_found(tmp_path: Path) -> None:
    project = collected_from(tmp_path, "a")
    first = project.rows(select(t.images).order_by(t.images.c.id))[0]
    with project.store.write() as connection:
        of_image = update(t.candidates).where(t.candidates.c.picture_id == first.id)
        address = (tmp_path / "a" / "awe" / "a  b.jpg").as_uri()
        connection.execute(of_image.values(address=address, title="awe/a b.jpg"))
    assert take_down(project, "awe/a b.jpg", because="asked").sha256 == (first.sha256,)


def test_a_file_that_was_not_collected_is_not_taken_for_one_of_the_same_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = collected_from(tmp_path, "a")
    (tmp_path / "mine" / "awe").mkdir(parents=True)
    (tmp_path / "mine" / "awe" / "1.jpg").write_bytes(b"another image")
    monkeypatch.chdir(tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"awe/1.jpg is a file that was not collected; .*\(.*/a/awe/1.jpg\)"):
        take_down(project, "awe/1.jpg", because="asked")


def test_a_link_of_another_name_means_the_collected_file(tmp_path: Path) -> None:
    project = collected_from(tmp_path, "a")
    first = project.rows(select(t.images).order_by(t.images.c.id))[0]
    (tmp_path / "alias.jpg").symlink_to(tmp_path / "a" / "awe" / "1.jpg")
    assert take_down(project, str(tmp_path / "alias.jpg"), because="asked").sha256 == (first.sha256,)
