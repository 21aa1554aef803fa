"""Answers that go to Label Studio and come back: its server takes the tasks, and annotators stay themselves."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sqlalchemy import insert, select, update

from tests.curate.label_studio_server import CHANGED_AT, ImportRefusedError, LabelStudio
from tests.curate.places import PLAN, project_of, say
from uniemox_curate import tables as t
from uniemox_curate.annotate.agree import agreement_now
from uniemox_curate.annotate.answer_files import given_answers, write_label_studio
from uniemox_curate.annotate.answer_import import import_label_studio
from uniemox_curate.annotate.label_studio import CONTROL
from uniemox_curate.annotate.verdicts import verdicts
from uniemox_curate.cli.labels import import_answers
from uniemox_curate.plan import AnswerForm, paper_plan
from uniemox_curate.project import Project
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.run import release
from uniemox_curate.release.splitting import split

DOCS = Path(__file__).parents[2] / "docs" / "curate.md"
PEOPLE = {1: "me@a.example", 2: "eve@a.example"}
LABELS = ("awe", "fear") * 10
FORM = AnswerForm(several=True, intensity=True, affect=True, comment=True)


def two_annotators(folder: Path) -> Project:
    """Twenty images with two answers each, with values, several labels, and one skipped image."""
    project = project_of(folder, LABELS, replace(PLAN, answer=FORM))
    say(project, Ada="af" * 10, Ben="af" * 7 + "aaffan")
    with project.store.write() as connection:
        for row in project.rows(select(t.answers)):
            content: dict[str, Any] = {"valence": 3 + row.person_id}
            if row.label != "none":
                content["labels"] = ["fear", "awe"] if row.label == "fear" else ["awe"]
            connection.execute(insert(t.details).values(answer_id=row.id, content=json.dumps(content)))
        skipped = select(t.answers.c.id).order_by(t.answers.c.id).limit(1).scalar_subquery()
        connection.execute(update(t.answers).where(t.answers.c.id == skipped).values(label="skip"))
        connection.execute(
            update(t.details)
            .where(t.details.c.answer_id == skipped)
            .values(content='{"skip": "unseen", "comment": "x"}')
        )
        connection.execute(update(t.answers).values(at=1_700_000_000 + 60 * t.answers.c.id))
    return project


def exported(project: Project, path: Path) -> list[dict[str, Any]]:
    write_label_studio(project, path)
    tasks: list[dict[str, Any]] = json.loads(path.read_text())
    return tasks


def returned(server: LabelStudio, path: Path) -> Path:
    path.write_text(json.dumps(server.export()))
    return path


def contents(project: Project) -> list[tuple[object, ...]]:
    return [
        (answer.picture, answer.annotator.removeprefix("label studio "), answer.label, answer.at, details)
        for answer, details in given_answers(project)
    ]


@pytest.mark.parametrize("who", [{"email": "Ada"}, {"id": 1}, "Ada", 7])
def test_server_refuses_people_it_does_not_know(who: object) -> None:
    task = {"data": {"image": "1.jpg"}, "annotations": [{"result": [], "completed_by": who}]}
    with pytest.raises(ImportRefusedError, match="email"):
        LabelStudio(PEOPLE).add([task])


def test_images_without_an_answer_are_tasks_too(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS, replace(PLAN, answer=FORM))
    tasks = exported(project, tmp_path / "tasks.json")
    assert len(tasks) == len(LABELS)
    assert not any(task["annotations"] for task in tasks)
    LabelStudio(PEOPLE).add(tasks)


def test_tasks_are_found_by_the_projects_own_file_names(tmp_path: Path) -> None:
    """For tasks that were not made from an export: Label Studio lists the files of a storage."""
    project = two_annotators(tmp_path / "p")
    tasks = exported(project, tmp_path / "tasks.json")
    for task in tasks:
        del task["data"]["sha256"]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    imported = import_label_studio(project, tmp_path / "tasks.json")
    assert imported.unknown == 0
    assert imported.answers == len(project.rows(select(t.answers)))


def test_agreement_is_the_same_after_the_trip(tmp_path: Path) -> None:
    project = two_annotators(tmp_path / "p")
    before = agreement_now(project)
    server = LabelStudio(PEOPLE)
    server.add(exported(project, tmp_path / "tasks.json"))
    export = returned(server, tmp_path / "export.json")
    assert import_label_studio(project, export) == (0, 40, 0, 0, 0, 0, {}, {}, 0)
    assert agreement_now(project) == before
    assert 0.5 < before.alpha.value < 0.9
    other = project_of(tmp_path / "q", LABELS, replace(PLAN, answer=FORM))
    assert import_label_studio(other, export) == (40, 40, 0, 0, 0, 0, {}, {}, 0)
    assert contents(other) == contents(project)
    assert agreement_now(other).alpha == before.alpha
    assert {answer.annotator for answer, _ in given_answers(other)} == {"label studio Ada", "label studio Ben"}


def test_a_second_trip_and_a_second_import_add_nothing(tmp_path: Path) -> None:
    """Also by another server, which numbers its annotations otherwise, and directly from the tasks."""
    project = two_annotators(tmp_path / "p")
    other = project_of(tmp_path / "q", LABELS, replace(PLAN, answer=FORM))
    tasks = exported(project, tmp_path / "tasks.json")
    import_label_studio(other, tmp_path / "tasks.json")
    first, second = LabelStudio(PEOPLE), LabelStudio({5: "x@a.example"})
    first.add(tasks)
    second.add([{"data": {"image": "unknown.jpg"}, "annotations": [{"result": []}] * 9}])
    second.add(exported(other, tmp_path / "again.json"))
    for server in (first, second):
        imported = import_label_studio(other, returned(server, tmp_path / "export.json"))
        assert (imported.new, imported.answers, imported.repeated) == (0, 40, {})
    assert contents(other) == contents(project)


def test_what_was_changed_on_the_server_counts_beside_the_old_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = two_annotators(tmp_path / "p")
    tasks = exported(project, tmp_path / "tasks.json")
    server = LabelStudio(PEOPLE)
    server.add(tasks)
    [choice] = tasks[3]["annotations"][0]["result"]
    server.change(3, 0, 2, [{**choice, "value": {"choices": ["awe"]}}])
    server.annotate(4, 2, [choice])
    export = returned(server, tmp_path / "export.json")
    import_answers(project.folder, export)
    printed = capsys.readouterr()
    assert "imported 2 answers; 39 already existed" in printed.out
    assert "answers of Ada that were changed in Label Studio: 1" in printed.err
    answers = {
        (answer.picture, answer.annotator): (answer.label, details) for answer, details in given_answers(project)
    }
    assert answers[4, "Ada"][0] == "fear"
    assert answers[4, "label studio Ada"] == ("awe", {"valence": 4})  # the other values stay
    assert answers[5, "label studio 2"] == ("fear", {"labels": ["fear", "awe"]})
    assert len(answers) == 42


def test_an_answer_that_changed_in_the_project_meanwhile_stays(tmp_path: Path) -> None:
    project = two_annotators(tmp_path / "p")
    server = LabelStudio(PEOPLE)
    server.add(exported(project, tmp_path / "tasks.json"))
    with project.store.write() as connection:
        row = project.rows(select(t.answers).where(t.answers.c.label == "fear").limit(1))[0]
        values = {**row._mapping, "id": None, "client_id": "later-answer", "label": "awe", "at": row.at + 9}
        connection.execute(insert(t.answers).values(values))
    before = contents(project)
    imported = import_label_studio(project, returned(server, tmp_path / "export.json"))
    assert (imported.new, imported.older, imported.changed) == (0, 1, {})
    assert contents(project) == before


def test_one_account_of_several_people_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the names in their data, as in exports of older versions, annotations are all of whoever imports."""
    project = two_annotators(tmp_path / "p")
    tasks = exported(project, tmp_path / "tasks.json")
    for task in tasks:
        del task["data"]["answers"]
    server = LabelStudio(PEOPLE)
    server.add(tasks)
    import_answers(project.folder, returned(server, tmp_path / "export.json"))
    printed = capsys.readouterr()
    assert "images to which label studio 1 has several answers: 20" in printed.err
    assert "imported 20 answers" in printed.out


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"annotator": ""},
        {"annotator": 7},
        {"label": None},
        {"details": []},
        {"at": "yesterday"},
        {"id": "one"},
    ],
)
def test_an_invalid_entry_in_the_data_names_nobody(tmp_path: Path, entry: dict[str, object] | None) -> None:
    project = project_of(tmp_path / "p", ["awe"])
    say(project, Ada="a")
    tasks = exported(project, tmp_path / "tasks.json")
    [written] = tasks[0]["data"]["answers"]
    tasks[0]["data"]["answers"] = [{**written, **entry} if entry else entry]
    server = LabelStudio(PEOPLE)
    server.add(tasks)
    other = project_of(tmp_path / "q", ["awe"])
    import_label_studio(other, returned(server, tmp_path / "export.json"))
    assert [answer.annotator for answer, _ in given_answers(other)] == ["label studio 1"]


def test_a_written_answer_must_fit_the_plan(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe"])
    say(project, Ada="a")
    tasks = exported(project, tmp_path / "tasks.json")
    tasks[0]["data"]["answers"][0] |= {"details": {"valence": 10}}
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    other = project_of(tmp_path / "q", ["awe"])
    assert import_label_studio(other, tmp_path / "tasks.json").unfit == 1


def test_server_takes_the_tasks_of_a_release_which_are_nobodys_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = project_of(tmp_path / "p", LABELS, looks=True)
    say(project, Ada="af" * 10, Ben="af" * 10)
    split(project, verdicts(project), {"train": 0.5, "test": 0.5}, schemes=1)
    release(project, tmp_path / "out", ReleaseConfig(name="x"))
    tasks = tmp_path / "out" / "label_studio.json"
    # Its labels are those of all annotators together, and not of one more.
    import_answers(project.folder, tasks)
    assert "20 annotations do not say who gave them" in " ".join(capsys.readouterr().err.split())
    assert len(project.rows(select(t.people))) == 2
    server = LabelStudio(PEOPLE)
    server.add(json.loads(tasks.read_text()))
    for task in server.export():
        file = task["data"]["image"].partition("?d=")[2]
        assert (tmp_path / "out" / file).is_file()


def test_labelling_interface_of_the_page_fits_the_tasks() -> None:
    [interface] = re.findall(r"```xml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    view = ElementTree.fromstring(interface)
    image, choices = view.find("Image"), view.find("Choices")
    assert image is not None
    assert choices is not None
    assert (image.get("name"), image.get("value")) == ("image", "$image")
    assert (choices.get("name"), choices.get("toName")) == (CONTROL, "image")
    assert tuple(choice.get("value") for choice in choices) == paper_plan().labels


def test_the_time_of_a_change_is_kept(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe"])
    server = LabelStudio(PEOPLE)
    server.add([{"data": {"image": "1.jpg"}}])
    server.annotate(0, 2, [])
    import_label_studio(project, returned(server, tmp_path / "export.json"))
    write_label_studio(project, tmp_path / "tasks.json")
    [task] = json.loads((tmp_path / "tasks.json").read_text())
    assert task["data"]["answers"][0]["at"] == CHANGED_AT[:19] + "Z"
