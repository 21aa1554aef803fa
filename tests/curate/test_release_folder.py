"""Folders of releases and projects with something else in them: links, pipes, paths, older files, other releases."""

import json
import os
import shutil
from pathlib import Path

import pytest
from sqlalchemy import select, update

from tests.curate.test_release import RATIOS, agreed, sums_match
from uniemox.errors import ConfigError, DataError
from uniemox.io.files import FileLock
from uniemox_curate import tables as t
from uniemox_curate.annotate.verdicts import verdicts
from uniemox_curate.project import open_project
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.run import release
from uniemox_curate.release.splitting import split
from uniemox_curate.release.takedown import take_down
from uniemox_curate.release.writing import MARK


def test_the_mark_of_a_release_is_not_read_from_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / MARK)
    with pytest.raises(DataError, match=r"\.uniemox-release"):
        release(agreed(tmp_path), tmp_path / "a", ReleaseConfig(name="a"))


def test_a_release_does_not_replace_that_of_another_project(tmp_path: Path) -> None:
    release(agreed(tmp_path / "one"), tmp_path / "a", ReleaseConfig(name="a"))
    before = (tmp_path / "a" / "labels.csv").read_bytes()
    with pytest.raises(DataError, match="a release of another project"):
        release(agreed(tmp_path / "two"), tmp_path / "a", ReleaseConfig(name="b"))
    assert (tmp_path / "a" / "labels.csv").read_bytes() == before


@pytest.mark.parametrize("sha256", ["../../../mine", "a/b", "A" * 64])
def test_an_invalid_hash_in_the_database_is_refused(tmp_path: Path, sha256: str) -> None:
    """A project may come from a stranger; its files would be deleted, released and served."""
    project = agreed(tmp_path)
    with project.store.write() as connection:
        connection.execute(update(t.images).where(t.images.c.id == 1).values(sha256=sha256))
    (problem,) = take_down(project, "https://pictures.example/1.jpg", because="asked").problems
    assert "is not the sha256 of an image" in problem


@pytest.mark.parametrize("name", ["/tmp/elsewhere", "../elsewhere", ".git", "a\0b"])
def test_splits_that_name_paths_are_refused(tmp_path: Path, name: str) -> None:
    project = agreed(tmp_path)
    scheme = json.loads((project.folder / "splits.json").read_text())
    scheme["splits"] = {name: [key for keys in scheme["splits"].values() for key in keys]}
    (project.folder / "splits.json").write_text(json.dumps(scheme))
    with pytest.raises(DataError, match="can't be folders of a release"):
        release(project, tmp_path / "out", ReleaseConfig(name="x"))
    assert not (tmp_path / "out").exists()


def test_links_in_a_project_or_release_are_refused(tmp_path: Path) -> None:
    """A folder from somebody else may hold them: nothing is read, written or deleted through one."""
    project = agreed(tmp_path)
    private = tmp_path / "private"
    private.mkdir()
    (private / "a.jpg").write_bytes(b"mine")
    row = project.rows(select(t.images))[0]
    file = project.image_path(row.sha256, row.format)
    release(project, tmp_path / "out", ReleaseConfig(name="x"))
    shutil.rmtree(tmp_path / "out" / "pictures")
    (tmp_path / "out" / "pictures").symlink_to(private)
    with pytest.raises(DataError, match="is a link"):
        release(project, tmp_path / "out", ReleaseConfig(name="x"))
    (tmp_path / "out" / "pictures").unlink()
    (tmp_path / "out" / "notes.txt").symlink_to(private / "a.jpg")  # whose hash would be published
    with pytest.raises(DataError, match="is a link"):
        release(project, tmp_path / "out", ReleaseConfig(name="x"))
    (tmp_path / "out" / "notes.txt").unlink()
    os.mkfifo(tmp_path / "out" / "pipe")
    with pytest.raises(DataError, match="is a pipe"):
        release(project, tmp_path / "out", ReleaseConfig(name="x"))
    (tmp_path / "out" / "pipe").unlink()
    (tmp_path / "out" / "pictures").symlink_to(private)
    (project.folder / "splits.png").unlink(missing_ok=True)
    (project.folder / "splits.png").symlink_to(private / "a.jpg")
    with pytest.raises(DataError, match="is a link"):
        release(project, tmp_path / "newer", ReleaseConfig(name="x"))
    (project.folder / "splits.png").unlink()
    file.unlink()
    file.symlink_to(private / "a.jpg")
    with pytest.raises(DataError, match="leads out of the project"):
        release(project, tmp_path / "newest", ReleaseConfig(name="x"))
    file.unlink()
    file.touch()
    with pytest.raises(DataError, match=rf"{row.sha256}\.jpg: it is damaged"):
        release(project, tmp_path / "newest", ReleaseConfig(name="x"))
    (project.folder / "previews").symlink_to(private)
    with pytest.raises(DataError, match="previews is a link"):
        open_project(project.folder)
    (project.folder / "previews").unlink()
    done = take_down(project, project.rows(select(t.images))[1].sha256, because="asked")
    assert any("is a link" in problem for problem in done.problems)
    assert (private / "a.jpg").read_bytes() == b"mine"


def test_a_split_replaces_a_link(tmp_path: Path) -> None:
    project = agreed(tmp_path, is_split=False)
    private = tmp_path / "private"
    private.write_text("mine")
    (project.folder / "splits.png").symlink_to(private)
    split(project, verdicts(project), RATIOS, schemes=4)
    assert private.read_text() == "mine"
    assert (project.folder / "splits.png").read_bytes().startswith(b"\x89PNG")


def test_files_of_an_earlier_release_do_not_stay(tmp_path: Path) -> None:
    """Also those of a killed one, which may name an image that is taken down."""
    project = agreed(tmp_path)
    out = tmp_path / "out"
    release(project, out, ReleaseConfig(name="x"))
    for name in ("ratings.csv", "splits.png", "provenance.csv.7-7.partial"):
        (out / name).write_text("old")
    release(project, out, ReleaseConfig(name="x"))
    assert {path.name for path in out.iterdir()} & {"ratings.csv", "splits.png", "provenance.csv.7-7.partial"} == set()
    (out / "provenance.csv.7-7.partial").write_text("old")
    for row in project.rows(select(t.images)):
        take_down(project, row.sha256, because="asked")
    assert list(out.glob("*.partial")) == []


def test_the_figure_of_an_earlier_split_does_not_stay(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    for schemes in (2, 1):
        split(project, verdicts(project), RATIOS, schemes=schemes)
        release(project, tmp_path / "out", ReleaseConfig(name="x"))
        assert (tmp_path / "out" / "splits.png").exists() == (schemes > 1)


def test_two_releases_into_one_folder_are_refused(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    (tmp_path / "out").mkdir()
    lock = FileLock(tmp_path / "out" / MARK)
    (tmp_path / "out" / MARK).touch()
    with pytest.raises(ConfigError, match="another process is writing"):
        release(project, tmp_path / "out", ReleaseConfig(name="x"))
    lock.release()
    release(project, tmp_path / "out", ReleaseConfig(name="x"))
    assert sums_match(tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*.lock"))
