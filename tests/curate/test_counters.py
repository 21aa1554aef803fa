"""Kept counts equal those that are counted from the beginning, whatever happens in between."""

import random
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from tests.curate.places import LABELS, project_of
from uniemox.errors import UnavailableError
from uniemox_curate import counters
from uniemox_curate import tables as t
from uniemox_curate.annotate.verdicts import disputed, read_answers
from uniemox_curate.counters import SETTING, Counts, count
from uniemox_curate.project import NONE, SKIP, UNDONE, Change, Project, append, leave_out, pool, undo
from uniemox_curate.status import status

IMAGES = 12
PEOPLE = 4


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Twelve images, and four people who have a task for each and two attention checks."""
    monkeypatch.setattr(counters, "MIN_KEPT", 1)
    project = project_of(tmp_path / "p", ["awe", "fear"] * (IMAGES // 2))
    with project.store.write() as connection:
        for i in range(1, PEOPLE + 1):
            person = {"name": f"P{i}", "role": "annotator", "token_hash": str(i), "invited_at": 0.0}
            connection.execute(insert(t.people).values(id=i, **person))
            tasks = [{"picture_id": image, "check_label": None} for image in range(1, IMAGES + 1)]
            tasks += [{"picture_id": None, "check_label": label} for label in LABELS]
            connection.execute(insert(t.tasks), [{"person_id": i, "given_at": 0.0, **task} for task in tasks])
    return project


def add_answers(project: Project, rng: random.Random, number: int) -> None:
    """Answer random tasks, also again."""
    with project.store.write() as connection:
        tasks = list(connection.execute(select(t.tasks.c.id, t.tasks.c.person_id)))
        for _ in range(number):
            task = rng.choice(tasks)
            answer = {"label": rng.choice((*LABELS, NONE, SKIP)), "seconds": rng.choice((0.5, 1.25, 7)), "at": 0.0}
            connection.execute(
                insert(t.answers).values(
                    task_id=task.id, person_id=task.person_id, client_id=str(rng.random()), **answer
                )
            )


def decide(project: Project, rng: random.Random) -> None:
    """Make or undo a decision."""
    image = rng.randint(1, IMAGES)
    field, value = rng.choice(
        [("screen", "keep"), ("screen", "drop"), ("style", "film"), ("verdict", "awe"), ("taken", "yes"), (None, "")]
    )
    with project.store.write() as connection:
        holding = list(connection.scalars(select(t.batches.c.id).where(t.batches.c.id.not_in(UNDONE))))
        if rng.random() < 0.2:
            undo(connection, rng.choice(holding), actor="owner")
        elif field is None:
            leave_out(connection, f"P{rng.randint(1, PEOPLE)}", actor="owner")
        else:
            changes = [Change(image, field, value, "too small: 3 px")]
            append(connection, actor="owner", step=field, note="", changes=changes)


def count_all(project: Project) -> Counts:
    """Count everything from the beginning, and keep nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counters, "_read", lambda _: Counts())
        patch.setattr(counters, "MIN_KEPT", 10**9)
        return count(project)


@pytest.mark.parametrize("seed", range(3))
def test_kept_counts_equal_counted_ones_after_random_operations(project: Project, seed: int) -> None:
    rng = random.Random(seed)
    most_disputed = 0
    for _ in range(25):
        add_answers(project, rng, rng.choice((0, 1, 8)))
        if rng.random() < 0.4:
            decide(project, rng)
        counts = count(project)
        assert counts == count_all(project)
        assert count(project) == counts
        assert counts.kept == project.count(pool())
        assert counts.disputed == len(project.rows(disputed()))
        answers = read_answers(project).by_picture.values()
        assert counts.answered_twice == sum(len(labels) >= 2 for labels in answers)
        most_disputed = max(most_disputed, counts.disputed)
    assert most_disputed > 1


def test_an_answer_with_a_smaller_number_is_counted(project: Project) -> None:
    """Databases of many writers may show the answer 1 after the answer 2."""
    answer = {"person_id": 1, "label": "awe", "seconds": 1.0, "at": 0.0}
    for number in (2, 1):
        with project.store.write() as connection:
            connection.execute(insert(t.answers).values(id=number, task_id=number, client_id=str(number), **answer))
        assert sum(part.count for part in count(project).times) == count(project).answers
    assert count(project).answers == 2


@pytest.mark.parametrize("damaged", ["text", {"kept": "many"}, {"times": [{"person": 1}]}, [], {}])
def test_damaged_counts_are_counted_again(project: Project, damaged: object) -> None:
    add_answers(project, random.Random(0), 5)
    expected = count(project)
    project.store.set(SETTING, damaged)
    assert count(project) == expected


def test_small_and_unwritable_projects_keep_no_counts(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    add_answers(project, random.Random(0), 5)
    monkeypatch.setattr(counters, "MIN_KEPT", 6)
    expected = status(project)
    assert project.store.setting(SETTING) is None
    monkeypatch.setattr(counters, "MIN_KEPT", 5)

    def refuse(*_: object) -> None:
        raise UnavailableError("read-only")

    monkeypatch.setattr(type(project.store), "set", refuse)
    assert status(project) == expected
