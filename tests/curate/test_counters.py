"""Kept counts equal those that are counted from the beginning, whatever happens in between."""

import shutil
from collections.abc import Sequence, Set
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from tests.curate.places import LABELS, project_of, say
from uniemox.errors import UnavailableError
from uniemox_curate import counters
from uniemox_curate import tables as t
from uniemox_curate.annotate.answers import AnswerIn, AnswerWriter, save_answers
from uniemox_curate.annotate.kept_sets import kept_set
from uniemox_curate.annotate.verdicts import disputed, read_answers, verdicts
from uniemox_curate.counters import SETTING, Counts, count
from uniemox_curate.decisions import UNDONE, Change, append, leave_out, pool, undo
from uniemox_curate.project import NONE, SKIP, Project, open_project
from uniemox_curate.status import status

IMAGES = 12
PEOPLE = 4


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Twelve images, and four people who have a task for each and two attention checks."""
    monkeypatch.setattr(counters, "MIN_STORED", 1)
    project = project_of(tmp_path / "p", ["awe", "fear"] * (IMAGES // 2))
    with project.store.write() as connection:
        for i in range(1, PEOPLE + 1):
            person = {"name": f"P{i}", "role": "annotator", "token_hash": str(i), "invited_at": 0.0}
            connection.execute(insert(t.people).values(id=i, **person))
            tasks = [{"picture_id": image, "check_label": None} for image in range(1, IMAGES + 1)]
            tasks += [{"picture_id": None, "check_label": label} for label in LABELS]
            connection.execute(insert(t.tasks), [{"person_id": i, "given_at": 0.0, **task} for task in tasks])
    return project


def add_answers(project: Project, answers: Sequence[tuple[int, str, float]]) -> None:
    """Answer tasks, of which some have an answer: number of the task, label and seconds."""
    with project.store.write() as connection:
        for task, label, seconds in answers:
            person = connection.scalar(select(t.tasks.c.person_id).where(t.tasks.c.id == task))
            assert person is not None
            new_answer = AnswerIn(id=str(uuid4()), task=task, label=label, seconds=seconds)
            save_answers(connection, [(person, new_answer)])


def undo_batch(project: Project, number: int) -> None:
    """Undo one of the batches that hold."""
    with project.store.write() as connection:
        holding = list(connection.scalars(select(t.batches.c.id).where(t.batches.c.id.not_in(UNDONE))))
        undo(connection, holding[number % len(holding)], actor="owner")


def decide(project: Project, field: str, value: str, images: Set[int]) -> None:
    """Decide about images."""
    with project.store.write() as connection:
        changes = [Change(image, field, value, f"too small: {image} px") for image in images]
        append(connection, actor="owner", step=field, note="", changes=changes)


def exclude(project: Project, number: int) -> None:
    """Leave out a person's answers."""
    with project.store.write() as connection:
        leave_out(connection, f"P{number}", actor="owner")


def count_all(project: Project) -> Counts:
    """Count everything from the beginning, and keep nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counters, "_read", lambda _: Counts())
        patch.setattr(counters, "MIN_STORED", 10**9)
        return count(project.store)


def choose(project: Project, rule: str) -> None:
    """Change the rule."""
    project.store.set("rule", rule)


def search_again(project: Project, label: str, images: Set[int]) -> None:
    """Change the labels of search words that found images."""
    with project.store.write() as connection:
        connection.execute(update(t.candidates).where(t.candidates.c.picture_id.in_(images)).values(label=label))


# Names of functions above with their arguments, each of them one operation of annotators or of the owner.
ANSWERS = st.lists(
    st.tuples(
        st.integers(1, PEOPLE * (IMAGES + len(LABELS))),
        st.sampled_from((*LABELS, NONE, SKIP)),
        st.sampled_from((0.5, 1.25, 7.0)),
    ),
    min_size=1,
    max_size=12,
)
DECISIONS = st.sampled_from(
    [("screen", "keep"), ("screen", "drop"), ("style", "film"), ("style", ""), ("verdict", "awe"), ("taken", "yes")]
)
OPERATIONS = st.one_of(
    st.tuples(st.just(add_answers), ANSWERS),
    st.builds(
        lambda decision, images: (decide, *decision, images),
        DECISIONS,
        st.sets(st.integers(1, IMAGES), min_size=1, max_size=3),
    ),
    st.tuples(st.just(choose), st.sampled_from(("both", "majority", "soft"))),
    st.tuples(st.just(search_again), st.sampled_from(LABELS), st.sets(st.integers(1, IMAGES), min_size=1, max_size=3)),
    st.tuples(st.just(exclude), st.integers(1, PEOPLE)),
    st.tuples(st.just(undo_batch), st.integers(0, 9)),
)


@pytest.mark.thorough
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(OPERATIONS, min_size=1, max_size=12), max_added=st.sampled_from((3, 100_000)))
def test_stored_counts_equal_counted_ones_after_any_operations(
    project: Project, operations: Sequence[tuple[Any, ...]], max_added: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(counters, "MAX_ADDED", max_added)
        project.store.close()
        copy = Path(shutil.copytree(project.folder, Path(folder) / "copy"))
        changing = open_project(copy)
        # Many answers, so that most operations concern images with some.
        add_answers(changing, [(task, LABELS[task % 3 == 0], 1.0) for task in range(1, 40)])
        count(changing.store)
        for operation, *arguments in operations:
            operation(changing, *arguments)
            counts = count(changing.store)
            assert counts == count_all(changing)
            assert count(changing.store) == counts
            assert counts.passed_screen == changing.count(pool())
            assert counts.disputed == len(disputed(changing, counts.basis.rule))
            assert counts.labelled == kept_set(verdicts(changing, rule=counts.basis.rule))
            answers = read_answers(changing).by_image.values()
            assert counts.answered_twice == sum(len(labels) >= 2 for labels in answers)
        changing.store.close()


def test_new_decisions_and_answers_are_added_without_counting_all_images(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_answers(project, [(1, "awe", 1.0), (IMAGES + len(LABELS) + 1, "fear", 1.0)])
    assert count(project.store).disputed == 1

    def refuse(*_: object) -> None:
        raise AssertionError("all images are counted")

    monkeypatch.setattr(counters, "_count_images", refuse)
    monkeypatch.setattr(counters, "_all_times", refuse)
    decide(project, "verdict", "awe", {1})
    assert count(project.store).disputed == 0
    undo_batch(project, -1)
    assert count(project.store).disputed == 1
    add_answers(project, [(1, "fear", 1.0)])
    assert count(project.store).disputed == 0


def test_a_program_that_saves_answers_keeps_the_counts(project: Project) -> None:
    writer = AnswerWriter(project.store)
    writer.save(1, [AnswerIn(id=str(uuid4()), task=1, label="awe", seconds=1.0)]).result(10)
    writer.close()
    assert project.store.setting(SETTING)["answers"] == 1


def test_an_answer_with_a_smaller_number_is_counted(project: Project) -> None:
    """Databases of many writers may show the answer 1 after the answer 2."""
    answer = {"person_id": 1, "label": "awe", "seconds": 1.0, "at": 0.0}
    for number in (2, 1):
        with project.store.write() as connection:
            connection.execute(insert(t.answers).values(id=number, task_id=number, client_id=str(number), **answer))
        assert sum(part.count for part in count(project.store).times) == count(project.store).answers
    assert count(project.store).answers == 2


@pytest.mark.parametrize("damaged", ["text", {"passed_screen": "many"}, {"times": [{"person": 1}]}, [], {}])
def test_damaged_counts_are_counted_again(project: Project, damaged: object) -> None:
    add_answers(project, [(task, "awe", 1.0) for task in range(1, 6)])
    expected = count(project.store)
    project.store.set(SETTING, damaged)
    assert count(project.store) == expected


def test_small_and_unwritable_projects_keep_no_counts(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    add_answers(project, [(task, "awe", 1.0) for task in range(1, 6)])
    monkeypatch.setattr(counters, "MIN_STORED", 6)
    expected = status(project)
    assert project.store.setting(SETTING) is None
    monkeypatch.setattr(counters, "MIN_STORED", 5)

    def refuse(*_: object) -> None:
        raise UnavailableError("read-only")

    monkeypatch.setattr(type(project.store), "set", refuse)
    assert status(project) == expected


def test_counts_that_an_older_version_stored_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have other names of fields, and their verdicts other rules."""
    monkeypatch.setattr(counters, "MIN_STORED", 1)
    project = project_of(tmp_path / "p", ["awe", "fear"])
    say(project, Ada="af", Ben="af")
    expected = count(project.store)
    stored = asdict(expected)
    stored["kept"] = stored.pop("passed_screen")
    project.store.set("counts", stored)
    assert count(project.store) == expected
    assert expected.passed_screen == 2
