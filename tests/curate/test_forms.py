"""Answers beyond one word: forms, consent, suggestions, and answers as files."""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from tests.curate.places import PLAN, project_of, say
from tests.predict.networks import tiny_network
from uniemox.errors import ConfigError, DataError
from uniemox_curate import tables as t
from uniemox_curate.annotate import answer_import
from uniemox_curate.annotate.access import invite
from uniemox_curate.annotate.answer_files import given_answers, write_csv, write_label_studio
from uniemox_curate.annotate.answer_import import import_label_studio
from uniemox_curate.annotate.assignment import forget, suggest, suggested_by
from uniemox_curate.annotate.verdicts import read_answers, verdicts
from uniemox_curate.annotate.web import create_app
from uniemox_curate.plan import AnswerForm, plan_of
from uniemox_curate.project import Project, open_project
from uniemox_curate.questions import QUESTIONS
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.run import release
from uniemox_curate.release.splitting import split
from uniemox_curate.release.takedown import take_down
from uniemox_curate.status import status

FORM = AnswerForm(several=True, intensity=True, affect=True, comment=True)
ADDRESS = "http://127.0.0.1:8000"


@contextmanager
def annotator(project: Project, name: str = "Ada") -> Iterator[TestClient]:
    with TestClient(create_app(project, [ADDRESS]), base_url=ADDRESS) as client:
        client.post("/api/join", json={"token": invite(project, name)}, headers={"Origin": ADDRESS})
        client.headers |= {"X-CSRF": client.get("/api/me").json()["csrf"], "Origin": ADDRESS}
        yield client


def answer(task: int, label: str, **more: object) -> dict[str, object]:
    return {"id": f"answer-{task}-{label}", "task": task, "label": label, "seconds": 1.0, **more}


def test_all_fields_of_an_answer_are_saved(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe", "fear", "awe"], replace(PLAN, answer=FORM))
    with annotator(project) as ada:
        assert ada.get("/api/form").json()["several"] is True
        first, second, third = (task["id"] for task in ada.get("/api/tasks").json()["tasks"])
        details = {"labels": ["fear", "awe"], "intensity": 7, "valence": 2, "arousal": 9, "comment": "dark <b>"}
        rows = [answer(first, "fear", **details), answer(second, "skip", skip="upsetting"), answer(third, "none")]
        saved = ada.post("/api/answers", json={"answers": rows}).json()["saved"]
        assert len(saved) == 3
        again = ada.get("/api/answers").json()["answers"]
        assert [row["details"] for row in reversed(again)] == [details, {"skip": "upsetting"}, {}]
        assert ada.get("/api/me").json()["answered"] == 3
    by_task = {row.id: row.picture_id for row in project.rows(select(t.tasks))}
    answers = read_answers(project)
    assert answers.by_image == {by_task[first]: {"Ada": "fear"}, by_task[third]: {"Ada": "none"}}
    assert answers.details == {by_task[first]: {"Ada": details}}
    verdict = verdicts(project, rule="soft", min_answers=1)[by_task[first]]
    assert (verdict.label, verdict.shares) == ("fear", {"awe": 0.5, "fear": 0.5})


@pytest.mark.parametrize(
    "more",
    [
        {"label": "skip"},
        {"label": "awe", "skip": "unsure"},
        {"label": "awe", "labels": ["fear", "awe"]},
        {"label": "awe", "labels": ["awe", "joy"]},
        {"label": "skip", "skip": "unsure", "labels": ["awe"]},
        {"label": "awe", "labels": ["awe", "none"]},
        {"label": "none", "labels": ["none", "awe"]},
        {"label": "awe", "labels": ["awe", "awe"]},
        {"label": "awe", "suggested": "joy"},
        {"label": "awe", "suggested": "none"},
    ],
)
def test_answers_that_contradict_themselves_are_refused(tmp_path: Path, more: dict[str, object]) -> None:
    project = project_of(tmp_path / "p", ["awe"], replace(PLAN, answer=FORM))
    with annotator(project) as ada:
        [task] = ada.get("/api/tasks").json()["tasks"]
        assert ada.post("/api/answers", json={"answers": [answer(task["id"], **more)]}).json()["saved"] == []
        for wrong in ({"intensity": 0}, {"valence": 10}, {"arousal": 1.5}, {"comment": "x" * 2001}, {"skip": "bored"}):
            body = {"answers": [answer(task["id"], "awe", **wrong)]}
            assert ada.post("/api/answers", json=body).json()["saved"] == []
    assert project.rows(select(t.answers)) == []


def test_an_import_is_written_in_short_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotators wait for none of them long."""
    project = project_of(tmp_path / "p", ["awe", "fear"])
    sha256 = project.rows(select(t.images))[0].sha256
    result = [{"type": "choices", "value": {"choices": ["awe"]}}]
    annotations = [{"completed_by": {"email": f"{i}@a.example"}, "result": result} for i in range(500)]
    (tmp_path / "export.json").write_text(json.dumps([{"data": {"sha256": sha256}, "annotations": annotations}]))
    sizes = []
    save = answer_import._save_part
    monkeypatch.setattr(answer_import, "_save_part", lambda to, part: sizes.append(len(part)) or save(to, part))
    assert import_label_studio(project, tmp_path / "export.json") == (500, 500, 0, 0, 0, 0, {}, {}, 0)
    assert sizes == [200, 200, 100]
    assert import_label_studio(project, tmp_path / "export.json") == (0, 500, 0, 0, 0, 0, {}, {}, 0)
    assert len(project.rows(select(t.people))) == len(project.rows(select(t.tasks))) == 500


def test_the_server_decides_what_was_suggested(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe", "fear"], replace(PLAN, answer=FORM))
    with annotator(project) as ada:
        first, second = (task["id"] for task in ada.get("/api/tasks").json()["tasks"])
        image = {row.id: row.picture_id for row in project.rows(select(t.tasks))}[second]
        with project.store.write() as connection:
            connection.execute(insert(t.suggestions).values(picture_id=image, label="fear", share=0.9))
        rows = [answer(task, "awe", suggested="awe") for task in (first, second)]
        assert len(ada.post("/api/answers", json={"answers": rows}).json()["saved"]) == 2
    assert {answer.picture == image: details for answer, details in given_answers(project)} == {
        False: {},
        True: {"suggested": "fear"},
    }


def test_consent_to_the_current_text_comes_before_images(tmp_path: Path) -> None:
    plan = replace(PLAN, answer=AnswerForm(consent="My answers may be published."))
    project = project_of(tmp_path / "p", ["awe"], plan)
    with annotator(project) as ada:
        assert ada.get("/api/form").json()["has_agreed"] is False
        assert ada.get("/api/tasks").status_code == 403
        assert ada.post("/api/consent", json={}).status_code == 200
        assert len(ada.get("/api/tasks").json()["tasks"]) == 1
    assert len(project.rows(select(t.consents))) == 1
    other = replace(project, plan=replace(plan, answer=AnswerForm(consent="And my name.")))
    with annotator(other) as ada:
        assert ada.get("/api/tasks").status_code == 403


def test_plans_with_forms() -> None:
    plan = plan_of({"keywords": {"a": ["x"], "b": ["y"]}, "answer": {"affect": True, "consent": "yes"}}, "p")
    assert plan.answer == AnswerForm(affect=True, consent="yes")
    assert plan_of(json.loads(plan.to_json()), "p") == plan
    with pytest.raises(ConfigError, match="20,000 letters"):
        AnswerForm(instructions="x" * 20_001)


def test_suggestions_are_shown_on_request_and_recorded(tmp_path: Path) -> None:
    model = tiny_network(tmp_path / "m.onnx", labels=["awe", "fear"], label_set="custom")
    project = project_of(tmp_path / "p", ["awe", "fear"])
    with annotator(project) as ada:
        assert [task["suggested"] for task in ada.get("/api/tasks").json()["tasks"]] == [None, None]
        assert suggest(project, str(model)) == len(project.rows(select(t.suggestions))) == 2
        tasks = ada.get("/api/tasks").json()["tasks"]
        assert {task["suggested"] for task in tasks} <= {"awe", "fear"}
        rows = [answer(tasks[0]["id"], "awe", suggested=tasks[0]["suggested"])]
        ada.post("/api/answers", json={"answers": rows})
        forget(project)
        assert [task["suggested"] for task in ada.get("/api/tasks").json()["tasks"]] == [None]
    assert suggested_by(project) == [str(model)]
    [(_, details)] = given_answers(project)
    assert details == {"suggested": tasks[0]["suggested"]}
    with pytest.raises(ConfigError, match="does not know awe, fear"):
        suggest(project, str(tiny_network(tmp_path / "other.onnx", labels=["red", "blue"], label_set="custom")))


def test_interrupted_suggestions_name_their_model(tmp_path: Path) -> None:
    def stop(_: str, done: int, __: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    model = tiny_network(tmp_path / "m.onnx", labels=["awe", "fear"], label_set="custom")
    project = project_of(tmp_path / "p", ["awe", "fear"])
    with pytest.raises(KeyboardInterrupt):
        suggest(project, str(model), stop)
    assert len(project.rows(select(t.suggestions))) == 2
    assert suggested_by(project) == [str(model)]


def rated(folder: Path) -> Project:
    """Twelve images that Ada and Ben answered with values and comments."""
    project = project_of(folder, ["awe", "fear"] * 6, replace(PLAN, answer=FORM), looks=True)
    say(project, Ada="af" * 6, Ben="af" * 6)
    with project.store.write() as connection:
        for row in project.rows(select(t.answers)):
            content = {"labels": [row.label], "valence": 3 + row.person_id, "comment": "Ada's secret"}
            connection.execute(t.details.insert().values(answer_id=row.id, content=json.dumps(content)))
    return project


def test_a_release_has_means_and_no_comments(tmp_path: Path) -> None:
    project = rated(tmp_path / "p")
    split(project, verdicts(project), {"train": 0.6, "val": 0.2, "test": 0.2}, schemes=1)
    release(project, tmp_path / "out", ReleaseConfig(name="Rated"))
    with (tmp_path / "out" / "ratings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {(row["answers"], row["valence"], row["arousal"]) for row in rows} == {("2", "4.5", "")}
    texts = [path.read_text() for path in (tmp_path / "out").iterdir() if path.is_file() and path.suffix != ".png"]
    assert not any("secret" in text for text in texts)
    sheet = (tmp_path / "out" / "README.md").read_text()
    assert "Ratings (means in `ratings.csv`): valence from 1 to 9 in 24 answers." in sheet
    assert "intensity" not in sheet


def test_answers_are_exported_as_csv(tmp_path: Path) -> None:
    project = rated(tmp_path / "p")
    assert write_csv(project, tmp_path / "a.csv") == 24
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8-sig") as file:
        row = next(csv.DictReader(file))
    assert (row["annotator"], row["label"], row["labels"], row["valence"]) == ("Ada", "awe", "awe", "4")
    assert row["comment"] == "Ada's secret"
    with pytest.raises(DataError, match="choose another name"):
        write_csv(project, tmp_path)


def test_answers_go_to_label_studio_and_come_back(tmp_path: Path) -> None:
    project = rated(tmp_path / "p")
    assert write_label_studio(project, tmp_path / "tasks.json") == 24
    files = [
        answer["data"]["image"].partition("?d=")[2] for answer in json.loads((tmp_path / "tasks.json").read_text())
    ]
    images = project.rows(select(t.images.c.sha256, t.images.c.format).order_by(t.images.c.id))
    assert files == [project.image_path(*row).relative_to(project.folder).as_posix() for row in images]
    other = project_of(tmp_path / "q", ["awe", "fear"] * 6, replace(PLAN, answer=FORM), looks=True)
    assert import_label_studio(other, tmp_path / "tasks.json") == (24, 24, 0, 0, 0, 0, {}, {}, 0)
    assert import_label_studio(other, tmp_path / "tasks.json") == (0, 24, 0, 0, 0, 0, {}, {}, 0)  # the same again
    contents = [
        {(answer.label, json.dumps(details, sort_keys=True)) for answer, details in given_answers(p)}
        for p in (project, other)
    ]
    assert contents[0] == contents[1]  # values and comments too
    imported = read_answers(other)
    before = read_answers(project)
    assert imported.people == ("label studio Ada", "label studio Ben")
    assert [sorted(labels.values()) for labels in imported.by_image.values()] == [
        sorted(labels.values()) for labels in before.by_image.values()
    ]
    assert len(project.rows(select(t.answers))) == len(other.rows(select(t.answers)))


def test_own_answers_do_not_count_twice(tmp_path: Path) -> None:
    """Only what has changed is imported, and not as an answer of the person, since anybody can write a file."""
    project = rated(tmp_path / "p")
    path = tmp_path / "tasks.json"
    write_label_studio(project, path)
    assert import_label_studio(project, path) == (0, 24, 0, 0, 0, 0, {}, {}, 0)
    before = read_answers(project)
    assert before.people == ("Ada", "Ben")
    tasks = json.loads(path.read_text())
    [changed] = [written for written in tasks[0]["data"]["answers"] if written["annotator"] == "Ada"]
    changed["details"]["valence"] = 9
    changed["at"] = "2026-01-01T00:00:00Z"
    path.write_text(json.dumps(tasks))
    assert import_label_studio(project, path) == (1, 24, 0, 0, 0, 0, {}, {"Ada": 1}, 0)
    now = read_answers(project)
    assert now.people == ("Ada", "Ben", "label studio Ada")
    assert now.details[1].pop("label studio Ada")["valence"] == 9  # type: ignore[attr-defined]
    assert now.details == before.details
    write_label_studio(project, path)
    assert import_label_studio(project, path) == (0, 25, 0, 0, 0, 0, {}, {}, 0)
    take_down(project, project.rows(select(t.images.c.sha256).where(t.images.c.id == 2))[0].sha256, because="asked")
    assert import_label_studio(project, path) == (0, 25, 0, 0, 0, 0, {}, {}, 0)
    assert write_label_studio(project, path) == 23


def test_label_studio_s_own_export_is_read(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe", "fear"])

    def annotation(*words: str, **more: object) -> dict[str, object]:
        result = [{"type": "choices", "from_name": "e", "to_name": "i", "value": {"choices": list(words)}}]
        return {"id": len(words), "completed_by": 7, "lead_time": 2.5, "result": result if words else [], **more}

    tasks = [
        {"data": {"image": "/data/upload/3/0a1b2c3d-1.jpg"}, "annotations": [annotation("Fear", "awe")]},
        {"data": {"image": "/data/local-files/?d=photos/2.jpg"}, "annotations": [annotation(was_cancelled=True)]},
        {"data": {"image": "somewhere/else.jpg"}, "annotations": [annotation("awe")]},
        {"data": {"image": "2.jpg"}, "annotations": [annotation("joy")]},
    ]
    (tmp_path / "t.json").write_text(json.dumps(tasks))
    assert import_label_studio(project, tmp_path / "t.json")[:6] == (2, 2, 1, 1, 0, 0)
    assert [
        (saved_answer.picture, saved_answer.label, details) for saved_answer, details in given_answers(project)
    ] == [(1, "fear", {"labels": ["fear", "awe"]}), (2, "skip", {"skip": "other"})]
    for wrong in ("{", "{}", "[1]", '[{"a": 1}]'):
        (tmp_path / "t.json").write_text(wrong)
        with pytest.raises(DataError, match=re.escape(str(tmp_path / "t.json"))):
            import_label_studio(project, tmp_path / "t.json")


def test_answers_without_a_time_have_none_in_status_and_exports(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe"])
    result = [{"type": "choices", "from_name": "e", "to_name": "i", "value": {"choices": ["awe"]}}]
    task = {"data": {"image": "1.jpg"}, "annotations": [{"completed_by": 7, "result": result}]}
    (tmp_path / "t.json").write_text(json.dumps([task]))
    assert import_label_studio(project, tmp_path / "t.json")[0] == 1
    [person] = status(project).annotators
    assert (person.answered, person.median_s) == (1, None)
    write_csv(project, tmp_path / "a.csv")
    [row] = csv.DictReader((tmp_path / "a.csv").read_text("utf-8-sig").splitlines())
    assert row["seconds"] == ""
    write_label_studio(project, tmp_path / "b.json")
    [exported] = json.loads((tmp_path / "b.json").read_text())
    assert exported["annotations"][0]["lead_time"] is None


def test_a_task_of_another_image_is_unknown(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe", "fear"])
    images: list[dict[str, object]] = [
        {"sha256": "ab" * 32, "image": "/other/project/1.jpg"},
        {"sha256": "1.jpg"},
        {"image": "https://elsewhere.example/zzz.jpg", "similar_to": "x/1.jpg"},
        {"image": "a=1.jpg"},
        {"img": "1.jpg"},
        {"image": ["1.jpg"]},
    ]
    result = [{"type": "choices", "value": {"choices": ["fear"]}}]
    (tmp_path / "t.json").write_text(
        json.dumps([{"data": data, "annotations": [{"result": result}]} for data in images])
    )
    assert import_label_studio(project, tmp_path / "t.json")[:6] == (0, 0, len(images), 0, 0, 0)


@pytest.mark.thorough
@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["id", "result", "type", "value", "choices", "meta", "labels", "skip"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_import_saves_only_valid_answers(imports: Project, junk: object) -> None:
    before = len(imports.rows(select(t.answers)))
    choice = {"type": "choices", "value": {"choices": ["awe"]}}
    fields = [{"result": junk}, {"result": [choice], "meta": junk}, {"result": [choice], "lead_time": junk}]
    fields += [{"result": [choice], "meta": {name: junk}} for name in ("valence", "labels", "comment", "skip")]
    annotations = [junk, {"result": [choice], "completed_by": junk}, *({"completed_by": 7} | part for part in fields)]
    path = imports.folder / "t.json"
    path.write_text(json.dumps([{"data": {"image": "1.jpg"}, "annotations": annotations}, {"data": junk}]))
    imported = import_label_studio(imports, path)
    left_out = imported.unfit + imported.older + imported.unanswered + imported.nameless
    assert imported.answers + left_out == len(annotations)
    rows = imports.rows(select(t.answers.c.label, t.details.c.content).outerjoin(t.details))
    assert len(rows) == before + imported.new
    for row in rows:
        content = json.loads(row.content or "{}")
        assert row.label in ("awe", "none", "skip")
        assert content.get("valence") in (None, *range(1, 10))
        assert set(content.get("labels", ())) <= {"awe", "fear"}


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return project_of(tmp_path_factory.mktemp("imports") / "p", ["awe"])


def test_every_language_has_every_sentence() -> None:
    page = Path(open_project.__code__.co_filename).parent / "annotate" / "page"
    words = json.loads((page / "words.json").read_text("utf-8"))
    labels = words.pop("labels")
    for language, sentences in words.items():
        assert sentences.keys() == words["en"].keys(), language
        for key, sentence in sentences.items():
            assert set(re.findall(r"{\w+}", sentence)) == set(re.findall(r"{\w+}", words["en"][key])), (language, key)
    assert labels["de"].keys() == labels["zh"].keys()
    for question in QUESTIONS:
        assert question.texts.keys() == words.keys()
        assert all(
            (said.low == "") == (said.high == "") == (question.scale is None) for said in question.texts.values()
        )
    used = set(re.findall(r'say\("([^"]+)"', (page / "annotate.js").read_text()))
    assert used <= words["en"].keys()
