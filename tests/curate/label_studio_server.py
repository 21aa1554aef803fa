"""Label Studio's import and export of tasks, as recorded from its server 1.23.2 with SQLite."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

IMPORTED_AT = "2026-11-28T05:27:35.436797Z"
CHANGED_AT = "2026-11-29T05:27:44.736607Z"


class ImportRefusedError(Exception):
    """Status 400, with the server's words."""


class LabelStudio:
    """A project of a server.

    members: e-mail addresses by id; the first member imports tasks.
    """

    def __init__(self, members: Mapping[int, str]) -> None:
        self.ids = {email: number for number, email in members.items()}
        self.importer = next(iter(members))
        self.tasks: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)

    def add(self, tasks: Sequence[Mapping[str, Any]]) -> None:
        """Import all tasks or none. Of an annotation, the server keeps what `_annotation` keeps."""
        added = [self._task(task) for task in tasks]
        for number, task in enumerate(added, start=len(self.tasks) + 1):
            self.tasks.append({"id": number, **task})

    def annotate(self, task: int, who: int, result: list[Any], **fields: object) -> None:
        """Answer a task on the server's page."""
        times = {"created_at": CHANGED_AT, "updated_at": CHANGED_AT}
        annotation = {
            "completed_by": who,
            "result": result,
            "was_cancelled": False,
            "import_id": None,
            "lead_time": 3.0,
        }
        self.tasks[task]["annotations"].append({"id": next(self._numbers), **annotation, **times, **fields})

    def change(self, task: int, annotation: int, who: int, result: list[Any]) -> None:
        """Change an annotation on the server's page."""
        changed = {"result": result, "updated_at": CHANGED_AT, "updated_by": who}
        self.tasks[task]["annotations"][annotation].update(changed)

    def export(self) -> list[dict[str, Any]]:
        """Export as JSON."""
        return self.tasks

    def _task(self, task: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(task["data"].get("image"), str):
            raise ImportRefusedError('"image" key is expected in task data')
        annotations = task.get("annotations", [])
        if not isinstance(annotations, list):
            raise ImportRefusedError("Task[annotations] must be list")
        kept = [self._annotation(annotation) for annotation in annotations]
        return {
            "data": task["data"],
            "meta": task.get("meta", {}),
            "annotations": kept,
            "predictions": [],
            "drafts": [],
        }

    def _annotation(self, annotation: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(annotation.get("result"), list):
            raise ImportRefusedError('Annotation must have "result" fields')
        number = annotation.get("id")
        if number is not None and not -(2**63) <= number < 2**63:
            raise ImportRefusedError("id: the number is too large")
        return {
            "id": next(self._numbers),
            "completed_by": self._person(annotation.get("completed_by")),
            "result": annotation["result"],
            "was_cancelled": annotation.get("was_cancelled", False),
            "ground_truth": annotation.get("ground_truth", True),
            "created_at": IMPORTED_AT,
            "updated_at": IMPORTED_AT,
            "lead_time": annotation.get("lead_time"),
            "import_id": number,
            "updated_by": None,
        }

    def _person(self, person: object) -> int:
        if person is None:
            return self.importer
        if isinstance(person, dict):
            if "email" not in person:
                raise ImportRefusedError("It's expected to have 'email' field in 'completed_by' data in annotations")
            if person["email"] not in self.ids:
                raise ImportRefusedError(f"Unknown annotator's email {person['email']}")
            return self.ids[person["email"]]
        if isinstance(person, int) and person in self.ids.values():
            return person
        raise ImportRefusedError(
            f"Import data contains completed_by={person} which is not a valid annotator's email or ID"
        )
