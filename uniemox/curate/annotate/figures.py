"""Agreement of a project's annotators, computed from the database: kept for the page, made anew for a release."""

from typing import Any

from sqlalchemy import func, select

from uniemox.curate import tables as t
from uniemox.curate.annotate.agree import AgreementStats, agreement, codes_of
from uniemox.curate.annotate.verdicts import read_answers
from uniemox.curate.project import Project
from uniemox.curate.store import NONE, last_batch
from uniemox.errors import DataError


def agree(project: Project, seed: int = 0) -> AgreementStats:
    """All figures of the answers that are there now, kept for `status`. Raises DataError if no image has two."""
    with project.store.read() as connection:
        newest, batch = int(connection.scalar(select(func.max(t.answers.c.id))) or 0), last_batch(connection)
    found = _computed(project, seed)
    if not found.pictures:
        raise DataError(f"{project.folder}: no image has two answers yet; uniemox curate serve {project.folder}")
    project.store.set("agreement", {**_anonymous(found), "of_answers": newest, "of_batch": batch})
    return found


def figures_now(project: Project, seed: int = 0) -> dict[str, Any] | None:
    """All figures as JSON, annotators numbered as in a release's answers.csv; None if no image has two answers."""
    found = _computed(project, seed)
    return _anonymous(found) if found.pictures else None


def _computed(project: Project, seed: int) -> AgreementStats:
    answers = read_answers(project)
    labels = (*project.plan.labels, NONE)
    return agreement(codes_of(answers.by_picture, labels, answers.people), labels, answers.people, seed)


def _anonymous(found: AgreementStats) -> dict[str, Any]:
    """As JSON, with numbers instead of names: it goes into releases."""
    content = found.as_dict()
    number = {name: f"annotator {i + 1}" for i, name in enumerate(found.per_annotator)}
    content["per_annotator"] = {number[name]: value for name, value in content["per_annotator"].items()}
    for pair in content["pairs"]:
        pair["first"], pair["second"] = number[pair["first"]], number[pair["second"]]
    return content
