"""One more question: the page, the checks of answers, exports, agreement, releases and the datasheet have it."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from tests.curate.places import PLAN, project_of, say
from tests.curate.test_forms import annotator, answer
from tests.data.tree import says
from uniemox.errors import ConfigError
from uniemox_curate import questions as room
from uniemox_curate import tables as t
from uniemox_curate.annotate.agree import agreement_now
from uniemox_curate.annotate.answer_files import given_answers, write_csv, write_label_studio
from uniemox_curate.annotate.answer_import import import_label_studio
from uniemox_curate.annotate.answers import AnswerIn
from uniemox_curate.annotate.verdicts import verdicts
from uniemox_curate.plan import CollectionPlan, plan_of
from uniemox_curate.project import Project, open_project
from uniemox_curate.questions import QUESTIONS, Question, QuestionTexts
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.run import release
from uniemox_curate.release.splitting import split
from uniemox_curate.release.takedown import take_down

PAGE = Path(__file__).parents[2] / "docs" / "extending" / "question.md"
OLD_COLUMNS = ["labels", "intensity", "valence", "arousal", "comment", "skip", "suggested"]


def plan_of_page() -> CollectionPlan:
    """The plan of the page about questions, with the labels of the tests."""
    [block] = re.findall(r'```json title="plan.json"\n(.*?)```', PAGE.read_text("utf-8"), re.DOTALL)
    return replace(PLAN, answer=plan_of(json.loads(block), "plan.json").answer)


@pytest.fixture(params=["of the plan", "of uniemox"])
def plan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CollectionPlan:
    """A plan with two further questions: its own ones, or two that the list of all questions has, by name."""
    plan = plan_of_page()
    if request.param == "of the plan":
        return plan
    own = tuple(question for question in plan.answer.questions if isinstance(question, Question))
    monkeypatch.setattr(room, "QUESTIONS", (*QUESTIONS, *own))
    return replace(plan, answer=replace(plan.answer, questions=tuple(question.name for question in own)))


def answered(folder: Path, plan: CollectionPlan) -> Project:
    """Twenty images with two answers each, with values of all questions."""
    project = project_of(folder, ["awe", "fear"] * 10, plan, looks=True)
    say(project, Ada="af" * 10, Ben="af" * 10)
    with project.store.write() as connection:
        for number, row in enumerate(project.rows(select(t.answers))):
            content = {"valence": 5, "arousal": 5, "dominance": 1 + number % 7, "reason": "a secret"}
            connection.execute(insert(t.details).values(answer_id=row.id, content=json.dumps(content)))
    return project


def test_page_asks_it_and_server_checks_it(tmp_path: Path, plan: CollectionPlan) -> None:
    project = project_of(tmp_path / "p", ["awe"], plan)
    with annotator(project) as ada:
        form = ada.get("/api/form").json()
        assert [question["name"] for question in form["questions"]] == ["valence", "arousal", "dominance", "reason"]
        assert form["questions"][2]["texts"]["de"]["low"] == "machtlos"
        assert [question["scale"] for question in form["questions"]] == [9, 9, 7, None]
        [task] = ada.get("/api/tasks").json()["tasks"]
        for wrong in ({"dominance": 8}, {"dominance": 0}, {"dominance": "5"}, {"reason": 5}, {"unknown": 1}):
            body = {"answers": [answer(task["id"], "awe", **wrong)]}
            assert ada.post("/api/answers", json=body).json()["saved"] == []
        values = {"valence": 5, "arousal": 5, "dominance": 7, "reason": "why not"}
        ada.post("/api/answers", json={"answers": [answer(task["id"], "awe", **values)]})
        assert ada.get("/api/answers").json()["answers"][0]["details"] == values


def test_exports_and_agreement_have_it(tmp_path: Path, plan: CollectionPlan) -> None:
    project = answered(tmp_path / "p", plan)
    write_csv(project, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8-sig", newline="") as file:
        header, first, *_ = csv.reader(file)
    assert header[4:-2] == [*OLD_COLUMNS[:5], "dominance", "reason", *OLD_COLUMNS[5:]]
    assert first[header.index("dominance")] == "1"
    assert set(agreement_now(project).ratings) == {"valence", "arousal", "dominance"}
    write_label_studio(project, tmp_path / "tasks.json")
    other = project_of(tmp_path / "q", ["awe", "fear"] * 10, plan, looks=True)
    assert import_label_studio(other, tmp_path / "tasks.json").new == 40
    assert [details for _, details in given_answers(other)] == [details for _, details in given_answers(project)]


def test_releases_have_it_as_published(tmp_path: Path, plan: CollectionPlan) -> None:
    project = answered(tmp_path / "p", plan)
    split(project, verdicts(project), {"train": 0.6, "val": 0.2, "test": 0.2}, schemes=1)
    out = tmp_path / "out"
    release(project, out, ReleaseConfig(name="Rated"))
    with (out / "answers.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["path", "annotator", "label", "valence", "arousal", "dominance"]
    with (out / "ratings.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["path", "answers", "intensity", "valence", "arousal", "dominance"]
    readme = (out / "README.md").read_text()
    ratings = (
        "valence from 1 to 9 in 40 answers",
        "arousal from 1 to 9 in 40 answers",
        "dominance from 1 to 7 in 40 answers",
    )
    assert f"Ratings (means in `ratings.csv`): {', '.join(ratings)}." in readme
    assert "α of the scale dominance was" in readme
    everything = "".join(path.read_text() for path in out.iterdir() if path.suffix in (".md", ".csv", ".json"))
    assert "secret" not in everything
    before = (out / "answers.csv").read_text().splitlines()
    take_down(project, project.rows(select(t.images.c.sha256))[0].sha256, because="asked")
    assert (out / "answers.csv").read_text().splitlines()[0] == before[0]


def test_a_project_keeps_its_questions(tmp_path: Path) -> None:
    plan = plan_of_page()
    project_of(tmp_path / "p", ["awe"], plan).store.close()
    assert open_project(tmp_path / "p").plan == plan
    assert plan_of(json.loads(plan.to_json()), "x") == plan


def test_plans_of_older_versions_ask_the_same(tmp_path: Path) -> None:
    """They have no questions, and a field for each of ours."""
    content = {"keywords": {"awe": ["a"], "joy": ["b"]}, "answer": {"intensity": True, "affect": True, "comment": True}}
    form = plan_of(content, "x").answer
    assert form.asked == form.known == QUESTIONS
    assert plan_of(content | {"answer": {}}, "x").answer.asked == ()


TEXTS = {"en": {"ask": "How?"}}


@pytest.mark.parametrize(
    ("questions", "problem"),
    [
        (["joyfulness"], "there is no question 'joyfulness'; there are intensity"),
        ([{"name": "valence", "texts": TEXTS}], "two have the name 'valence'"),
        ([{"name": "a", "texts": TEXTS}, {"name": "a", "texts": TEXTS}], "two have the name 'a'"),
        ([{"name": "label", "texts": TEXTS}], "already have a column or field of this name"),
        ([{"name": "A b", "texts": TEXTS}], "a name has up to 40 small letters"),
        ([{"name": "model_x", "texts": TEXTS}], "a name has up to 40 small letters"),
        ([{"name": "a", "texts": {"de": {"ask": "Wie?"}}}], "texts need an entry en"),
        ([{"name": "a", "texts": {"en": {"ask": " "}}}], "ask must be a text"),
        ([{"name": "a", "texts": {"en": {"ask": "x" * 201}}}], "ask must be a text of up to 200"),
        ([{"name": "a", "texts": TEXTS, "scale": 10}], "scale must be 2 to 9"),
        ([{"name": f"a{i}", "texts": TEXTS} for i in range(21)], "a plan may have 20, got 21"),
    ],
)
def test_invalid_questions_are_refused_with_the_reason(questions: list[object], problem: str) -> None:
    content = {"keywords": {"awe": ["a"], "joy": ["b"]}, "answer": {"questions": questions}}
    with pytest.raises(ConfigError, match=says("plan.json", problem)):
        plan_of(content, "plan.json")


def test_names_of_the_model_of_answers_are_refused() -> None:
    names = {name for name in dir(AnswerIn) if re.fullmatch(r"[a-z][a-z0-9_]*", name)}
    assert {"copy", "details", "model_dump"} < names
    for name in names | AnswerIn.model_fields.keys():
        with pytest.raises(ConfigError, match="questions: "):
            Question(name=name, texts={"en": QuestionTexts(ask="?")})
