"""Attention checks in the status, in the agreement and in the datasheet of a release."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from tests.curate.test_release import agreed
from uniemox_curate import tables as t
from uniemox_curate.cli.curate import curate
from uniemox_curate.counters import count
from uniemox_curate.decisions import leave_out
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.run import release
from uniemox_curate.status import annotators, note_on_checks, status, write_status_page


def test_annotators_without_an_attention_check_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = agreed(tmp_path, is_split=False)
    note = "the plan has no attention checks: check_every is 0"
    assert status(project).sentences["annotate"].endswith(f"annotators; {note}")
    curate(["agree", str(project.folder)], result_action="return_none")
    assert note in " ".join(capsys.readouterr().err.split())
    curate(["status", str(project.folder)], result_action="return_none")
    assert capsys.readouterr().out.count("no checks") == 2
    write_status_page(tmp_path / "status.html", status(project), None, None)
    assert (tmp_path / "status.html").read_text().count("<td>no checks</td>") == 2
    people = annotators(project, count(project.store))
    assert note_on_checks(people, 40).startswith("no attention check came to Ada, Ben: they come at random on")
    with project.store.write() as connection:
        leave_out(connection, "Ben", actor="owner")
    people = annotators(project, count(project.store))
    assert note_on_checks(people, 40).startswith("no attention check came to Ada: ")
    passed = [replace(person, checks=2, checks_passed=2) for person in people]
    assert note_on_checks(passed, 40) == ""
    missed = [replace(person, checks_passed=1) for person in passed]
    assert note_on_checks(missed, 40).startswith("attention checks passed: Ada 1 of 2 (uniemox curate leave-out")


def test_a_datasheet_has_the_attention_checks_of_annotators_who_count(tmp_path: Path) -> None:
    project = agreed(tmp_path, Cyd="af" * 6)
    with project.store.write() as connection:
        leave_out(connection, "Cyd", actor="owner")
        people = {row.name: row.id for row in connection.execute(select(t.people))}
        for number, (name, label) in enumerate([("Ada", "awe"), ("Ada", "fear"), ("Ben", "awe"), ("Cyd", "fear")]):
            check = {"person_id": people[name], "check_label": "awe", "given_at": 1.0}
            task = connection.execute(insert(t.tasks).values(**check)).inserted_primary_key[0]
            answer = {"client_id": f"check {number}", "label": label, "seconds": 1.5, "at": 0.0}
            connection.execute(insert(t.answers).values(person_id=people[name], task_id=task, **answer))
    release(project, tmp_path / "out", ReleaseConfig(name="Tiny"))
    figures = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert figures["attention checks"] == {"asked": 3, "passed": 2}
    assert "The annotators passed 2 of 3 attention checks" in (tmp_path / "out" / "README.md").read_text()
