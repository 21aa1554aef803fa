"""Takedown: images leave the project and all its releases."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from tests.curate.places import LABELS, project_of
from tests.curate.test_release import agreed, named_in, rows_of, sums_match
from uniemox.errors import ConfigError, DataError
from uniemox.io.files import FileLock
from uniemox_curate import tables as t
from uniemox_curate.cli.curate import curate
from uniemox_curate.decisions import last_batch, undo
from uniemox_curate.release import takedown
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.run import release
from uniemox_curate.release.takedown import take_down
from uniemox_curate.release.writing import MARK


def files_of(folder: Path) -> dict[str, bytes]:
    """Content of all files in a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def beside(folder: Path) -> list[str]:
    """Hidden names next to a folder, which a takedown must not leave."""
    return [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]


def test_a_release_that_cannot_be_written_again_stays_whole_and_others_lose_the_image(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    for name in ("a", "b", "c", "moved"):
        release(project, tmp_path / name, ReleaseConfig(name=name))
    gone = project.rows(select(t.images.c.sha256).where(t.images.c.id == 4))[0].sha256
    assert "provenance.csv" in named_in(tmp_path / "c", gone)
    (tmp_path / "moved").rename(tmp_path / "elsewhere")
    (tmp_path / "b" / "README.md").unlink()
    (tmp_path / "b" / "README.md").mkdir()  # can't be written over
    before = {name: files_of(tmp_path / name) for name in "ab"}
    done = take_down(project, "https://pictures.example/4.jpg", because="asked")
    for path, content in files_of(tmp_path / "a").items():
        if path.endswith(".jpg"):
            assert content == before["a"][path]
    assert files_of(tmp_path / "b") == before["b"]
    assert [named_in(tmp_path / name, gone) for name in "ac"] == [[], []]
    assert done.releases == (str(tmp_path / "a"), str(tmp_path / "c"))
    assert done.missing == (str(tmp_path / "moved"),)
    assert len(done.problems) == 1
    assert "b: it can't be written again without the images" in done.problems[0]
    assert sums_match(tmp_path / "c")
    (tmp_path / "b" / "README.md").rmdir()
    assert str(tmp_path / "b") in take_down(project, gone, because="again").releases
    assert named_in(tmp_path / "b", gone) == []
    assert beside(tmp_path / "b") == []


def test_a_takedown_goes_on_where_a_file_cannot_be_deleted(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    row = project.rows(select(t.images).where(t.images.c.id == 4))[0]
    image = project.image_path(row.sha256, row.format)
    preview = project.preview_path(row.sha256)
    image.unlink()
    image.mkdir()
    partial = preview.with_name(f"{preview.name}.12-34.partial")  # of a killed server
    preview.parent.mkdir(parents=True)
    for path in (preview, partial):
        path.write_bytes(b"image")
    done = take_down(project, row.sha256, because="asked")
    assert not preview.exists()
    assert not partial.exists()
    assert done.releases == (str(tmp_path / "a"),)
    assert named_in(tmp_path / "a", row.sha256) == []
    assert len(done.problems) == 1
    assert f"{image}: it can't be deleted" in done.problems[0]
    image.rmdir()
    assert not take_down(project, row.sha256, because="again").problems


def test_a_repeated_takedown_deletes_near_duplicates_too(tmp_path: Path) -> None:
    """The first one forgets which images were near duplicates."""
    project = agreed(tmp_path)
    with project.store.write() as connection:
        connection.execute(update(t.looks).where(t.looks.c.picture_id.in_([4, 6])).values(near_group=900))
    rows = project.rows(select(t.images).where(t.images.c.id.in_([4, 6])).order_by(t.images.c.id))
    first, copy = (project.image_path(row.sha256, row.format) for row in rows)
    copy.parent.rename(tmp_path / "away")
    assert take_down(project, rows[0].sha256, because="asked").problems
    (tmp_path / "away").rename(copy.parent)
    done = take_down(project, rows[0].sha256, because="again")
    assert (set(done.sha256), done.problems) == ({row.sha256 for row in rows}, ())
    assert not first.exists()
    assert not copy.exists()


def test_images_of_an_undone_takedown_are_not_taken_down_with_each_other(tmp_path: Path) -> None:
    """Its images are in the project again, screened, and have nothing to do with each other."""
    project = agreed(tmp_path)
    with project.store.write() as connection:
        connection.execute(update(t.candidates).where(t.candidates.c.picture_id.in_([1, 2, 3])).values(page="holiday"))
        looks = [dict(row) for row in connection.execute(select(t.looks)).mappings()]
    assert len(take_down(project, "holiday", because="a slip").sha256) == 3
    with project.store.write() as connection:
        undo(connection, last_batch(connection), actor="owner")
        connection.execute(t.looks.delete())
        connection.execute(insert(t.looks), looks)  # as screen finds them
    [image] = project.rows(select(t.images.c.sha256).where(t.images.c.id == 1))
    assert take_down(project, image.sha256, because="asked").sha256 == (image.sha256,)


def test_the_undo_of_an_undone_takedown_names_images_that_were_fetched_meanwhile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = agreed(tmp_path)
    [image] = project.rows(select(t.images.c.sha256, t.images.c.format).where(t.images.c.id == 1))
    file = project.image_path(*image)
    content = file.read_bytes()
    take_down(project, image.sha256, because="asked")
    with project.store.read() as connection:
        batch = last_batch(connection)
    words = {"exit_on_error": False, "result_action": "return_none"}
    curate(["undo", str(project.folder), str(batch)], **words)
    file.write_bytes(content)
    with pytest.raises(DataError, match="1 image that is taken down still has files"):
        curate(["undo", str(project.folder), str(batch + 1)], **words)
    assert "undone" in capsys.readouterr().out
    take_down(project, image.sha256, because="asked")
    assert not file.exists()


def test_a_takedown_deletes_copies_and_what_a_killed_release_left(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    row = rows_of(tmp_path / "a" / "provenance.csv")[0]
    image = tmp_path / "a" / row["path"]
    shutil.copy(image, image.with_name(f"{image.name}.12-34.partial"))
    (tmp_path / "a" / "examples").mkdir()
    shutil.copy(image, tmp_path / "a" / "examples" / f"Copy of {image.name}")
    assert not take_down(project, row["sha256"], because="asked").problems
    assert not list((tmp_path / "a").rglob(f"*{image.stem}*"))


def test_two_takedowns_at_once_spoil_no_release(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    row = rows_of(tmp_path / "a" / "provenance.csv")[0]
    other = FileLock(tmp_path / "a" / MARK)
    [problem] = take_down(project, row["sha256"], because="asked").problems
    assert "another process is writing" in problem
    assert "repeat the takedown" in problem
    assert sums_match(tmp_path / "a")
    other.release()
    assert take_down(project, row["sha256"], because="again").releases == (str(tmp_path / "a"),)
    assert named_in(tmp_path / "a", row["sha256"]) == []


def test_a_full_disk_spoils_no_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    row = rows_of(tmp_path / "a" / "provenance.csv")[0]
    before = files_of(tmp_path / "a")
    with monkeypatch.context() as full:

        def write(path: Path, content: object) -> None:
            raise DataError(f"{path} can't be written (no space left on device)")

        full.setattr("uniemox_curate.release.writing.write_file", write)
        [problem] = take_down(project, row["sha256"], because="asked").problems
    assert "repeat the takedown" in problem
    assert files_of(tmp_path / "a") == before
    assert beside(tmp_path / "a") == []
    take_down(project, row["sha256"], because="again")
    assert named_in(tmp_path / "a", row["sha256"]) == []
    assert sums_match(tmp_path / "a")


@pytest.mark.thorough
@pytest.mark.parametrize("step", ["copy", "write", "record", "first renaming", "second renaming", "deletion"])
def test_an_interrupted_takedown_leaves_the_old_or_the_new_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    gone = rows_of(tmp_path / "a" / "provenance.csv")[0]["sha256"]
    before = files_of(tmp_path / "a")
    takedown = "uniemox_curate.release.takedown"
    targets = {
        "copy": "uniemox_curate.release.takedown.os.link",
        "write": "uniemox_curate.release.writing.write_splits",
        "record": f"{takedown}.save_written",
        "deletion": f"{takedown}.shutil.rmtree",
    }
    renamings = []

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def rename(path: Path, target: Path) -> Path:
        renamings.append(path)
        if len(renamings) == ("first renaming", "second renaming").index(step) + 1:
            raise KeyboardInterrupt
        os.rename(path, target)
        return target

    with monkeypatch.context() as patched:
        if step in targets:
            patched.setattr(targets[step], stop)
        else:
            patched.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            take_down(project, gone, because="asked")
    if step == "deletion":
        assert named_in(tmp_path / "a", gone) == []
    else:
        assert files_of(tmp_path / "a") == before
    assert sums_match(tmp_path / "a")
    assert take_down(project, gone, because="again").problems == ()
    assert named_in(tmp_path / "a", gone) == []
    assert sums_match(tmp_path / "a")
    assert beside(tmp_path / "a") == []


def test_a_takedown_killed_between_its_renamings_is_repeated_from_the_old_release(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    (tmp_path / "a" / "notes.txt").write_text("ours")
    gone = rows_of(tmp_path / "a" / "provenance.csv")[0]["sha256"]
    (tmp_path / ".a.new.partial").mkdir()
    (tmp_path / "a").rename(tmp_path / ".a.old.partial")
    done = take_down(project, gone, because="asked")
    assert (done.releases, done.problems) == ((str(tmp_path / "a"),), ())
    assert named_in(tmp_path / "a", gone) == []
    assert (tmp_path / "a" / "notes.txt").read_text() == "ours"
    assert beside(tmp_path / "a") == []


@pytest.mark.thorough
@pytest.mark.parametrize("case", ["mark", "folder", "class"])
def test_a_release_that_cannot_be_read_is_named_and_others_lose_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Its mark was lost, or one of its folders can't be read, as on a drive that is away."""
    project = agreed(tmp_path)
    for name in "ab":
        release(project, tmp_path / name, ReleaseConfig(name=name))
    row = rows_of(tmp_path / "a" / "provenance.csv")[0]
    refused = {"mark": tmp_path / "a" / MARK, "folder": tmp_path / "a", "class": tmp_path / "a" / "pictures" / "train"}
    if case == "mark":
        refused[case].unlink()

    def refusing(do: Callable[..., Any]) -> Callable[..., Any]:
        def done(path: Any = ".", *arguments: Any, **settings: Any) -> Any:
            if case != "mark" and str(path).startswith(str(refused[case])):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return do(path, *arguments, **settings)

        return done

    with monkeypatch.context() as patched:
        for name in ("scandir",) if case == "class" else ("scandir", "stat"):
            patched.setattr(os, name, refusing(getattr(os, name)))
        done = take_down(project, row["sha256"], because="asked")
    assert done.releases == (str(tmp_path / "b"),)
    assert done.missing == ()
    assert len(done.problems) == 1
    assert f"{tmp_path / 'a'}: it can't be written again without the images" in done.problems[0]
    assert named_in(tmp_path / "b", row["sha256"]) == []


@pytest.mark.parametrize("away", ["pictures", "pictures/xx"])
def test_a_takedown_says_that_the_folder_of_images_is_missing(tmp_path: Path, away: str) -> None:
    project = agreed(tmp_path)
    row = project.rows(select(t.images).where(t.images.c.id == 4))[0]
    image = project.image_path(row.sha256, row.format)
    folder = project.folder / away.replace("xx", row.sha256[:2])
    folder.rename(tmp_path / "away")
    [problem] = take_down(project, row.sha256, because="asked").problems
    assert f"{image.parent}: this folder of images is missing; repeat the takedown" in problem
    (tmp_path / "away").rename(folder)
    assert image.exists()
    assert not take_down(project, row.sha256, because="again").problems
    assert not image.exists()


@pytest.mark.parametrize("which", ["", " "])
def test_a_takedown_of_nothing_is_refused(tmp_path: Path, which: str) -> None:
    """Images of folders have no page."""
    project = project_of(tmp_path / "p", LABELS * 2, looks=True)
    with project.store.write() as connection:
        connection.execute(update(t.candidates).values(page=""))
    with pytest.raises(ConfigError, match="expected an address"):
        take_down(project, which, because="asked")
    assert list((tmp_path / "p" / "pictures").rglob("*.jpg"))


@pytest.mark.thorough
@pytest.mark.parametrize("is_mounted", [True, False])
def test_a_takedown_reports_that_the_images_of_a_release_were_missing(tmp_path: Path, is_mounted: bool) -> None:
    """The release is written again with the project's images. Where the missing ones are is not known."""
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    row = project.rows(select(t.images.c.sha256).where(t.images.c.id == 4))[0]
    (tmp_path / "a" / "pictures").rename(tmp_path / "away")
    if not is_mounted:
        (tmp_path / "a" / "pictures").mkdir()
    done = take_down(project, row.sha256, because="asked")
    assert "1 image was not there; repeat the takedown if they return" in done.problems[0]
    assert named_in(tmp_path / "a", row.sha256) == []
    assert sums_match(tmp_path / "a")
    shutil.copytree(tmp_path / "away", tmp_path / "a" / "pictures", dirs_exist_ok=True)
    assert named_in(tmp_path / "a", row.sha256)
    [problem] = take_down(project, row.sha256, because="again").problems
    assert "metadata.jsonl was edited; it is written without your changes" in problem  # it named the image
    assert named_in(tmp_path / "a", row.sha256) == []


def test_a_release_that_links_lead_to_is_written_once(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    (tmp_path / "a").rename(tmp_path / "b")
    release(project, tmp_path / "b", ReleaseConfig(name="b"))
    (tmp_path / "a").symlink_to(tmp_path / "b")
    row = rows_of(tmp_path / "b" / "provenance.csv")[0]
    done = take_down(project, row["sha256"], because="asked")
    assert (done.releases, done.problems) == ((str(tmp_path / "b"),), ())
    assert (tmp_path / "a").is_symlink()
    assert named_in(tmp_path / "b", row["sha256"]) == []


def test_a_takedown_deletes_the_image_where_a_preview_is_a_link(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    row = project.rows(select(t.images).where(t.images.c.id == 4))[0]
    image = project.image_path(row.sha256, row.format)
    folder = project.folder / "previews" / row.sha256[:2]
    folder.parent.mkdir()
    folder.symlink_to(tmp_path, target_is_directory=True)
    [problem] = take_down(project, row.sha256, because="asked").problems
    assert "a link leads out of the project" in problem
    assert not image.exists()


def test_a_takedown_leaves_releases_of_other_projects_alone(tmp_path: Path) -> None:
    ours, theirs = (agreed(tmp_path / name) for name in ("ours", "theirs"))
    release(ours, tmp_path / "release", ReleaseConfig(name="x"))
    before = sorted(path.name for path in (tmp_path / "release").rglob("*.jpg"))
    with theirs.store.write() as connection:
        row = {"folder": str(tmp_path / "release"), "options": '{"name": "x"}', "at": 0.0, "pictures": 1}
        connection.execute(insert(t.releases).values(**row))
    done = take_down(theirs, "https://pictures.example/1.jpg", because="asked")
    assert (done.releases, done.missing) == ((), ())
    assert "not a release of this project" in done.problems[0]
    assert sorted(path.name for path in (tmp_path / "release").rglob("*.jpg")) == before


ADDRESS = "https://pictures.example/4.jpg"


def test_the_owners_files_stay_whatever_their_names_end_in(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    folder = tmp_path / "a"
    release(project, folder, ReleaseConfig(name="a"))
    (folder / "notes").mkdir()
    own_files = (folder / "notes" / "big.iso.partial", folder / "mine.txt")
    for path in own_files:
        path.write_text("mine")
    assert take_down(project, ADDRESS, because="x").problems == ()
    assert [path.read_text() for path in own_files] == ["mine", "mine"]


def test_a_release_that_changes_meanwhile_stays_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = agreed(tmp_path)
    folder = tmp_path / "a"
    release(project, folder, ReleaseConfig(name="a"))
    write = takedown.write_release

    def write_while_somebody_edits(*arguments: Any, **options: Any) -> Any:
        files = write(*arguments, **options)
        (folder / "thesis.txt").write_text("mine")
        return files

    monkeypatch.setattr(takedown, "write_release", write_while_somebody_edits)
    [problem] = take_down(project, ADDRESS, because="x").problems
    assert "thesis.txt was changed while the release was written again" in problem
    assert (folder / "thesis.txt").read_text() == "mine"
    monkeypatch.undo()
    assert take_down(project, ADDRESS, because="x").problems == ()
    assert (folder / "thesis.txt").read_text() == "mine"


def test_a_release_after_a_killed_takedown_continues_the_old_folder(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    folder = tmp_path / "a"
    release(project, folder, ReleaseConfig(name="a"))
    (folder / "own.txt").write_text("mine")
    # What is left if the process is killed between the two renamings.
    folder.rename(takedown.beside(folder, "old"))
    release(project, folder, ReleaseConfig(name="a"))
    assert (folder / "own.txt").read_text() == "mine"
    assert beside(folder) == []
