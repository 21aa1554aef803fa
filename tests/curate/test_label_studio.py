"""Exports of Label Studio as they occur: several controls, several answers of a person, ids with and without e-mail."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from tests.curate.places import project_of
from tests.curate.test_agree import plain_alpha
from tests.data.tree import says
from uniemox.errors import DataError
from uniemox_curate import tables as t
from uniemox_curate.annotate.agree import agreement_now
from uniemox_curate.annotate.answer_files import given_answers, write_label_studio
from uniemox_curate.annotate.answer_import import import_label_studio
from uniemox_curate.annotate.label_studio import time_of
from uniemox_curate.cli.labels import import_answers
from uniemox_curate.project import Project

EARLY = "2024-05-01T10:00:00Z"
LATE = "2024-05-02T10:00:00.500000+02:00"
LATE_S = 1714636800.5


def choice(label: str, control: str = "emotion") -> dict[str, object]:
    return {"from_name": control, "to_name": "image", "type": "choices", "value": {"choices": [label]}}


def annotation(*results: dict[str, object], who: object = 7, at: str | None = EARLY, **more: object) -> dict[str, Any]:
    times = {} if at is None else {"created_at": EARLY, "updated_at": at}
    return {"completed_by": who, "result": list(results), "was_cancelled": False, **times, **more}


def export(folder: Path, *tasks: Sequence[dict[str, Any]]) -> Path:
    """Task i is for image i + 1."""
    content = [{"data": {"image": f"/data/{i + 1}.jpg"}, "annotations": list(rows)} for i, rows in enumerate(tasks)]
    path = folder / f"{len(list(folder.glob('*.json')))}.json"
    path.write_text(json.dumps(content))
    return path


def answers_of(project: Project) -> list[tuple[int, str, str]]:
    return [(answer.picture, answer.annotator, answer.label) for answer, _ in given_answers(project)]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_of(tmp_path / "p", ["awe", "fear"])


def test_only_one_control_is_read(project: Project, tmp_path: Path) -> None:
    path = export(tmp_path, [annotation(choice("fear", "felt"), choice("awe"))], [annotation(choice("fear", "felt"))])
    imported = import_label_studio(project, path)
    assert (imported.new, imported.unanswered) == (1, 1)
    assert answers_of(project) == [(1, "label studio 7", "awe")]


def test_several_controls_need_a_name(project: Project, tmp_path: Path) -> None:
    path = export(tmp_path, [annotation(choice("fear", "felt"), choice("awe", "evoked"))])
    with pytest.raises(DataError, match=says(path, "several controls: evoked, felt", "--control felt")):
        import_label_studio(project, path)
    with pytest.raises(DataError, match=says("no answer has the control 'mood'; there are: evoked, felt")):
        import_label_studio(project, path, "mood")
    assert answers_of(project) == []
    import_answers(project.folder, path, control="evoked")
    assert answers_of(project) == [(1, "label studio 7", "awe")]


def test_a_single_control_may_have_any_name(project: Project, tmp_path: Path) -> None:
    import_label_studio(project, export(tmp_path, [annotation(choice("awe", "mood"))]))
    assert answers_of(project) == [(1, "label studio 7", "awe")]


@pytest.mark.parametrize("times", [(LATE, EARLY), (EARLY, None), (LATE, "no time")])
def test_the_newest_answer_counts_wherever_it_stands(
    project: Project, tmp_path: Path, times: tuple[str, str | None]
) -> None:
    first, second = times
    rows = [annotation(choice("fear"), at=first), annotation(choice("awe"), at=second)]
    imported = import_label_studio(project, export(tmp_path, rows))
    assert (imported.new, imported.answers, imported.older) == (1, 1, 1)
    assert answers_of(project) == [(1, "label studio 7", "fear")]
    assert len(project.rows(select(t.answers))) == 1


def test_an_older_export_does_not_replace_newer_answers(project: Project, tmp_path: Path) -> None:
    old = export(tmp_path, [annotation(choice("awe"))])
    import_label_studio(project, export(tmp_path, [annotation(choice("fear"), at=LATE)]))
    assert import_label_studio(project, old).older == 1
    assert answers_of(project) == [(1, "label studio 7", "fear")]
    newest = annotation(choice("awe"), at="2024-06-01T00:00:00Z")
    assert import_label_studio(project, export(tmp_path, [newest])).new == 1
    assert answers_of(project) == [(1, "label studio 7", "awe")]


def test_times_are_kept_and_exported(project: Project, tmp_path: Path) -> None:
    import_label_studio(project, export(tmp_path, [annotation(choice("fear"), at=LATE)]))
    assert [answer.at for answer, _ in given_answers(project)] == [LATE_S]
    write_label_studio(project, tmp_path / "out.json")
    [task] = [task for task in json.loads((tmp_path / "out.json").read_text()) if task["annotations"]]
    assert task["data"]["answers"][0]["at"] == "2024-05-02T08:00:00Z"


@pytest.mark.thorough
@pytest.mark.parametrize(
    "people",
    [
        (5, {"id": 5, "email": "ada@a.example"}),
        ({"id": 5, "email": "ada@a.example"}, 5),
        ({"id": 5}, {"id": 5.0, "email": "ada@a.example"}),
        ("5", 5),
        ({"id": 5, "email": "ada@a.example"}, {"email": "ada@a.example"}),
        ("ada@a.example", {"id": 5, "email": " ada@a.example"}),
        ({"id": 5, "email": "Ada@A.example"}, {"email": "ada@a.example"}),
        ({"id": 5, "email": "Ada@A.example"}, {"id": 5, "email": "ada@a.example"}),
    ],
)
@pytest.mark.parametrize("files", [1, 2])
def test_one_person_is_one_annotator(
    project: Project, tmp_path: Path, people: tuple[object, object], files: int
) -> None:
    """Also if a second file, exported otherwise, names them in another way."""
    first = annotation(choice("awe"), who=people[0])
    second = annotation(choice("awe"), who=people[1], at=LATE)
    for tasks in [[[first], [second]]] if files == 1 else [[[first], []], [[], [second]]]:
        import_label_studio(project, export(tmp_path, *tasks))
    assert len({name for _, name, _ in answers_of(project)}) == 1
    assert agreement_now(project).pictures == 0  # nobody agrees with themselves


def test_agreement_of_imported_answers_is_that_of_two_people(tmp_path: Path) -> None:
    """Each of two people answers again, later, by id alone."""
    project = project_of(tmp_path / "p", ["awe", "fear", "awe", "fear"])
    labels_of_images = (("awe", "awe"), ("fear", "fear"), ("awe", "fear"), ("fear", "fear"))
    tasks = []
    for labels in labels_of_images:
        rows = [annotation(choice(label), who=i, at=LATE) for i, label in enumerate(labels, start=1)]
        people = [{"id": i, "email": f"{i}@a.example"} for i in (1, 2)]
        tasks.append([*rows, *(annotation(choice("awe"), who=who) for who in people)])
    import_label_studio(project, export(tmp_path, *tasks))
    codes = np.array([[("awe", "fear").index(label) for label in labels] for labels in labels_of_images])
    assert agreement_now(project).alpha.value == pytest.approx(plain_alpha(codes.T.tolist()))


def test_two_people_with_the_same_id_stay_two_annotators(project: Project, tmp_path: Path) -> None:
    """The same id on two servers, or with two addresses in one file."""
    for name in ("ada", "ben"):
        rows = [annotation(choice("awe"), who={"id": 5, "email": f"{name}@a.example"})]
        import_label_studio(project, export(tmp_path, rows))
    assert [name for _, name, _ in answers_of(project)] == ["label studio ada@a.example", "label studio ben@a.example"]
    rows = [annotation(choice("awe"), who={"id": 6, "email": f"{name}@a.example"}) for name in ("eve", "fay")]
    with pytest.raises(DataError, match=says("has the id 6 for eve@a.example and fay@a.example")):
        import_label_studio(project, export(tmp_path, rows))


OTHER_RESULTS: tuple[tuple[str, dict[str, object]], ...] = (
    ("textarea", {"text": ["no idea"]}),
    ("rating", {"rating": 4}),
    ("taxonomy", {"taxonomy": [["awe"]]}),
    ("rectanglelabels", {"rectanglelabels": ["awe"]}),
    ("choices", {"choices": "awe"}),
)


@pytest.mark.parametrize(("kind", "value"), OTHER_RESULTS)
@pytest.mark.parametrize("name", ["why", "emotion"])
def test_a_comment_alone_is_no_answer(
    project: Project, tmp_path: Path, kind: str, value: dict[str, object], name: str
) -> None:
    comment: dict[str, object] = {"from_name": name, "to_name": "image", "type": kind, "value": value}
    rows = [annotation(choice("awe"), comment, who=1), annotation(comment, who=2), annotation(who=3)]
    imported = import_label_studio(project, export(tmp_path, rows))
    assert (imported.new, imported.unanswered) == (2, 1)
    labels = {name: label for _, name, label in answers_of(project)}
    assert labels == {"label studio 1": "awe", "label studio 3": "none"}


def test_completions_of_old_versions_are_annotations(project: Project, tmp_path: Path) -> None:
    """Before 1.0, their times were seconds."""
    path = tmp_path / "old.json"
    completion = {"completed_by": 3, "result": [choice("fear")], "created_at": 1620000000}
    path.write_text(json.dumps([{"data": {"image": "1.jpg"}, "completions": [completion]}]))
    assert import_label_studio(project, path).new == 1
    [(answer, _)] = given_answers(project)
    assert (answer.annotator, answer.label, answer.at) == ("label studio 3", "fear", 1620000000)
    # A number of milliseconds is no time.
    assert time_of({"created_at": 1620000000000}) is None


def test_an_export_without_annotations_is_reported(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tasks.json"
    prediction = {"result": [choice("fear")]}
    path.write_text(json.dumps([{"data": {"image": "1.jpg"}, "annotations": [], "predictions": [prediction]}]))
    import_answers(project.folder, path)
    assert "no task has an annotation, and predictions and drafts are no answers" in capsys.readouterr().err
    path.write_text(json.dumps([{"data": {"image": "other.jpg"}, "annotations": []}]))
    import_answers(project.folder, path)
    assert "1 task refers to an image not in the project" in capsys.readouterr().err
    import_answers(project.folder, export(tmp_path, [annotation(choice("fear"), who=1)]))
    assert "uniemox curate status lists who gave them" in capsys.readouterr().err


def test_comments_do_not_change_the_agreement(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe", "fear", "awe", "fear"])
    comment: dict[str, object] = {
        "from_name": "why",
        "to_name": "image",
        "type": "textarea",
        "value": {"text": ["no idea"]},
    }
    tasks = [
        [annotation(choice(label), who=1), annotation(choice(label), who=2), annotation(comment, who=3)]
        for label in ("awe", "fear", "awe", "fear")
    ]
    assert import_label_studio(project, export(tmp_path, *tasks)).unanswered == 4
    assert agreement_now(project).alpha.value == 1


def test_a_cancelled_comment_is_a_skipped_image(project: Project, tmp_path: Path) -> None:
    comment: dict[str, object] = {
        "from_name": "why",
        "to_name": "image",
        "type": "textarea",
        "value": {"text": ["too dark"]},
    }
    import_label_studio(project, export(tmp_path, [annotation(comment, was_cancelled=True)]))
    assert answers_of(project) == [(1, "label studio 7", "skip")]


def test_an_id_with_a_known_address_is_another_persons_with_another_address(project: Project, tmp_path: Path) -> None:
    people = [(5, "awe"), ({"id": 5, "email": "ada@a.example"}, "awe"), ({"id": 5, "email": "bob@a.example"}, "fear")]
    for who, label in people:
        import_label_studio(project, export(tmp_path, [annotation(choice(label), who=who)]))
    assert answers_of(project) == [(1, "label studio 5", "awe"), (1, "label studio bob@a.example", "fear")]


def test_the_address_of_a_known_id_holds_for_the_whole_file(project: Project, tmp_path: Path) -> None:
    import_label_studio(project, export(tmp_path, [annotation(choice("awe"), who=5)]))
    address = {"email": "ada@a.example"}
    second = [[annotation(choice("awe"), who=address)], [annotation(choice("fear"), who={"id": 5, **address})]]
    import_label_studio(project, export(tmp_path, *second))
    assert {name for _, name, _ in answers_of(project)} == {"label studio 5"}
