"""Takedown: tables, texts and other lists of a release, also those that somebody has changed."""

import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import select, update

from tests.curate.places import LABELS, project_of, say
from tests.curate.test_release import agreed, named_in, rows_of, sums_match
from uniemox.curate import tables as t
from uniemox.curate.annotate.verdicts import verdicts
from uniemox.curate.project import Change, append
from uniemox.curate.release.config import ReleaseConfig
from uniemox.curate.release.run import release
from uniemox.curate.release.splitting import split
from uniemox.curate.release.takedown import LISTS, take_down
from uniemox.curate.status import status
from uniemox.data.source import open_data


def test_a_table_may_have_more_columns(tmp_path: Path) -> None:
    """As pandas writes it, with numbers in the first column."""
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    row = rows_of(tmp_path / "a" / "provenance.csv")[0]
    for name in ("labels.csv", "provenance.csv"):
        path = tmp_path / "a" / name
        header, *lines = path.read_text().splitlines()
        path.write_text("\n".join([f",{header}", *(f"{number},{line}" for number, line in enumerate(lines))]) + "\n")
    assert not take_down(project, row["sha256"], because="asked").problems
    assert named_in(tmp_path / "a", row["sha256"]) == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "shift-jis"])
def test_tables_stay_in_their_encoding(tmp_path: Path, encoding: str) -> None:
    author = {"shift-jis": "ソ"}.get(encoding, "é – €")
    project = agreed(tmp_path)
    with project.store.write() as connection:
        connection.execute(update(t.candidates).values(author=author))
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    table = tmp_path / "a" / "provenance.csv"
    gone = rows_of(table)[1]["sha256"]
    table.write_bytes(table.read_bytes().decode().encode(encoding))
    rest = b"".join(line for line in table.read_bytes().splitlines(True) if gone.encode() not in line)
    assert not take_down(project, gone, because="asked").problems
    assert table.read_bytes() == rest


def test_a_title_with_the_hash_of_another_image_keeps_its_row(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    first, second = (row.sha256 for row in project.rows(select(t.images).where(t.images.c.id.in_([2, 8]))))
    with project.store.write() as connection:
        crop = update(t.candidates).where(t.candidates.c.picture_id == 8)
        connection.execute(crop.values(title=f"{first}_crop.jpg"))
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    assert not take_down(project, first, because="asked").problems
    assert second in {row["sha256"] for row in rows_of(tmp_path / "a" / "provenance.csv")}
    tasks = json.loads((tmp_path / "a" / "label_studio.json").read_bytes())
    assert len(tasks) == len(rows_of(tmp_path / "a" / "provenance.csv")) == len(rows_of(tmp_path / "a" / "labels.csv"))


def test_a_takedown_leaves_the_rest_of_a_release_as_it_was(tmp_path: Path) -> None:
    """Since the release, an image was dropped, others were answered anew, and the splits were drawn again."""
    project = agreed(tmp_path, Cem="afafafnnnnnn")
    release(project, tmp_path / "a", ReleaseConfig(name="a", rule="majority"))
    shutil.copytree(tmp_path / "a", tmp_path / "before")
    rows = rows_of(tmp_path / "a" / "provenance.csv")
    second = project.rows(select(t.images.c.id).where(t.images.c.sha256 == rows[1]["sha256"]))[0].id
    with project.store.write() as connection:
        append(connection, actor="owner", step="screen", note="", changes=[Change(second, "screen", "drop", "")])
    split(project, verdicts(project, rule="majority"), {"train": 0.5, "test": 0.5}, seed=3, schemes=1)
    say(project, Dan="fa" * 6)
    done = take_down(project, rows[0]["sha256"], because="asked")
    assert (done.releases, done.problems) == ((str(tmp_path / "a"),), ())
    assert named_in(tmp_path / "a", rows[0]["sha256"]) == []
    assert sums_match(tmp_path / "a")
    for name in ("labels.csv", "soft_labels.csv", "provenance.csv", "answers.csv"):
        before = (tmp_path / "before" / name).read_text().splitlines()
        left = [line for line in before if rows[0]["sha256"][:20] not in line]
        assert (tmp_path / "a" / name).read_text().splitlines() == left != before
    for name in ("agreement.json", "plan.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()
    old, new = (json.loads((tmp_path / name / "splits.json").read_bytes()) for name in ("before", "a"))
    assert new["how"] == old["how"]
    assert len(json.loads((tmp_path / "a" / "label_studio.json").read_bytes())) == len(rows) - 1
    figures = json.loads((tmp_path / "a" / "statistics.json").read_bytes())
    assert figures["table II"]["samples"] == figures["funnel"]["released"] == len(rows) - 1
    assert (tmp_path / "a" / "README.md").read_text().splitlines()[2].startswith(f"{len(rows) - 1} images")
    assert status(project)["steps"]["release"]["releases"][0]["pictures"] == len(rows) - 1
    assert len(open_data(f"emo8:{tmp_path / 'a' / 'pictures'}")) == len(rows) - 1
    repeated = {path: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.is_file()}
    assert not take_down(project, rows[0]["sha256"], because="again").problems
    changing = {"croissant.json", "SHA256SUMS"}  # they have the time
    assert not [path for path, data in repeated.items() if path.read_bytes() != data and path.name not in changing]


def test_a_takedown_leaves_a_readme_that_was_edited(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    readme = tmp_path / "a" / "README.md"
    new = tmp_path / "a" / "README.new.md"
    edited = readme.read_text() + "We made it in our spare time.\n"
    readme.write_text(edited)
    rows = rows_of(tmp_path / "a" / "provenance.csv")
    for number in (1, 2):
        [problem] = take_down(project, rows[number]["sha256"], because="asked").problems
        assert "README.md was edited" in problem
        assert readme.read_text() == edited
        assert f"{len(rows) - number} images" in new.read_text()
        assert sums_match(tmp_path / "a")
    release(project, tmp_path / "a", ReleaseConfig(name="b"))
    assert (readme.read_text(), "# b" in new.read_text()) == (edited, True)
    new.replace(readme)
    release(project, tmp_path / "a", ReleaseConfig(name="c"))
    assert ("# c" in readme.read_text(), new.exists()) == (True, False)


def test_tables_changed_by_hand_name_no_image_that_was_taken_down(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    [first, second, *_] = rows = rows_of(tmp_path / "a" / "provenance.csv")
    sums = (tmp_path / "a" / "SHA256SUMS").read_text()
    (tmp_path / "a" / "SHA256SUMS").write_text(sums.replace("  ", " *"))
    take_down(project, rows[-1]["sha256"], because="asked")
    assert (tmp_path / "a" / "SHA256SUMS").read_text().count("pictures/") == len(rows) - 1
    labels = (tmp_path / "a" / "labels.csv").read_text()
    (tmp_path / "a" / "labels.csv").write_text(labels.replace(",", ";"))
    assert not take_down(project, first["sha256"], because="asked").problems
    assert named_in(tmp_path / "a", first["sha256"]) == []
    assert len((tmp_path / "a" / "labels.csv").read_text().splitlines()) == len(labels.splitlines()) - 1
    (tmp_path / "a" / "splits.json").write_text(f'["{second["path"]}"]')
    (tmp_path / "a" / "soft_labels.csv").open("a").write('"')  # a quote without an end would take the rows after it
    *deleted, problem = take_down(project, second["sha256"], because="asked").problems
    lists = {"splits.json", "SHA256SUMS", "label_studio.json", "soft_labels.csv"}
    assert {Path(one.split(": deleted")[0]).name for one in deleted} == lists
    assert problem.endswith("run curate release on it")
    assert named_in(tmp_path / "a", second["sha256"]) == []
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    assert sums_match(tmp_path / "a")


@pytest.mark.parametrize("name", ["SHA256SUMS", "label_studio.json", "splits.json", "statistics.json"])
def test_a_release_that_lacks_a_list_keeps_its_tables(tmp_path: Path, name: str) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    rows = rows_of(tmp_path / "a" / "provenance.csv")
    (tmp_path / "a" / name).unlink()
    path = tmp_path / "a" / "labels.csv"  # as LibreOffice may save it
    path.write_text("".join(f'"{line}"\n'.replace(",", '";"') for line in path.read_text().splitlines()))
    take_down(project, rows[0]["sha256"], because="asked")
    assert named_in(tmp_path / "a", rows[0]["sha256"]) == []
    assert len(rows_of(tmp_path / "a" / "provenance.csv")) == len(rows) - 1
    assert len(path.read_text().splitlines()) == len(rows)
    assert (tmp_path / "a" / "label_studio.json").exists() == (name == "SHA256SUMS")


def test_a_repeated_takedown_removes_the_lists_of_a_release_without_images(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS * 2, looks=True)
    say(project, Ada="afaf", Ben="afaf")
    split(project, verdicts(project), {"train": 0.5, "test": 0.5}, schemes=1)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    hashes = [row["sha256"] for row in rows_of(tmp_path / "a" / "provenance.csv")]
    shutil.copytree(tmp_path / "a", tmp_path / "copy", ignore=shutil.ignore_patterns("*.jpg"))
    for sha256 in hashes:
        take_down(project, sha256, because="asked")
    shutil.copytree(tmp_path / "copy", tmp_path / "a", dirs_exist_ok=True)  # lists that could not be deleted
    assert named_in(tmp_path / "a", hashes[0])
    [problem] = take_down(project, hashes[0], because="again").problems
    assert f"{len(hashes)} images were not there" in problem
    assert named_in(tmp_path / "a", hashes[0]) == []
    assert not take_down(project, hashes[0], because="again").problems


def test_taking_down_the_last_image_removes_all_lists(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS * 2, looks=True)
    say(project, Ada="afaf", Ben="afaf")
    split(project, verdicts(project), {"train": 0.5, "test": 0.5}, schemes=1)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    for row in project.rows(select(t.images)):
        done = take_down(project, row.sha256, because="asked")
        assert (done.releases, done.problems) == ((str(tmp_path / "a"),), ())
        assert named_in(tmp_path / "a", row.sha256) == []
    assert not any((tmp_path / "a" / name).exists() for name in LISTS)
    assert not [path for path in (tmp_path / "a" / "pictures").rglob("*") if path.is_file()]
    assert status(project)["steps"]["release"]["releases"][0]["pictures"] == 0
