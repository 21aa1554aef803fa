"""Answers as files: all answers of a project as a table, or as tasks of Label Studio."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, select, true

from uniemox.errors import DataError
from uniemox.io import write_file, write_rows
from uniemox_curate import tables as t
from uniemox_curate.annotate.label_studio import WrittenAnswer, add_answer
from uniemox_curate.annotate.verdicts import LAST_ANSWERS
from uniemox_curate.decisions import pool, taken_down
from uniemox_curate.project import SUFFIXES, Project, utc
from uniemox_curate.questions import detail_names


def given_answers(project: Project, *, of_all: bool = False) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the last answers by image, including skipped images, without attention checks, each with its details.

    An answer is a row with picture, sha256, title, annotator, label, seconds and at.

    Args:
        of_all: Also yield answers to images that were taken down.
    """
    title = select(t.candidates.c.picture_id, func.min(t.candidates.c.title).label("title"))
    titles = title.where(t.candidates.c.picture_id.is_not(None)).group_by(t.candidates.c.picture_id).subquery()
    query = (
        select(t.answers, t.people.c.name.label("annotator"), t.images.c.id.label("picture"), t.images.c.sha256)
        .add_columns(t.images.c.format, func.coalesce(titles.c.title, "").label("title"), t.details.c.content)
        .join(t.tasks, t.tasks.c.id == t.answers.c.task_id)
        .join(t.people, t.people.c.id == t.answers.c.person_id)
        .join(t.images, t.images.c.id == t.tasks.c.picture_id)
        .outerjoin(titles, titles.c.picture_id == t.images.c.id)
        .outerjoin(t.details, t.details.c.answer_id == t.answers.c.id)
        .where(t.answers.c.id.in_(LAST_ANSWERS), true() if of_all else t.images.c.id.not_in(taken_down()))
        .order_by(t.images.c.id, t.people.c.id)
    )
    for row in project.rows(query):
        yield row, json.loads(row.content or "{}")


def write_csv(project: Project, path: Path) -> int:
    """Write one row for each answer, marked as UTF-8 for spreadsheets, and return their number.

    Raises:
        DataError: If the file can't be written.
    """
    names = detail_names(project.plan.answer.known)
    rows = [
        [
            *(answer.sha256, answer.title, answer.annotator, answer.label),
            *cells(details, names),
            # Imported answers without a time have 0.
            *(round(answer.seconds, 1) or "", utc(answer.at)),
        ]
        for answer, details in given_answers(project)
    ]
    columns = ("sha256", "title", "annotator", "label", *names, "seconds", "at")
    write_file(path, as_csv(columns, rows).encode("utf-8-sig"))
    return len(rows)


def write_label_studio(project: Project, path: Path) -> int:
    """Write tasks of Label Studio with an annotation for each answer, and return the number of answers.

    Each image that annotators are asked about, or that has an answer, is a task. The names of annotators are in
    data.answers; see `uniemox_curate.annotate.label_studio`.

    Raises:
        DataError: If the file can't be written, or if there is no image to ask about.
    """
    tasks = {row.id: _task_of(row.id, row.sha256, row.format) for row in project.rows(_asked_images())}
    count = 0
    for row, details in given_answers(project):
        task = tasks.setdefault(row.picture, _task_of(row.picture, row.sha256, row.format))
        add_answer(task, WrittenAnswer(row.annotator, row.label, details, row.at), row.seconds)
        count += 1
    if not tasks:
        raise DataError(f"{path}: there is no image to ask about; run uniemox curate status for the next step")
    write_file(path, (json.dumps(list(tasks.values()), indent=1, ensure_ascii=False) + "\n").encode())
    return count


def _asked_images() -> Select[Any]:
    """Return the query of the images that annotators are asked about."""
    query = select(t.images.c.id, t.images.c.sha256, t.images.c.format)
    return query.where(t.images.c.id.in_(pool())).order_by(t.images.c.id)


def _task_of(picture: int, sha256: str, image_format: str) -> dict[str, Any]:
    """Return a task of Label Studio without annotations."""
    file = f"pictures/{sha256[:2]}/{sha256}.{SUFFIXES[image_format]}"
    data = {"image": f"/data/local-files/?d={file}", "sha256": sha256}
    return {"id": picture, "data": data, "annotations": []}


def cells(details: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """Return some of the details as cells of a table."""
    values = [details.get(name) for name in names]
    return [";".join(value) if isinstance(value, list) else value for value in values]


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as text, safe for spreadsheets."""
    text = io.StringIO()
    write_rows(text, chain([header], rows))
    return text.getvalue()
