"""Answers as files: export all answers of a project, import those given in Label Studio."""

import hashlib
import io
import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sqlalchemy import func, insert, select, true

from uniemox.curate import tables as t
from uniemox.curate.annotate.answers import DETAILS, AnswerIn, read_answer, save_answers
from uniemox.curate.annotate.label_studio import (
    CONTROL,
    Annotators,
    annotations_of,
    chosen_labels,
    email_of,
    find_control,
    is_unanswered,
    time_of,
)
from uniemox.curate.annotate.verdicts import LAST_ANSWERS
from uniemox.curate.plan import CollectionPlan
from uniemox.curate.project import NONE, SKIP, SUFFIXES, Project, inserted_id, taken_down, utc
from uniemox.data.readers.csv_table import parse_json, read_text
from uniemox.errors import DataError
from uniemox.io.files import write_file, write_rows
from uniemox.spelling import spelled

COLUMNS = ("sha256", "title", "annotator", "label", *DETAILS, "seconds", "at")
# Answers of one transaction, and the pause between two, in which answers of annotators are written.
ANSWERS_PER_COMMIT = 200
PAUSE_S = 0.02
# Setting with the names of imported annotators, by their id or address in Label Studio.
PEOPLE = "label studio people"


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
    rows = [
        [
            *(answer.sha256, answer.title, answer.annotator, answer.label),
            *cells(details),
            *(round(answer.seconds, 1), utc(answer.at)),
        ]
        for answer, details in given_answers(project)
    ]
    write_file(path, as_csv(COLUMNS, rows).encode("utf-8-sig"))
    return len(rows)


def write_label_studio(project: Project, path: Path) -> int:
    """Write tasks of Label Studio with an annotation for each answer, and return the number of answers.

    Raises:
        DataError: If the file can't be written.
    """
    tasks: dict[int, dict[str, Any]] = {}
    count = 0
    for answer, details in given_answers(project):
        file = f"pictures/{answer.sha256[:2]}/{answer.sha256}.{SUFFIXES[answer.format]}"
        data = {"image": f"/data/local-files/?d={file}", "sha256": answer.sha256}
        task = tasks.setdefault(answer.picture, {"id": answer.picture, "data": data, "annotations": []})
        if answer.label in (NONE, SKIP):
            labels = []
        else:
            labels = details.get("labels", [answer.label])
        choices = {"from_name": CONTROL, "to_name": "image", "type": "choices", "value": {"choices": labels}}
        annotation = {
            "completed_by": {"email": answer.annotator},
            "lead_time": answer.seconds,
            "was_cancelled": answer.label == SKIP,
            "created_at": utc(answer.at),
            "updated_at": utc(answer.at),
            "result": [choices] if labels else [],
            "meta": details,
        }
        task["annotations"].append(annotation)
        count += 1
    write_file(path, (json.dumps(list(tasks.values()), indent=1, ensure_ascii=False) + "\n").encode())
    return count


class Imported(NamedTuple):
    """Result of an import."""

    new: int
    answers: int
    """Number of the newest answers of each person to each image."""
    unknown: int
    """Number of tasks whose image is not in the project."""
    unfit: int
    """Number of annotations with choices that are no labels of the plan, or other values that no page could send."""
    older: int
    """Number of annotations that a newer one of the same person replaces, in the file or in the project."""
    unanswered: int
    """Number of annotations without a choice of the control, such as comments alone."""


class _SavedAnswer(NamedTuple):
    """Answer of a person to an image in the project."""

    content: tuple[str, dict[str, Any]]
    client_id: str
    at: float


class _ExportedAnswer(NamedTuple):
    """Answer of a person to an image in an export."""

    picture: int
    name: str
    answer: AnswerIn
    at: float | None
    """When it was last changed; None if the export does not say."""

    @property
    def order(self) -> tuple[bool, float]:
        """Sort key: answers without a time are older than others."""
        return self.at is not None, self.at or 0.0


def import_label_studio(project: Project, path: Path, control: str | None = None) -> Imported:
    """Import the answers of Label Studio's JSON export; each of its annotators becomes one of the project.

    An image is identified by data.sha256; without it, by the file name in data.image, which must be unique.
    Of several answers of a person to an image, only the one that was changed last is imported, with its time.
    Importing again adds nothing, nor do unchanged answers of the project's own people, as after an export.
    Details that `write_label_studio` wrote are imported too.

    Args:
        path: JSON export of Label Studio.
        control: Name of the control whose choices are the answers; None: emotion, or else the only one.

    Raises:
        DataError: If the file does not hold tasks, or holds several controls none of which is meant; then nothing is
            imported.
    """
    tasks = parse_json(read_text(path), str(path), "; export the project of Label Studio as JSON")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise DataError(f"{path}: expected a list of tasks, each with data; export the project as JSON, not JSON-MIN")
    control = find_control(tasks, str(path), control)
    images = _known_images(project)
    unknown = unfit = unanswered = unchanged = 0
    saved = {
        (answer.picture, answer.annotator): _SavedAnswer((answer.label, details), answer.client_id, answer.at)
        for answer, details in given_answers(project, of_all=True)
    }
    names = {name for _, name in saved}
    people = Annotators(tasks, str(path), project.store.setting(PEOPLE) or {}, names)
    changed: list[_ExportedAnswer] = []
    for task in tasks:
        picture = _image_of(task["data"], images)
        if picture is None:
            unknown += 1
            continue
        for annotation in annotations_of(task):
            if isinstance(annotation, dict) and is_unanswered(annotation, control):
                unanswered += 1
                continue
            content = _answer_of(annotation, picture, control, project.plan)
            if content is None:
                unfit += 1
                continue
            before = saved.get((picture, email_of(annotation)))
            if before is not None and before.content == (content.label, content.details()):
                unchanged += 1
            else:
                changed.append(_ExportedAnswer(picture, people.name_of(annotation), content, time_of(annotation)))
    times = {exported.answer.id: exported.at for exported in changed if exported.at is not None}
    answers = []
    for exported in _newest(changed):
        if not _is_replaced(exported, saved.get((exported.picture, exported.name)), times):
            answers.append(exported)
    project.store.set(PEOPLE, people.names)
    new = 0
    for start in range(0, len(answers), ANSWERS_PER_COMMIT):
        time.sleep(PAUSE_S if start else 0)
        new += _save_part(project, answers[start : start + ANSWERS_PER_COMMIT])
    older = len(changed) - len(answers)
    return Imported(new, len(answers) + unchanged, unknown, unfit, older, unanswered)


def _newest(answers: Iterable[_ExportedAnswer]) -> list[_ExportedAnswer]:
    """Return the newest answer of each person to each image; of equally old ones, the last."""
    by_task: dict[tuple[int, str], _ExportedAnswer] = {}
    for answer in answers:
        task = answer.picture, answer.name
        if task not in by_task or answer.order >= by_task[task].order:
            by_task[task] = answer
    return list(by_task.values())


def _is_replaced(exported: _ExportedAnswer, saved: _SavedAnswer | None, times: Mapping[str, float]) -> bool:
    """Return True if the project has a newer answer.

    Args:
        times: Real times by id of answers in the file, because older versions saved the time of the import.
    """
    if saved is None or exported.at is None or saved.client_id == exported.answer.id:
        return False
    return times.get(saved.client_id, saved.at) > exported.at


def _answer_of(annotation: Any, picture: int, control: str, plan: CollectionPlan) -> AnswerIn | None:
    """Return an annotation as an answer with a hash of the content as id; None if no page could have sent it."""
    if not isinstance(annotation, dict):
        return None
    labels = chosen_labels(annotation, control, plan)
    meta = annotation.get("meta")
    details = {name: meta[name] for name in DETAILS if name in meta} if isinstance(meta, dict) else {}
    if annotation.get("was_cancelled"):
        fields = {"skip": "other"} | details | {"label": SKIP}
    elif labels is None:
        return None
    elif len(labels) > 1:
        fields = {"labels": list(labels)} | details | {"label": labels[0]}
    else:
        fields = details | {"label": labels[0] if labels else NONE}
    content = json.dumps([picture, annotation], sort_keys=True)
    fields["id"] = hashlib.sha256(content.encode()).hexdigest()[:32]
    fields["seconds"] = annotation.get("lead_time") or 0
    # The number of its task is not known yet; `_save_part` sets it.
    return read_answer({"task": 1, **fields}, plan.labels)


def _save_part(project: Project, answers: Sequence[_ExportedAnswer]) -> int:
    """Save answers, with new people and tasks; return the number of new answers."""
    people: dict[str, int] = {}
    with project.store.write() as connection:
        before = connection.scalar(select(func.count()).select_from(t.answers)) or 0
        rows = []
        times = {}
        for picture, name, answer, at in answers:
            if name not in people:
                person_id = connection.scalar(select(t.people.c.id).where(t.people.c.name == name))
                # Without access: no invitation link has this hash.
                values = {"name": name, "role": "annotator", "invited_at": 0.0, "token_hash": secrets.token_hex(32)}
                new_person = insert(t.people).values(**values, revoked_at=time.time())
                people[name] = person_id or inserted_id(connection.execute(new_person))
            key = {"person_id": people[name], "picture_id": picture}
            task = connection.scalar(select(t.tasks.c.id).filter_by(**key))
            if task is None:
                task = inserted_id(connection.execute(insert(t.tasks).values(**key, given_at=0.0)))
            rows.append((people[name], answer.model_copy(update={"task": task})))
            if at is not None:
                times[answer.id] = at
        save_answers(connection, rows, times)
        return (connection.scalar(select(func.count()).select_from(t.answers)) or 0) - before


def _known_images(project: Project) -> dict[tuple[str, str], int | None]:
    """Return images by (sha256, HASH) and (image, FILE NAME); None for a name that several have."""
    images: dict[tuple[str, str], int | None]
    images = {("sha256", row.sha256): row.id for row in project.rows(select(t.images))}
    query = select(t.candidates.c.picture_id, t.candidates.c.address, t.candidates.c.title)
    for row in project.rows(query.where(t.candidates.c.picture_id.is_not(None))):
        names = {spelled(PurePosixPath(row.address).name), spelled(PurePosixPath(row.title).name)}
        for name in names - {""}:
            is_only = images.get(("image", name), row.picture_id) == row.picture_id
            images["image", name] = row.picture_id if is_only else None
    return images


def _image_of(data: Any, images: Mapping[tuple[str, str], int | None]) -> int | None:
    if not isinstance(data, dict):
        return None
    if "sha256" in data:
        return images.get(("sha256", str(data["sha256"])))
    name = spelled(re.split(r"[/\\]|\?d=", str(data.get("image")))[-1])
    # Label Studio puts eight digits before the names of uploaded files.
    names = {name, re.sub(r"^[0-9a-f]{8}-", "", name)}
    matches = {images["image", name] for name in names if ("image", name) in images}
    return matches.pop() if len(matches) == 1 else None


def cells(details: Mapping[str, Any], names: Sequence[str] = DETAILS) -> list[Any]:
    """Return some of the details as cells of a table."""
    values = [details.get(name) for name in names]
    return [";".join(value) if isinstance(value, list) else value for value in values]


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as text, safe for spreadsheets."""
    text = io.StringIO()
    write_rows(text, chain([header], rows))
    return text.getvalue()
