"""Import of answers that were given or changed in Label Studio."""

import hashlib
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from sqlalchemy import func, insert, select

from uniemox.data import read_text
from uniemox.errors import DataError
from uniemox.io import parse_json
from uniemox.spelling import spelled
from uniemox_curate import tables as t
from uniemox_curate.annotate.answer_files import given_answers
from uniemox_curate.annotate.answers import AnswerIn, read_answer, save_answers
from uniemox_curate.annotate.label_studio import (
    Annotators,
    WrittenAnswer,
    annotations_of,
    chosen_labels,
    email_of,
    find_control,
    has_annotator,
    is_as_written,
    is_unanswered,
    time_of,
    written_answer_of,
    written_answers,
)
from uniemox_curate.annotate.origins import NEVER_GIVEN
from uniemox_curate.counters import count
from uniemox_curate.plan import CollectionPlan
from uniemox_curate.project import NONE, SKIP, SUFFIXES, Project, inserted_id
from uniemox_curate.questions import detail_names

# Answers of one transaction, and the pause between two, in which answers of annotators are written.
ANSWERS_PER_COMMIT = 200
PAUSE_S = 0.02
# Setting with the names of imported annotators, by their id or address in Label Studio.
PEOPLE = "label studio people"
# What becomes of an annotation, or of a task whose image is not in the project (unknown).
Outcome = Literal["unknown", "unanswered", "nameless", "unfit", "unchanged", "older", "candidate"]


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
    repeated: Mapping[str, int]
    """Number of images to which the file has several answers of an annotator, by name; the newest answer counts."""
    changed: Mapping[str, int]
    """Number of answers that were changed in Label Studio and count beside the old ones, by the old one's annotator."""
    nameless: int
    """Number of annotations that do not say who gave them, as in the tasks of a release."""

    @property
    def is_empty(self) -> bool:
        """True if no task has an annotation."""
        return not (self.answers or self.unknown or self.unfit or self.older or self.unanswered or self.nameless)


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
    is_as_written: bool
    """It is an answer of the project, unchanged in Label Studio."""

    @property
    def order(self) -> tuple[bool, float]:
        """Sort key: answers without a time are older than others."""
        return self.at is not None, self.at or 0.0


def import_label_studio(project: Project, path: Path, control: str | None = None) -> Imported:
    """Import the answers of Label Studio's JSON export; each of its annotators becomes one of the project.

    An image is identified by data.sha256; without it, by the file name in data.image, which must be unique.
    Of several answers of a person to an image, only the one that was changed last is imported, with its time.
    Importing again adds nothing, nor do unchanged answers of the project's own people, as after an export.
    An answer that `write_label_studio` wrote keeps its annotator, time and details.

    Args:
        project: Project with the images.
        path: JSON export of Label Studio.
        control: Name of the control whose choices are the answers; None: emotion, or else the only one.

    Raises:
        DataError: If the file does not hold tasks, or holds several controls none of which is meant; then nothing is
            imported.
    """
    tasks = _read_tasks(path)
    control = find_control(tasks, str(path), control)
    images = _known_images(project)
    saved = {
        (answer.picture, answer.annotator): _SavedAnswer((answer.label, details), answer.client_id, answer.at)
        for answer, details in given_answers(project, of_all=True)
    }
    names = {name for _, name in saved}
    people = Annotators(tasks, str(path), project.store.setting(PEOPLE) or {}, names)
    annotations = _sort_annotations(tasks, images, saved, people, control=control, plan=project.plan)
    times = {exported.answer.id: exported.at for exported in annotations.candidates if exported.at is not None}
    answers = [
        exported
        for exported in _newest(annotations.candidates)
        if not _is_replaced(exported, saved.get((exported.picture, exported.name)), times)
    ]
    project.store.set(PEOPLE, people.names)
    new = 0
    for start in range(0, len(answers), ANSWERS_PER_COMMIT):
        time.sleep(PAUSE_S if start else 0)
        new += _save_part(project, answers[start : start + ANSWERS_PER_COMMIT])
    # Kept counts make the next status fast.
    count(project.store)
    return Imported(
        new=new,
        answers=len(answers) + annotations.counts["unchanged"],
        unknown=annotations.counts["unknown"],
        unfit=annotations.counts["unfit"],
        older=annotations.counts["older"] + len(annotations.candidates) - len(answers),
        unanswered=annotations.counts["unanswered"],
        repeated=_repeated(annotations.candidates),
        changed=dict(annotations.changed),
        nameless=annotations.counts["nameless"],
    )


@dataclass(frozen=True, slots=True)
class _SortedAnnotations:
    """Annotations of an export: those that may be new answers, and the numbers of the others."""

    candidates: list[_ExportedAnswer] = field(default_factory=list)
    counts: Counter[Outcome] = field(default_factory=Counter)
    """Number of annotations by outcome; unknown counts tasks."""
    changed: Counter[str] = field(default_factory=Counter)
    """See `Imported`."""


def _sort_annotations(
    tasks: Sequence[dict[str, Any]],
    images: Mapping[tuple[str, str], int | None],
    saved: Mapping[tuple[int, str], _SavedAnswer],
    people: Annotators,
    *,
    control: str,
    plan: CollectionPlan,
) -> _SortedAnnotations:
    """Sort the annotations of all tasks by what becomes of them.

    Args:
        tasks: Tasks of the export.
        images: Images of the project, see `_known_images`.
        saved: Answers of the project, by image and annotator.
        people: Annotators of the export.
        control: Name of the control whose choices are the answers.
        plan: Plan of the project.
    """
    result = _SortedAnnotations()
    for task in tasks:
        picture = _image_of(task["data"], images)
        if picture is None:
            result.counts["unknown"] += 1
            continue
        answers_written = written_answers(task)
        for annotation in annotations_of(task):
            written = written_answer_of(annotation, answers_written)
            if fault := _fault_of(annotation, written, control):
                result.counts[fault] += 1
                continue
            exported = _exported_answer(annotation, written, picture, control, people, plan)
            if exported is None:
                result.counts["unfit"] += 1
                continue
            person = email_of(annotation) if written is None else written.annotator
            before = saved.get((picture, person))
            outcome = _outcome(exported, before)
            result.counts[outcome] += 1
            if outcome == "candidate":
                result.candidates.append(exported)
                if before is not None and exported.name != person:
                    result.changed[person] += 1
    return result


def _read_tasks(path: Path) -> list[dict[str, Any]]:
    """Return the tasks of an export.

    Raises:
        DataError: If the file does not hold tasks.
    """
    tasks = parse_json(read_text(path), Any, str(path), remedy="export the project of Label Studio as JSON")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
        raise DataError(f"{path}: expected a list of tasks, each with data; export the project as JSON, not JSON-MIN")
    return tasks


def _fault_of(annotation: Any, written: WrittenAnswer | None, control: str) -> Literal["unanswered", "nameless"] | None:
    """Return why an annotation is no answer of a person; None if it is one, or if it is malformed.

    Args:
        annotation: Annotation of a task.
        written: Answer of the task's data from which it was made; None if there is none.
        control: Name of the control whose choices are the answer.
    """
    if not isinstance(annotation, dict):
        return None
    if is_unanswered(annotation, control):
        return "unanswered"
    if written is None and not has_annotator(annotation):
        return "nameless"
    return None


def _outcome(exported: _ExportedAnswer, before: _SavedAnswer | None) -> Outcome:
    """Return what becomes of an annotation.

    Args:
        exported: The annotation as an answer.
        before: Answer to the image that the same person has in the project; None if there is none.
    """
    if before is None:
        return "candidate"
    if before.content == (exported.answer.label, exported.answer.details()):
        return "unchanged"
    if exported.is_as_written and exported.at is not None and before.at >= exported.at:
        # The person has changed the answer in the project since the export.
        return "older"
    return "candidate"


def _repeated(answers: Iterable[_ExportedAnswer]) -> dict[str, int]:
    """Return by annotator the number of images to which they have several answers."""
    by_task = Counter((answer.picture, answer.name) for answer in answers)
    return dict(Counter(name for (_, name), count in by_task.items() if count > 1))


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


def _exported_answer(
    annotation: Any, written: WrittenAnswer | None, picture: int, control: str, people: Annotators, plan: CollectionPlan
) -> _ExportedAnswer | None:
    """Return an annotation as an answer; None if no page could have sent it.

    Args:
        annotation: Annotation of a task.
        written: Answer from which `write_label_studio` made the annotation; None if somebody gave it in Label Studio.
        picture: Number of the image.
        control: Name of the control whose choices are the answer.
        people: Names of the annotators.
        plan: Plan of the project.
    """
    if not isinstance(annotation, dict):
        return None
    labels = chosen_labels(annotation, control, plan)
    seconds = annotation.get("lead_time") or 0
    if written is not None and is_as_written(annotation, labels or (), written):
        fields = _known(written.details, plan) | {"label": written.label}
        # The annotation has another content in each export; the answer has not.
        answer = _checked_answer(fields, seconds, [picture, *written], plan)
        name = people.name_of_written(written)
        return None if answer is None else _ExportedAnswer(picture, name, answer, written.at, is_as_written=True)
    details = _known(annotation.get("meta") if written is None else written.details, plan)
    if annotation.get("was_cancelled"):
        fields = {"skip": "other"} | details | {"label": SKIP}
    elif labels is None:
        return None
    else:
        if written is not None:
            details = {name: value for name, value in details.items() if name not in ("labels", "skip")}
        several = {"labels": list(labels)} if len(labels) > 1 else {}
        fields = several | details | {"label": labels[0] if labels else NONE}
    answer = _checked_answer(fields, seconds, [picture, annotation], plan)
    name = people.name_of(annotation) if written is None else people.name_of_written(written)
    at = time_of(annotation)
    return None if answer is None else _ExportedAnswer(picture, name, answer, at, is_as_written=False)


def _known(details: Any, plan: CollectionPlan) -> dict[str, Any]:
    """Return the fields of an answer among those of an annotation."""
    if not isinstance(details, dict):
        return {}
    return {name: details[name] for name in detail_names(plan.answer.known) if name in details}


def _checked_answer(fields: dict[str, Any], seconds: Any, source: Any, plan: CollectionPlan) -> AnswerIn | None:
    """Return an answer; None if a field is invalid.

    Args:
        fields: Label and details.
        seconds: Time that the annotator needed.
        source: JSON value from which the id is made, so that the same one imported again has the same id.
        plan: Plan of the project.
    """
    number = hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:32]
    # The number of its task is not known yet; `_save_part` sets it.
    return read_answer({"task": 1, "id": number, "seconds": seconds, **fields}, plan)


def _save_part(project: Project, answers: Sequence[_ExportedAnswer]) -> int:
    """Save answers, with new people and tasks; return the number of new answers."""
    people: dict[str, int] = {}
    with project.store.write() as connection:
        before = connection.scalar(select(func.count()).select_from(t.answers)) or 0
        rows = []
        times = {}
        for picture, name, answer, at, _ in answers:
            if name not in people:
                person_id = connection.scalar(select(t.people.c.id).where(t.people.c.name == name))
                # Without access: no invitation link has this hash.
                values = {"name": name, "role": "annotator", "invited_at": 0.0, "token_hash": secrets.token_hex(32)}
                new_person = insert(t.people).values(**values, revoked_at=time.time())
                people[name] = person_id or inserted_id(connection.execute(new_person))
            key = {"person_id": people[name], "picture_id": picture}
            task = connection.scalar(select(t.tasks.c.id).filter_by(**key))
            if task is None:
                task = inserted_id(connection.execute(insert(t.tasks).values(**key, given_at=NEVER_GIVEN)))
            rows.append((people[name], answer.model_copy(update={"task": task})))
            if at is not None:
                times[answer.id] = at
        save_answers(connection, rows, times)
        return (connection.scalar(select(func.count()).select_from(t.answers)) or 0) - before


def _known_images(project: Project) -> dict[tuple[str, str], int | None]:
    """Return images by (sha256, HASH) and (image, FILE NAME); None for a name that several have."""
    images: dict[tuple[str, str], int | None] = {}
    for row in project.rows(select(t.images)):
        images["sha256", row.sha256] = row.id
        # The project's own name of the file, which tasks of Label Studio have.
        images["image", f"{row.sha256}.{SUFFIXES[row.format]}"] = row.id
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
