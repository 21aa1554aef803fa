"""What an answer may hold, whether a page sends it or a file has it."""

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError

from uniemox.curate.annotate.permits import MAX_ROWS, Strict
from uniemox.curate.plan import MAX_LABELS
from uniemox.curate.store import NONE, SKIP

DETAILS = ("labels", "intensity", "valence", "arousal", "comment", "skip", "suggested")
"""Fields beside the label, which tables.details keeps."""


ID = r"^[A-Za-z0-9-]{8,64}$"


class AnswerIn(Strict):
    """One answer; the page makes the id, so that it can send the answer again."""

    id: str = Field(pattern=ID)
    task: int = Field(ge=1, lt=MAX_ROWS)
    label: str = Field(max_length=60)
    seconds: float = Field(ge=0, le=86400, strict=False)
    labels: list[str] = Field(default=[], max_length=MAX_LABELS)
    intensity: int | None = Field(default=None, ge=1, le=9)
    valence: int | None = Field(default=None, ge=1, le=9)
    arousal: int | None = Field(default=None, ge=1, le=9)
    comment: str = Field(default="", max_length=2000)
    skip: Literal["unseen", "upsetting", "unsure", "other"] | None = None
    suggested: str | None = Field(default=None, max_length=60)

    def is_known(self, labels: Sequence[str]) -> bool:
        """Return True if it names labels of the plan, each once, or none of them, or says why it is skipped."""
        if self.suggested is not None and self.suggested not in labels:
            return False
        if self.label == SKIP:
            return self.skip is not None and not self.labels
        named = self.labels or [self.label]
        are_labels = named == [NONE] or set(named) <= {*labels}
        return self.skip is None and named[0] == self.label and are_labels and len(set(named)) == len(named)

    def details(self, suggested: str | None) -> dict[str, Any]:
        """Return the fields beside the label.  suggested: the label that the annotator has seen suggested."""
        values = {**{name: getattr(self, name) for name in DETAILS}, "suggested": suggested}
        return {name: value for name, value in values.items() if value not in (None, "", [])}


def read_answer(value: Any, labels: Sequence[str]) -> AnswerIn | None:
    """Return one answer; None if it is invalid.  labels: of the plan."""
    try:
        answer = AnswerIn.model_validate(value)
    except ValidationError:
        return None
    return answer if answer.is_known(labels) else None


def is_named(value: Any) -> bool:
    """Return True if an invalid answer still has an id, by which it can be refused."""
    return isinstance(value, dict) and re.fullmatch(ID, str(value.get("id"))) is not None
