"""What is dropped without a person, and that a person's word stands."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from tests.curate.places import say, take_back
from tests.drawn import class_folders, draw_image, jpeg_of, plant
from uniemox.data.inspection import scan
from uniemox.data.readers.folders import read_folder
from uniemox.data.sample import Sample
from uniemox.errors import ConfigError, DataError
from uniemox_curate import tables as t
from uniemox_curate.collect.config import CollectConfig
from uniemox_curate.collect.run import fetch, search
from uniemox_curate.collect.screen import ScreenConfig, remembered_config, screen
from uniemox_curate.collect.sources import local_folder
from uniemox_curate.decisions import Change, append, decisions, leave_out
from uniemox_curate.plan import CollectionPlan
from uniemox_curate.project import Project, create_project
from uniemox_curate.release.takedown import take_down
from uniemox_curate.status import status

PLAN = CollectionPlan(keywords={"awe": ("a",), "fear": ("f",), "anger": ("x",)}, check_every=0)
QUICK = CollectConfig(rate=1000)


def collected(folder: Path, source: Path) -> Project:
    project = create_project(folder, PLAN)
    collect(project, source)
    return project


def collect(project: Project, source: Path) -> None:
    search(project, [local_folder(source, PLAN)], QUICK)
    fetch(project, QUICK, folders=[source])


def decision_by_file(project: Project) -> dict[str, str]:
    """File name to the reason for which it is dropped, or to keep."""
    names = {row.picture_id: Path(row.title).name for row in project.rows(select(t.candidates))}
    with project.store.read() as connection:
        now = decisions(connection, "screen")
    return {names[image]: "keep" if decision.value == "keep" else decision.reason for image, decision in now.items()}


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}.jpg").write_bytes(data)
    return folder


def test_every_fault_of_an_image_is_found(tmp_path: Path) -> None:
    image = draw_image(50)
    write(
        tmp_path / "in" / "awe",
        good=jpeg_of(draw_image(51)),
        large=jpeg_of(image),
        near=plant(image.resize((200, 150)), "mirrored", random.Random(0)),
        tiny=jpeg_of(draw_image(52, (127, 300))),
        cut=jpeg_of(draw_image(53))[:3000],
        known=jpeg_of(draw_image(54)),
        alike=plant(draw_image(55), "scaled", random.Random(1)),
    )
    write(tmp_path / "test" / "awe", a=jpeg_of(draw_image(54)))
    write(tmp_path / "test" / "fear", b=jpeg_of(draw_image(55)))
    project = collected(tmp_path / "p", tmp_path / "in")
    counts = screen(project, against=[read_folder(tmp_path / "test")])
    decided = decision_by_file(project)
    assert decided["good.jpg"] == decided["large.jpg"] == "keep"
    assert decided["near.jpg"].startswith("near duplicate: of image ")
    assert decided["tiny.jpg"] == "too small: 127 x 300 px"
    assert decided["cut.jpg"].startswith("unreadable: cut off")
    assert decided["known.jpg"] == f"in a benchmark: {tmp_path / 'test'}, awe/a.jpg"
    assert decided["alike.jpg"] == f"in a benchmark: {tmp_path / 'test'}, fear/b.jpg, nearly the same"
    assert counts == {"kept": 2, "near duplicate": 1, "too small": 1, "unreadable": 1, "in a benchmark": 2}
    assert screen(project, ScreenConfig(min_side_px=100))["kept"] == 3
    with project.store.read() as connection:
        assert connection.execute(select(t.batches.c.note)).all()[-1] == ("1 image judged",)


@pytest.mark.parametrize("kind", ["image", "test set"])
def test_images_that_cannot_be_read_for_a_moment_are_scanned_later(tmp_path: Path, kind: str) -> None:
    images = [jpeg_of(draw_image(number)) for number in range(3)]
    project = collected(tmp_path / "p", write(tmp_path / "in" / "awe", a=images[0], b=images[1]))
    write(tmp_path / "test" / "awe", c=images[1], d=images[2])
    test = read_folder(tmp_path / "test")
    row = project.rows(select(t.images).order_by(t.images.c.id.desc()))[0]
    if kind == "image":
        file = project.image_path(row.sha256, row.format)
    else:
        file = tmp_path / "test" / "awe" / "c.jpg"
    file.rename(tmp_path / "away")
    assert screen(project, against=[test])["can't be read now"] == 1
    (tmp_path / "away").rename(file)
    assert screen(project, against=[test]) == {"kept": 1, "in a benchmark": 1}


def test_test_sets_can_be_forgotten(tmp_path: Path) -> None:
    """What a person has dropped stays."""
    images = [jpeg_of(draw_image(number)) for number in range(3)]
    project = collected(tmp_path / "p", write(tmp_path / "in" / "awe", a=images[0], b=images[1], c=images[2]))
    test = read_folder(write(tmp_path / "test" / "awe", a=images[0], b=images[1]).parent)
    dropped = {"kept": 1, "in a benchmark": 2}
    assert [screen(project, against=[test]), screen(project)] == [dropped, dropped]
    [number] = [row.picture_id for row in project.rows(select(t.candidates)) if row.title == "b.jpg"]
    with project.store.write() as connection:
        append(connection, actor="Eva", step="by hand", note="", changes=[Change(number, "screen", "drop", "blurred")])
    assert [screen(project, against=[]), screen(project)] == [{"kept": 2, "blurred": 1}] * 2


def test_one_image_under_many_labels_is_a_placeholder(tmp_path: Path) -> None:
    data = jpeg_of(draw_image(60))
    for i, label in enumerate(("awe", "awe", "fear", "fear", "anger")):
        write(tmp_path / "in" / label, **{f"gone{i}": data})
    write(tmp_path / "in" / "awe", good=jpeg_of(draw_image(61)))
    project = collected(tmp_path / "p", tmp_path / "in")
    assert screen(project) == {"kept": 1, "placeholder": 1}
    assert "placeholder: found under anger, awe, fear" in decision_by_file(project).values()


def test_a_persons_decision_stays_until_it_is_undone(tmp_path: Path) -> None:
    class_folders(tmp_path / "in", ("awe",), each=3)
    project = collected(tmp_path / "p", tmp_path / "in")
    assert screen(project) == {"kept": 3}
    with project.store.write() as connection:
        change = Change(1, "screen", "drop", "mismatch")
        batch = append(connection, actor="Eva", step="by hand", note="", changes=[change])
    assert batch is not None
    assert screen(project, ScreenConfig(min_side_px=64)) == {"kept": 2, "mismatch": 1}
    take_back(project.store, batch)
    assert screen(project) == {"kept": 3}


@pytest.mark.parametrize("work", ["answered", "judged", "kept", "nothing"])
def test_of_near_duplicates_the_one_with_the_work_of_people_stays(tmp_path: Path, work: str) -> None:
    """A larger copy that is collected later makes no answer void."""
    image = draw_image(50)
    project = collected(tmp_path / "p", write(tmp_path / "in" / "awe", small=jpeg_of(image.resize((200, 150)))))
    screen(project)
    if work == "answered":
        say(project, Ada="a")
    elif work != "nothing":
        field, value = ("verdict", "awe") if work == "judged" else ("screen", "keep")
        with project.store.write() as connection:
            append(connection, actor="Eva", step="page", note="", changes=[Change(1, field, value)])
    write(tmp_path / "in" / "awe", large=jpeg_of(image))
    collect(project, tmp_path / "in")
    assert screen(project) == {"kept": 1, "near duplicate": 1}
    kept = [name for name, decision in decision_by_file(project).items() if decision == "keep"]
    assert kept == ["large.jpg" if work == "nothing" else "small.jpg"]


@pytest.mark.parametrize("is_left_out", [False, True])
def test_the_image_with_most_answers_that_count_stays(tmp_path: Path, is_left_out: bool) -> None:
    """Those of an annotator who was left out do not count."""
    image = draw_image(50)
    write(tmp_path / "in" / "awe", large=jpeg_of(image), small=jpeg_of(image.resize((200, 150))))
    project = collected(tmp_path / "p", tmp_path / "in")
    [small] = [row.picture_id for row in project.rows(select(t.candidates)) if row.title.endswith("small.jpg")]
    of_small = "a" if small == 1 else "-a"
    of_both = "aa"
    say(project, Ada=of_both, Ben=of_small)
    if is_left_out:
        with project.store.write() as connection:
            leave_out(connection, "Ben", actor="owner")
    screen(project)
    kept = [name for name, decision in decision_by_file(project).items() if decision == "keep"]
    assert kept == ["large.jpg" if is_left_out else "small.jpg"]


def test_what_a_person_keeps_stays_although_it_is_too_small(tmp_path: Path) -> None:
    image = draw_image(50)
    project = collected(tmp_path / "p", write(tmp_path / "in" / "awe", small=jpeg_of(image.resize((140, 105)))))
    assert screen(project) == {"too small": 1}
    with project.store.write() as connection:
        append(connection, actor="Eva", step="page", note="", changes=[Change(1, "screen", "keep")])
    write(tmp_path / "in" / "awe", large=jpeg_of(image))
    collect(project, tmp_path / "in")
    assert screen(project) == {"kept": 1, "near duplicate": 1}


def test_a_copy_of_an_image_that_a_person_dropped_is_no_near_duplicate(tmp_path: Path) -> None:
    image = draw_image(50)
    write(tmp_path / "in" / "awe", large=jpeg_of(image), small=jpeg_of(image.resize((200, 150))))
    project = collected(tmp_path / "p", tmp_path / "in")
    screen(project)
    [number] = [row.picture_id for row in project.rows(select(t.candidates)) if row.title.endswith("large.jpg")]
    with project.store.write() as connection:
        append(connection, actor="Eva", step="page", note="", changes=[Change(number, "screen", "drop", "watermark")])
    assert screen(project) == {"kept": 1, "watermark": 1}


def test_screen_without_images_and_with_later_ones(tmp_path: Path) -> None:
    project = create_project(tmp_path / "p", PLAN)
    assert screen(project) == {}
    class_folders(tmp_path / "in", ("awe",), each=1)
    collect(project, tmp_path / "in")
    assert screen(project) == {"kept": 1}
    write(
        tmp_path / "in" / "fear", late=jpeg_of(draw_image(70)), copy=plant(draw_image(0), "cropped", random.Random(2))
    )
    collect(project, tmp_path / "in")
    assert sum(screen(project).values()) == 3
    assert decision_by_file(project)["late.jpg"] == "keep"


def test_scores_of_a_model_sort_and_drop(tmp_path: Path) -> None:
    class_folders(tmp_path / "in", ("awe", "fear"), each=2)
    project = collected(tmp_path / "p", tmp_path / "in")

    def score(samples: Sequence[Sample]) -> list[Mapping[str, float] | None]:
        return [None if sample.key == "4" else {"awe": 0.9, "fear": 0.1, "anger": 0.0} for sample in samples]

    assert screen(project, score=score) == {"kept": 4}
    assert {row.picture_id: row.score for row in project.rows(select(t.looks))} == {1: 0.9, 2: 0.9, 3: 0.1, 4: None}
    assert screen(project, ScreenConfig(min_score=0.5)) == {"kept": 3, "mismatch": 1}
    for settings in ({"min_side_px": 0}, {"min_score": 1.0}):
        with pytest.raises(ConfigError):
            ScreenConfig(**settings)  # type: ignore[arg-type]


def test_scores_of_another_model_are_replaced(tmp_path: Path) -> None:
    class_folders(tmp_path / "in", ("awe", "fear"), each=2)
    project = collected(tmp_path / "p", tmp_path / "in")
    scored_counts: list[int] = []

    def scored(share: float) -> Callable[[Sequence[Sample]], list[Mapping[str, float] | None]]:
        def score(samples: Sequence[Sample]) -> list[Mapping[str, float] | None]:
            scored_counts.append(len(samples))
            return [{"awe": share, "fear": share} for _ in samples]

        return score

    assert screen(project, ScreenConfig(min_score=0.5), score=scored(0.9), model="A") == {"kept": 4}
    screen(project, score=scored(0.8), model="A")
    assert scored_counts == [4]  # its scores are there
    assert screen(project, ScreenConfig(min_score=0.5), score=scored(0.2), model="B") == {"mismatch": 4}
    assert scored_counts == [4, 4]
    assert {row.score for row in project.rows(select(t.looks))} == {0.2}

    def fails(samples: Sequence[Sample]) -> list[Mapping[str, float] | None]:
        raise ConfigError("other emotions")

    with pytest.raises(ConfigError):
        screen(project, score=fails, model="C")
    assert {row.score for row in project.rows(select(t.looks))} == {0.2}


def test_a_model_is_not_asked_about_images_without_a_searched_label(tmp_path: Path) -> None:
    class_folders(tmp_path / "in", ("holiday",), each=2)
    project = create_project(tmp_path / "p", PLAN)
    search(project, [local_folder(tmp_path / "in", PLAN, with_labels=False)], QUICK)
    fetch(project, QUICK, folders=[tmp_path / "in"])

    def score(samples: Sequence[Sample]) -> list[Mapping[str, float] | None]:
        raise AssertionError(f"{len(samples)} images")

    assert screen(project, score=score) == {"kept": 2}


def test_settings_are_remembered(tmp_path: Path) -> None:
    project = create_project(tmp_path / "p", PLAN)
    assert remembered_config(project, None, None) == ScreenConfig()
    assert remembered_config(project, 64, None) == ScreenConfig(min_side_px=64)
    assert remembered_config(project, None, 0.1) == ScreenConfig(min_side_px=64, min_score=0.1)
    with pytest.raises(ConfigError, match="min_side_px"):
        remembered_config(project, 0, None)
    assert remembered_config(project, None, 0.0) == ScreenConfig(min_side_px=64)


def test_a_takedown_deletes_files_until_it_is_undone(tmp_path: Path) -> None:
    class_folders(tmp_path / "in", ("awe",), each=2)
    write(tmp_path / "in" / "awe", copy=plant(draw_image(0), "scaled", random.Random(3)))
    project = collected(tmp_path / "p", tmp_path / "in")
    screen(project)
    before = status(project).next.command
    rows = {Path(row.title).name: row for row in project.rows(select(t.candidates))}
    done = take_down(project, rows["0.jpg"].address, because="asked")
    assert (len(done.sha256), done.near_duplicates) == (2, 1)
    assert len(list((tmp_path / "p" / "pictures").rglob("*.jpg"))) == 1
    write(tmp_path / "again" / "fear", other=(tmp_path / "in" / "awe" / "0.jpg").read_bytes())
    collect(project, tmp_path / "again")
    assert screen(project)["kept"] == 1
    assert {Path(row.title).name: row.reason for row in project.rows(select(t.candidates))}["other.jpg"] == "taken down"
    assert len(list((tmp_path / "p" / "pictures").rglob("*.jpg"))) == 1
    [batch] = project.rows(select(t.batches.c.id).where(t.batches.c.step == "takedown"))
    take_back(project.store, batch.id)
    assert screen(project) == {"kept": 2, "near duplicate": 1, "can't be read now": 2}  # until collect fetches them
    assert len(project.rows(select(t.looks))) == 1
    assert status(project).next.command == "uniemox curate collect p --source folder:PATH"
    assert fetch(project, QUICK, folders=[tmp_path])["fetched"] == 3
    assert len(list((tmp_path / "p" / "pictures").rglob("*.jpg"))) == 3
    assert status(project).next.command == "uniemox curate screen p"
    assert screen(project) == {"kept": 2, "near duplicate": 1}
    assert [row.problem for row in project.rows(select(t.looks))] == [""] * 3
    assert status(project).next.command == before
    for which, error in (("http://nowhere.example/", DataError), ("abc", ConfigError), ("0" * 12, DataError)):
        with pytest.raises(error):
            take_down(project, which, because="x")


def test_an_image_that_is_taken_down_during_a_screen_leaves_no_thumbnail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "in", ("awe", "fear"), each=2)
    project = collected(tmp_path / "p", tmp_path / "in")
    [row] = project.rows(select(t.images.c.sha256).where(t.images.c.id == 1))

    def scan_late(*args: Any, **kwargs: Any) -> Any:
        take_down(project, row.sha256, because="asked")
        return scan(*args, **kwargs)

    monkeypatch.setattr("uniemox_curate.collect.screen.scan", scan_late)
    screen(project)
    assert [row.picture_id for row in project.rows(select(t.looks.c.picture_id))] == [2, 3, 4]


def test_takedown_by_hash_works_without_candidates(tmp_path: Path) -> None:
    project = create_project(tmp_path / "p", PLAN)
    sha256 = project.keep_file(jpeg_of(draw_image(1)), "JPEG")
    with project.store.write() as connection:
        row = {"sha256": sha256, "format": "JPEG", "bytes": 1, "width": 9, "height": 9, "added_at": 0.0}
        connection.execute(insert(t.images), [row])
    assert take_down(project, sha256[:12].upper(), because="x").sha256 == (sha256,)
    assert not project.image_path(sha256, "JPEG").exists()
