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
from uniemox.curate.annotate.verdicts import LAST_ANSWERS
from uniemox.curate.plan import CollectionPlan
from uniemox.curate.project import NONE, SKIP, SUFFIXES, Project, inserted_id, taken_down, utc
from uniemox.data.readers.csv_table import parse_json, read_text
from uniemox.errors import DataError
from uniemox.io.files import write_file, write_rows

COLUMNS = ("sha256", "title", "annotator", "label", *DETAILS, "seconds", "at")
AT_ONCE, PAUSE_S = 200, 0.02  # answers per transaction; pause between two, for annotators' answers
IMPORTED = "label studio"  # prefix of its annotators' names


def given_answers(project: Project, *, of_all: bool = False) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the last answers by image, including skipped images, without attention checks, each with its details.

    An answer is a row with picture, sha256, title, annotator, label, seconds and at.
    of_all: also of images that were taken down.
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
    """Write one row for each answer, marked as UTF-8 for spreadsheets; return their number. Raises DataError."""
    rows = [
        [one.sha256, one.title, one.annotator, one.label, *cells(details), round(one.seconds, 1), utc(one.at)]
        for one, details in given_answers(project)
    ]
    write_file(path, as_csv(COLUMNS, rows).encode("utf-8-sig"))
    return len(rows)


def write_label_studio(project: Project, path: Path) -> int:
    """Write tasks of Label Studio with an annotation for each answer; return their number. Raises DataError."""
    tasks: dict[int, dict[str, Any]] = {}
    count = 0
    for one, details in given_answers(project):
        data = {"image": f"/data/local-files/?d=pictures/{one.sha256[:2]}/{one.sha256}.{SUFFIXES[one.format]}"}
        data["sha256"] = one.sha256
        task = tasks.setdefault(one.picture, {"id": one.picture, "data": data, "annotations": []})
        labels = [] if one.label in (NONE, SKIP) else details.get("labels", [one.label])
        choices = {"from_name": "emotion", "to_name": "image", "type": "choices", "value": {"choices": labels}}
        about = {"completed_by": {"email": one.annotator}, "lead_time": one.seconds, "was_cancelled": one.label == SKIP}
        task["annotations"].append({**about, "result": [choices] if labels else [], "meta": details})
        count += 1
    write_file(path, (json.dumps(list(tasks.values()), indent=1, ensure_ascii=False) + "\n").encode())
    return count


class Imported(NamedTuple):
    """Result of an import."""

    new: int
    answers: int
    unknown: int
    """Number of tasks whose image is not in the project."""
    unfit: int
    """Number of annotations with choices that are no labels of the plan, or other values that no page could send."""


def import_label_studio(project: Project, path: Path) -> Imported:
    """Import the answers of Label Studio's JSON export; each of its annotators becomes one of the project.

    An image is identified by data.sha256; without it, by the file name in data.image, which must be unique.
    Importing again adds nothing, nor do unchanged answers of the project's own people, as after an export.
    Details that `write_label_studio` wrote are imported too.
    Raises DataError, with the file, for anything but tasks; then nothing is imported.
    """
    tasks = parse_json(read_text(path), str(path), "; export the project of Label Studio as JSON")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise DataError(f"{path}: expected a list of tasks, each with data; export the project as JSON, not JSON-MIN")
    images, unknown, unfit, unchanged = _known_images(project), 0, 0, 0
    given = {(one.picture, one.annotator): (one.label, details) for one, details in given_answers(project, of_all=True)}
    answers: list[tuple[int, str, AnswerIn]] = []
    for task in tasks:
        picture = _image_of(task["data"], images)
        if picture is None:
            unknown += 1
            continue
        annotations = task.get("annotations")
        for annotation in annotations if isinstance(annotations, list) else ():
            answer = _answer_of(annotation, picture, project.plan)
            if answer is None:
                unfit += 1
            elif given.get((picture, _email(annotation))) == (answer.label, answer.details()):
                unchanged += 1
            else:
                answers.append((picture, _annotator(annotation), answer))
    new = 0
    for start in range(0, len(answers), AT_ONCE):
        time.sleep(PAUSE_S if start else 0)
        new += _save_part(project, answers[start : start + AT_ONCE])
    return Imported(new, len(answers) + unchanged, unknown, unfit)


def _answer_of(annotation: Any, picture: int, plan: CollectionPlan) -> AnswerIn | None:
    """Return an annotation as an answer with a hash of the content as id; None if no page could have sent it."""
    if not isinstance(annotation, dict):
        return None
    labels, meta = _chosen_labels(annotation, plan), annotation.get("meta")
    own = {name: meta[name] for name in DETAILS if name in meta} if isinstance(meta, dict) else {}
    if annotation.get("was_cancelled"):
        own = {"skip": "other"} | own | {"label": SKIP}
    elif labels is None:
        return None
    else:
        own = ({"labels": list(labels)} if len(labels) > 1 else {}) | own | {"label": (*labels, NONE)[0]}
    content = json.dumps([picture, annotation], sort_keys=True)
    own |= {"id": hashlib.sha256(content.encode()).hexdigest()[:32], "seconds": annotation.get("lead_time") or 0}
    return read_answer({"task": 1, **own}, plan.labels)  # its task is still unknown


def _save_part(project: Project, answers: Sequence[tuple[int, str, AnswerIn]]) -> int:
    """Save answers, with new people and tasks; return the number of new answers."""
    people: dict[str, int] = {}
    with project.store.write() as connection:
        before = connection.scalar(select(func.count()).select_from(t.answers)) or 0
        rows = []
        for picture, name, answer in answers:
            if name not in people:
                person_id = connection.scalar(select(t.people.c.id).where(t.people.c.name == name))
                values = {"name": name, "role": "annotator", "invited_at": 0.0, "token_hash": secrets.token_hex(32)}
                fresh = insert(t.people).values(**values, revoked_at=time.time())  # without an invitation link
                people[name] = person_id or inserted_id(connection.execute(fresh))
            own = {"person_id": people[name], "picture_id": picture}
            task = connection.scalar(select(t.tasks.c.id).filter_by(**own))
            if task is None:
                task = inserted_id(connection.execute(insert(t.tasks).values(**own, given_at=0.0)))
            rows.append((people[name], answer.model_copy(update={"task": task})))
        save_answers(connection, rows)
        return (connection.scalar(select(func.count()).select_from(t.answers)) or 0) - before


def _known_images(project: Project) -> dict[tuple[str, str], int | None]:
    """Return images by (sha256, HASH) and (image, FILE NAME); None for a name that several have."""
    images: dict[tuple[str, str], int | None]
    images = {("sha256", row.sha256): row.id for row in project.rows(select(t.images))}
    query = select(t.candidates.c.picture_id, t.candidates.c.address, t.candidates.c.title)
    for row in project.rows(query.where(t.candidates.c.picture_id.is_not(None))):
        for name in {PurePosixPath(row.address).name, PurePosixPath(row.title).name} - {""}:
            is_only = images.get(("image", name), row.picture_id) == row.picture_id
            images["image", name] = row.picture_id if is_only else None
    return images


def _image_of(data: Any, images: Mapping[tuple[str, str], int | None]) -> int | None:
    if not isinstance(data, dict):
        return None
    if "sha256" in data:
        return images.get(("sha256", str(data["sha256"])))
    name = re.split(r"[/\\]|\?d=", str(data.get("image")))[-1]
    names = {name, re.sub(r"^[0-9a-f]{8}-", "", name)}  # without Label Studio's prefix of uploaded files
    matches = {images[key] for one in names if (key := ("image", one)) in images}
    return matches.pop() if len(matches) == 1 else None


def _chosen_labels(annotation: Mapping[str, Any], plan: CollectionPlan) -> tuple[str, ...] | None:
    """Return the chosen labels of the plan, () for no choice; None for choices that are no labels."""
    results = annotation.get("result")
    chosen: list[str | None] = []
    for result in results if isinstance(results, list) else ():
        value = result.get("value") if isinstance(result, dict) and result.get("type") == "choices" else None
        words = value.get("choices") if isinstance(value, dict) else None
        chosen += [plan.label_of(str(word)) for word in words] if isinstance(words, list) else []
    labels = tuple(label for label in dict.fromkeys(chosen) if label in plan.labels)
    return labels if len(labels) == len(set(chosen)) else None


def _email(annotation: Mapping[str, Any]) -> str:
    who = annotation.get("completed_by")
    return str(who.get("email") or "") if isinstance(who, dict) else ""


def _annotator(annotation: Mapping[str, Any]) -> str:
    who = annotation.get("completed_by", "?")
    if isinstance(who, dict):
        who = _email(annotation) or who.get("id") or "?"
    return "".join(letter for letter in f"{IMPORTED} {who}" if letter.isprintable())[:100]


def cells(details: Mapping[str, Any], names: Sequence[str] = DETAILS) -> list[Any]:
    """Return some of the details as cells of a table."""
    values = [details.get(name) for name in names]
    return [";".join(value) if isinstance(value, list) else value for value in values]


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as text, safe for spreadsheets."""
    text = io.StringIO()
    write_rows(text, chain([header], rows))
    return text.getvalue()
