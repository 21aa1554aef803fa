"""Who gets which image when, and that an acknowledged answer is on disk."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from tests.curate.conftest import ADDRESS, Browser
from tests.curate.places import PLAN, answer, number_of, project_of, say
from uniemox_curate import tables as t
from uniemox_curate.annotate.access import invite
from uniemox_curate.annotate.answers import AnswerIn, AnswerWriter
from uniemox_curate.annotate.assignment import BLOCK, TaskAssigner
from uniemox_curate.annotate.verdicts import disputed, read_answers
from uniemox_curate.annotate.web import create_app
from uniemox_curate.decisions import Change, append
from uniemox_curate.project import Project


def test_images_with_most_different_answers_are_disputed_first(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe"] * 4)
    say(project, Ada="aaaa", Ben="affn", Cem="--n-")
    with project.store.write() as connection:
        append(connection, actor="me", step="by hand", note="", changes=[Change(4, "verdict", "awe")])
    assert list(disputed(project, "both")) == [3, 2]


def test_answers_per_image_are_limited(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe"] * 5, replace(PLAN, answers_per_picture=2))
    assigner = TaskAssigner(project)
    assigned = [
        [task.picture_id for task in assigner.next_tasks(number_of(project, name), 0, 10)]
        for name in ("Ada", "Ben", "Cem")
    ]
    assert [len(images) for images in assigned] == [5, 5, 0]
    assert assigned[0] != assigned[1]  # each has an order of their own
    assert sorted(map(int, assigned[0])) == [1, 2, 3, 4, 5]


def test_after_the_last_image_the_pool_is_not_searched_at_each_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_of(tmp_path / "p", ["awe"] * 2)
    assigner = TaskAssigner(project)
    ada = number_of(project, "Ada")
    searches = list[int]()
    assign = assigner._assign
    monkeypatch.setattr(assigner, "_assign", lambda person: searches.append(person) or assign(person))
    for _ in range(9):
        assert len(assigner.next_tasks(ada, 0, 10)) == 2
    assert len(searches) == 2  # one finds images, the next finds none
    with project.store.write() as connection:
        append(connection, actor="me", step="by hand", note="", changes=[Change(1, "style", "")])
    assigner.next_tasks(ada, 0, 10)
    assert len(searches) == 3


def test_one_request_does_not_take_all_images(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe"] * 400, replace(PLAN, answers_per_picture=1))
    assigner = TaskAssigner(project)
    ada = number_of(project, "Ada")
    for _ in range(9):
        assert assigner.next_tasks(ada, 2**53 - 1, 30) == []
    assert len(assigner.next_tasks(ada, 0, 1000)) == 2 * BLOCK
    ben = number_of(project, "Ben")
    assert len(assigner.next_tasks(ben, 0, 30)) == 30
    cem = number_of(project, "Cem")
    for _ in range(9):
        assigner.next_tasks(cem, 2**53 - 1, 30)
    assert sum(len(assigner.next_tasks(person, 0, 1000)) for person in (ada, ben, cem)) >= 5 * BLOCK


def test_parallel_requests_do_not_take_all_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = project_of(tmp_path / "p", ["awe"] * 400, replace(PLAN, answers_per_picture=1))
    assigner = TaskAssigner(project)
    ada = number_of(project, "Ada")
    together = threading.Barrier(5)
    assign = assigner._assign_in_turn
    monkeypatch.setattr(assigner, "_assign_in_turn", lambda person: together.wait(60) >= 0 and assign(person))
    threads = [threading.Thread(target=assigner.next_tasks, args=(ada, 0, 60)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert project.count(select(t.tasks.c.id)) == 2 * BLOCK


@pytest.mark.parametrize("years", [-10, 10])
def test_a_clock_that_jumps_loses_no_answer_and_reserves_nothing_for_years(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    project = project_of(tmp_path / "p", ["awe"] * 5, replace(PLAN, answers_per_picture=1))
    right = time.time
    assigner = TaskAssigner(project)
    writer = AnswerWriter(project.store)
    ada = number_of(project, "Ada")
    monkeypatch.setattr(time, "time", lambda: right() + years * 365 * 86400)
    first = assigner.next_tasks(ada, 0, 10)[0]
    try:
        for number, label in enumerate(("awe", "fear")):
            writer.save(ada, [AnswerIn(**answer(first.id, label, number))]).result(10)  # type: ignore[arg-type]
            monkeypatch.setattr(time, "time", right)
    finally:
        writer.close()
    assert read_answers(project).by_image == {first.picture_id: {"Ada": "fear"}}
    tasks = assigner.next_tasks(number_of(project, "Ben"), 0, 10)
    assert {task.picture_id for task in tasks} == {1, 2, 3, 4, 5} - {first.picture_id}


def test_attention_checks_are_counted_apart(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe"] * 6, replace(PLAN, check_every=1))
    with TestClient(create_app(project, [ADDRESS]), base_url=ADDRESS) as client:
        ada = Browser(client, invite(project, "Ada"))
        tasks = ada.get("/api/tasks").json()["tasks"]
        checks = [task for task in tasks if task["check"]]
        assert len(checks) == 6
        assert ada.get(f"/api/pictures/{checks[0]['id']}").status_code == 200
        wanted = checks[0]["check"]
        body = [answer(checks[0]["id"], wanted), answer(checks[1]["id"], "none")]
        ada.post("/api/answers", {"answers": body})
        owner = Browser(client, invite(project, "owner", "owner"))
        (person,) = owner.get("/api/status").json()["people"]
    assert (person["checks"], person["checks_passed"], person["answered"]) == (2, 1, 0)
    assert read_answers(project).by_image == {}


def test_many_writers_at_once_lose_nothing(project: Project) -> None:
    assigner = TaskAssigner(project)
    writer = AnswerWriter(project.store)
    numbers = [number_of(project, f"p{i}") for i in range(12)]
    people = [(number, [task.id for task in assigner.next_tasks(number, 0, 10)]) for number in numbers]
    acknowledged: list[str] = []

    def run(person: int, tasks: list[int]) -> None:
        for task in tasks:
            new_answer = AnswerIn(id=f"answer-{person}-{task}", task=task, label="awe", seconds=1.0)
            acknowledged.extend(writer.save(person, [new_answer]).result())

    threads = [threading.Thread(target=run, args=arguments) for arguments in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.save(1, []).result() == frozenset()
    writer.close()
    assert len(acknowledged) == 48
    assert {row.client_id for row in project.rows(select(t.answers))} == set(acknowledged)
