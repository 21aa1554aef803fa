"""What a later collect does again: corrected tables, failed and missing images, searches."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.curate.places import take_back
from tests.curate.servers import JPEG, Handler, local, misbehaving, serving
from tests.curate.test_collect import PLAN, QUICK, as_json, asking, offered, states, table, without_rules
from tests.drawn import class_folders, draw_image, jpeg_of
from uniemox.errors import DataError
from uniemox_curate import tables as t
from uniemox_curate.collect.folders import folder_changes
from uniemox_curate.collect.run import fetch, search
from uniemox_curate.collect.services import openverse
from uniemox_curate.collect.sources import address_table, local_folder
from uniemox_curate.project import create_project
from uniemox_curate.release.takedown import take_down


@pytest.mark.parametrize("at_once", [1, 500])
def test_a_corrected_table_corrects_its_candidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("uniemox_curate.collect.run.CANDIDATES_PER_SEARCH", at_once)
    project = create_project(tmp_path / "p", PLAN)
    with serving(misbehaving()) as server:
        for label, licence in (("awe", ""), ("fear", "by 4.0"), ("", "")):  # empty cells change nothing
            row = f"{server.address}/ok.jpg,sea,{label}"
            path = table(tmp_path, f"url,keyword,label,licence\n{row},{licence}\n{row},of a second row\n")
            search(project, [address_table(path, PLAN)], QUICK)
            fetch(project, local(server))
            [now] = project.rows(select(t.candidates))
            known = label or "fear", licence if label else "by 4.0"
            assert (now.label, now.licence, now.state, now.picture_id) == (*known, "fetched", 1)
        assert server.paths.count("/ok.jpg") == 1
    as_service = replace(address_table(table(tmp_path, f"url,keyword,label\n{row}\n"), PLAN), is_searched=True)
    search(project, [as_service], QUICK)  # what a service says today does not change what it said
    assert [candidate.licence for candidate in project.rows(select(t.candidates))] == ["by 4.0"]


@pytest.mark.parametrize("order", [1, -1])
def test_rows_of_a_corrected_table_may_have_different_empty_cells(tmp_path: Path, order: int) -> None:
    project = create_project(tmp_path / "p", PLAN)
    for title in ("old", "new"):
        rows = [f"http://127.0.0.1:9/1.jpg,{title},,by", f"http://127.0.0.1:9/2.jpg,{title},Ann,"]
        path = table(tmp_path, "\n".join(["address,title,author,licence", *rows[::order]]) + "\n")
        search(project, [address_table(path, PLAN)], QUICK)
    candidates = project.rows(select(t.candidates).order_by(t.candidates.c.address))
    assert [(row.title, row.author, row.licence) for row in candidates] == [("new", "", "by"), ("new", "Ann", "")]


def test_a_folder_and_resume_after_a_stop(tmp_path: Path) -> None:
    class_folders(tmp_path / "in", ("awe", "Fear"), each=3)
    (tmp_path / "in" / "awe" / "Wonder").mkdir()
    (tmp_path / "in" / "awe" / "Wonder" / "<img src=x>ä.png").write_bytes(jpeg_of(draw_image(7)))
    project = create_project(tmp_path / "p", PLAN)
    search(project, [local_folder(tmp_path / "in", PLAN)], QUICK)

    class StopError(Exception):
        pass

    def stop(work: str, done: int, total: int) -> None:
        if done == 2:
            raise StopError

    with pytest.raises(StopError):
        fetch(project, QUICK, stop, folders=[tmp_path / "in"])
    done = project.rows(select(t.candidates.c.state))
    assert 2 <= [row.state for row in done].count("fetched") <= 7  # what was done is kept
    fetch(project, QUICK, folders=[tmp_path / "in"])
    rows = project.rows(select(t.candidates).order_by(t.candidates.c.rank))
    assert {row.state for row in rows} == {"fetched"}
    assert [(row.label, row.keyword) for row in rows] == [*[("fear", "")] * 3, *[("awe", "")] * 3, ("awe", "Wonder")]
    assert rows[-1].title == "awe/Wonder/<img src=x>ä.png"
    with pytest.raises(DataError, match="no such folder"):
        local_folder(tmp_path / "nowhere", PLAN)


def test_files_that_have_changed_or_are_gone_are_named(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", ("awe", "fear"), each=2)
    project = create_project(tmp_path / "p", PLAN)

    def collect() -> list[str]:
        search(project, [local_folder(root, PLAN)], QUICK)
        fetch(project, QUICK, folders=[root])
        return folder_changes(project, [root])

    assert collect() == []
    first, second = sorted((root / "awe").iterdir())
    first.write_bytes(jpeg_of(draw_image(90)))
    second.rename(root / "fear" / "moved.jpg")
    touched, _ = sorted((root / "fear").iterdir())[-2:]
    touched.touch()
    changed, gone = collect()
    assert changed.startswith(f"1 file has changed since the first collection, such as {first}: ")
    assert gone.startswith(f"1 collected file is gone, such as {second}: images and labels stay")
    assert folder_changes(project, [tmp_path / "p"]) == []


def test_finished_searches_are_not_repeated(tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        as_json(handler, {"page_count": 1, "results": [{"url": f"https://a.example{handler.path}"}]})

    project = create_project(tmp_path / "p", PLAN)
    with serving(answer) as server:
        source = openverse(asking(server), server.address)
        search(project, [source], replace(QUICK, per_keyword=5))
        assert len(server.paths) == 3
        search(project, [source], replace(QUICK, per_keyword=5))
        assert len(server.paths) == 3
        search(project, [source], replace(QUICK, per_keyword=6))
        assert len(server.paths) == 6


def test_images_that_failed_are_tried_again_on_request(tmp_path: Path) -> None:
    served = {"/1.jpg": JPEG}

    def answer(handler: Handler) -> None:
        handler.send(served.get(handler.path, b""), 200 if handler.path in served else 404)

    with serving(without_rules(answer)) as server:
        project = offered(tmp_path, *(f"{server.address}/{number}.jpg,awe" for number in (1, 2)))
        assert fetch(project, local(server)) == {"fetched": 1, "failed": 1, "waiting": 0}
        take_down(project, f"{server.address}/1.jpg", because="asked")
        served["/2.jpg"] = jpeg_of(draw_image(9))
        assert fetch(project, local(server)) == {"fetched": 0, "failed": 0, "waiting": 0}
        assert fetch(project, local(server), retry=True) == {"fetched": 1, "failed": 0, "waiting": 0}
    assert states(project) == {"1.jpg": ("failed", "taken down"), "2.jpg": ("fetched", "")}


def test_images_whose_files_are_missing_are_fetched_again(tmp_path: Path) -> None:
    """Unless all of them are missing, as where a drive is not mounted."""
    class_folders(tmp_path / "in", ("awe",), each=2)
    nothing = {"fetched": 0, "failed": 0, "waiting": 0}
    with serving(misbehaving()) as server:
        project = offered(tmp_path, f"{server.address}/ok.jpg,awe", f"{server.address}/same.jpg,awe")
        search(project, [local_folder(tmp_path / "in", PLAN)], QUICK)
        fetch(project, local(server), folders=[tmp_path / "in"])
        before = project.rows(select(t.candidates.c.address, t.candidates.c.state, t.candidates.c.picture_id))
        images = [project.image_path(row.sha256, row.format) for row in project.rows(select(t.images))]
        folder = project.folder / "pictures"
        folder.rename(tmp_path / "away")
        for make in (lambda: None, folder.mkdir):  # where the drive was
            make()
            assert fetch(project, local(server), folders=[tmp_path / "in"]) == nothing
        (tmp_path / "away").rename(folder)
        images[1].parent.rename(tmp_path / "linked")
        images[1].parent.symlink_to(tmp_path / "linked")  # not read
        assert fetch(project, local(server), folders=[tmp_path / "in"]) == nothing
        images[1].parent.unlink()
        (tmp_path / "linked").rename(images[1].parent)
        for path in images[1:]:
            path.rename(path.with_name(f"{path.name}.1-2.partial"))  # of a writer that was killed
        shutil.rmtree(images[0].parent)  # copies may lack empty folders
        assert fetch(project, local(server)) == {"fetched": 2, "failed": 0, "waiting": 2}
        assert fetch(project, local(server), folders=[tmp_path / "in"]) == {"fetched": 2, "failed": 0, "waiting": 0}
    assert all(path.exists() for path in images)
    assert project.rows(select(t.candidates.c.address, t.candidates.c.state, t.candidates.c.picture_id)) == before


def test_a_missing_image_is_not_replaced_by_another_one(tmp_path: Path) -> None:
    """Such as "no longer available"; by its address, the first one can still be taken down."""
    served = {"/1.jpg": JPEG}
    with serving(without_rules(lambda handler: handler.send(served[handler.path]))) as server:
        project = offered(tmp_path, f"{server.address}/1.jpg,awe")
        fetch(project, local(server))
        [row] = project.rows(select(t.images))
        project.image_path(row.sha256, row.format).unlink()
        served["/1.jpg"] = jpeg_of(draw_image(9))
        assert fetch(project, local(server)) == {"fetched": 0, "failed": 1, "waiting": 0}
        assert states(project) == {"1.jpg": ("failed", "another image than before is at its address now")}
        assert take_down(project, f"{server.address}/1.jpg", because="asked").sha256 == (row.sha256,)
    assert len(project.rows(select(t.images))) == 1


def test_an_address_taken_down_is_not_fetched_again_from_any_source(tmp_path: Path) -> None:
    other = jpeg_of(draw_image(9))
    served = {"/1.jpg": JPEG}
    with serving(without_rules(lambda handler: handler.send(served[handler.path]))) as server:
        project = offered(tmp_path, f"{server.address}/1.jpg,awe")
        fetch(project, local(server))
        take_down(project, f"{server.address}/1.jpg", because="asked")
        served["/1.jpg"] = other  # the same address, other bytes
        source = address_table(tmp_path / "addresses.csv", PLAN)
        search(project, [replace(source, name="another")], QUICK)
        request_count = len(server.paths)
        assert fetch(project, local(server)) == {"fetched": 0, "failed": 0, "waiting": 0}
        assert len(server.paths) == request_count
        assert [row.reason for row in project.rows(select(t.candidates))] == ["taken down"] * 2
        assert not list((tmp_path / "p" / "pictures").rglob("*.jpg"))
        take_back(project.store, 1)
        assert fetch(project, local(server)) == {"fetched": 1, "failed": 1, "waiting": 0}  # the first had other bytes
        assert len(list((tmp_path / "p" / "pictures").rglob("*.jpg"))) == 1
