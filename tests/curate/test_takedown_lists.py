"""Takedown: tables, texts and other files of a release, also those that somebody has changed."""

import json
import shutil
from pathlib import Path

from sqlalchemy import select, update

from tests.curate.places import LABELS, project_of, say
from tests.curate.test_release import agreed, named_in, rows_of, sums_match
from uniemox.data.source import open_data
from uniemox_curate import tables as t
from uniemox_curate.annotate.verdicts import verdicts
from uniemox_curate.decisions import Change, append, last_batch, undo
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.run import release
from uniemox_curate.release.splitting import split
from uniemox_curate.release.takedown import take_down
from uniemox_curate.release.writing import FIGURES, LISTS
from uniemox_curate.status import status


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
        lines = [line for line in before if rows[0]["sha256"][:20] not in line]
        assert (tmp_path / "a" / name).read_text().splitlines() == lines != before
    for name in ("agreement.json", "plan.json", "answers_all.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()
    old, new = (json.loads((tmp_path / name / "splits.json").read_bytes()) for name in ("before", "a"))
    assert new["how"] == old["how"]
    tasks = json.loads((tmp_path / "before" / "label_studio.json").read_bytes())
    others = [task for task in tasks if task["data"]["sha256"] != rows[0]["sha256"]]
    assert json.loads((tmp_path / "a" / "label_studio.json").read_bytes()) == others
    figures = json.loads((tmp_path / "a" / "statistics.json").read_bytes())
    assert figures["table II"]["samples"] == figures["funnel"]["released"] == len(rows) - 1
    assert list(figures["funnel"].items())[-2:] == [("released at first", len(rows)), ("released", len(rows) - 1)]
    assert "After the release, 1 image was taken down." in (tmp_path / "a" / "README.md").read_text()
    assert f"\n{len(rows) - 1} images, each with" in (tmp_path / "a" / "README.md").read_text()
    tables = [path.read_text() for path in (tmp_path / "a" / "pictures").glob("*/metadata.jsonl")]
    assert sum(text.count("\n") for text in tables) == len(rows) - 1
    assert not any(rows[0]["sha256"][:20] in text for text in tables)
    assert status(project).progress.release.releases[0].images == len(rows) - 1
    assert len(open_data(f"emo8:{tmp_path / 'a' / 'pictures'}")) == len(rows) - 1
    repeated = {path: path.read_bytes() for path in (tmp_path / "a").iterdir() if path.is_file()}
    assert not take_down(project, rows[0]["sha256"], because="again").problems
    changing = {"croissant.json", "SHA256SUMS"}  # they have the time
    assert not [path for path, data in repeated.items() if path.read_bytes() != data and path.name not in changing]


def test_a_release_counts_images_that_were_taken_down_before_it_as_fetched(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    take_down(project, "https://pictures.example/4.jpg", because="asked")
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    funnel = json.loads((tmp_path / "a" / "statistics.json").read_bytes())["funnel"]
    assert funnel["fetched"] == funnel["different pictures"] == project.count(select(t.images.c.id))


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


def test_files_that_were_edited_are_written_from_the_record_and_named(tmp_path: Path) -> None:
    """An edited table may name the image in any form, so that its changes can't stay."""
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    shutil.copytree(tmp_path / "a", tmp_path / "before")
    rows = rows_of(tmp_path / "a" / "provenance.csv")
    labels = tmp_path / "a" / "labels.csv"
    labels.write_text(labels.read_text().replace(",", ";"), "utf-16")
    table = tmp_path / "a" / "pictures" / rows[0]["path"].split("/")[1] / "metadata.jsonl"
    table.write_text("edited")
    (tmp_path / "a" / "splits.json").write_text(f'["{rows[0]["path"]}"]')
    (tmp_path / "a" / "statistics.json").unlink()
    (tmp_path / "a" / "notes.txt").write_text("ours")
    done = take_down(project, rows[0]["sha256"], because="asked")
    assert done.releases == (str(tmp_path / "a"),)
    assert done.problems == tuple(
        f"{tmp_path / 'a'}: {name} was edited; it is written without your changes"
        for name in ("labels.csv", table.relative_to(tmp_path / "a").as_posix(), "splits.json")
    )
    assert named_in(tmp_path / "a", rows[0]["sha256"]) == []
    assert sums_match(tmp_path / "a")
    assert (tmp_path / "a" / "notes.txt").read_text() == "ours"
    before = (tmp_path / "before" / "labels.csv").read_text().splitlines()
    assert labels.read_text().splitlines() == [line for line in before if rows[0]["sha256"][:20] not in line]
    assert take_down(project, rows[0]["sha256"], because="again").problems == ()


def test_a_release_keeps_its_figure_after_the_split_was_drawn_again(tmp_path: Path) -> None:
    project = agreed(tmp_path, is_split=False)
    split(project, verdicts(project), {"train": 0.5, "test": 0.5}, schemes=4)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    before = (tmp_path / "a" / "splits.png").read_bytes()
    split(project, verdicts(project), {"train": 0.5, "test": 0.5}, schemes=1)
    take_down(project, rows_of(tmp_path / "a" / "provenance.csv")[0]["sha256"], because="asked")
    assert (tmp_path / "a" / "splits.png").read_bytes() == before
    assert sums_match(tmp_path / "a")


def test_an_image_that_is_damaged_in_the_release_is_made_again_from_the_project(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    first, second, *_ = rows_of(tmp_path / "a" / "provenance.csv")
    image = tmp_path / "a" / second["path"]
    before = image.read_bytes()
    image.write_bytes(b"damaged")
    assert take_down(project, first["sha256"], because="asked").problems == ()
    assert image.read_bytes() == before
    assert sums_match(tmp_path / "a")


def test_images_whose_takedown_is_undone_return_to_no_old_release(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    first, second, *_ = rows_of(tmp_path / "a" / "provenance.csv")
    take_down(project, first["sha256"], because="a slip")
    with project.store.write() as connection:
        undo(connection, last_batch(connection), actor="owner")
    assert take_down(project, second["sha256"], because="asked").problems == ()
    assert named_in(tmp_path / "a", first["sha256"]) == []


def test_a_release_of_an_older_version_must_be_released_again(tmp_path: Path) -> None:
    """Its database has no record of what the release holds."""
    project = agreed(tmp_path)
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    with project.store.write() as connection:
        connection.execute(t.released_images.delete())
        connection.execute(t.release_records.delete())
    gone = rows_of(tmp_path / "a" / "provenance.csv")[0]["sha256"]
    [problem] = take_down(project, gone, because="asked").problems
    assert "an older version of uniemox made it" in problem
    assert "run curate release on it" in problem
    assert sums_match(tmp_path / "a")
    release(project, tmp_path / "a", ReleaseConfig(name="a"))
    assert named_in(tmp_path / "a", gone) == []
    assert take_down(project, gone, because="again").problems == ()


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
    assert take_down(project, hashes[0], because="again").releases == (str(tmp_path / "a"),)
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
    assert not any((tmp_path / "a" / name).exists() for name in (*LISTS, *FIGURES))
    assert (tmp_path / "a" / "README.md").read_text() == "# a\n\nAll images of this release were taken down.\n"
    assert not [path for path in (tmp_path / "a" / "pictures").rglob("*") if path.is_file()]
    assert status(project).progress.release.releases[0].images == 0
