"""Answers of endpoints, and the file that stores them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uniemox.data import Sidecar, read_sidecar
from uniemox.errors import DataError
from uniemox.io import check_json
from uniemox_ask.answer_reader import AnswerReader
from uniemox_ask.question import MAX_SIDE_PX
from uniemox_ask.reply import Reply

ANSWERS = "answers.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """One question to one model about one image, with its outcome."""

    endpoint: str
    model: str
    picture: str
    """sha256 of the image file."""
    name: str
    """Name of the image in its data set."""
    question_sha256: str
    question_id: str = ""
    """Name of the question, see `forms.AskedQuestion.id`; empty in rows of earlier versions."""
    answer: str | None = None
    """Answer as received; None if the question failed."""
    word: str | None = None
    """Answer to the follow-up for one word; None if it was not asked or failed, and in rows of version 0.1."""
    is_refused: bool = False
    """True if the service itself refused, by a field or filter."""
    outcome: str | None = None
    """Outcome of parsing the answer, see `AnswerReader`."""
    label: str | None = None
    """The option that the answer names: a label, or yes or no for a statement."""
    probabilities: dict[str, float] | None = None
    """Probability of the token of each option where the answer was chosen, 0 to 1, with a sum of at most 1; None if the
    endpoint gives no log-probabilities."""
    latency_s: float = 0.0
    tokens_in: int | None = None
    tokens_out: int | None = None
    attempts: int = 0
    cost: float | None = None
    """Cost at the given prices."""
    error: str | None = None
    """Reason for the failure."""
    time: str = ""
    """Time of the answer, in UTC."""

    @property
    def key(self) -> str:
        """Key of this answer, see `key_of`."""
        return key_of(self.endpoint, self.model, self.picture, self.question_id)

    def read_with(self, reader: AnswerReader) -> "AnswerRow":
        """Return the row with the option that its answer names, or else the follow-up's, unless the service refused."""
        if self.is_refused:
            return replace(self, outcome="refused", label=None)
        outcome, label = reader.read(self.answer or "")
        if outcome == "unlisted" and self.word is not None:
            outcome, label = reader.read(self.word)
        return replace(self, outcome=outcome, label=label)

    def needs_word(self, reader: AnswerReader) -> bool:
        """Return True if a model that answered in sentences still has to be asked for one word."""
        return self.answer is not None and self.word is None and self.read_with(reader).outcome == "unlisted"

    def with_reply(self, reply: Reply) -> "AnswerRow":
        """Return the row with the reply to the question, or to the follow-up; tokens, seconds, attempts add up."""
        attempts = self.attempts + reply.attempts
        if reply.error is not None:
            return replace(self, attempts=attempts, error=reply.error, latency_s=self.latency_s or reply.latency_s)
        row = replace(self, attempts=attempts, error=None, is_refused=reply.is_refused)
        if self.answer is None:
            return replace(
                row,
                answer=reply.answer,
                latency_s=reply.latency_s,
                tokens_in=reply.tokens_in,
                tokens_out=reply.tokens_out,
            )
        return replace(
            row,
            word=reply.answer,
            latency_s=round(self.latency_s + reply.latency_s, 3),
            tokens_in=_sum(self.tokens_in, reply.tokens_in),
            tokens_out=_sum(self.tokens_out, reply.tokens_out),
        )


def _sum(first: int | None, second: int | None) -> int | None:
    """Add two counts; None if one of them is unknown."""
    if first is None or second is None:
        return None
    return first + second


def key_of(endpoint: str, model: str, image: str, question_id: str = "") -> str:
    """Return the key of an answer, under which it is saved.

    Args:
        endpoint: Address from `chat_url`.
        model: The model's name at the endpoint.
        image: The image's sha256.
        question_id: From `forms.AskedQuestion.id`.
    """
    return f"{endpoint} {model} {image} {question_id}".rstrip()


def open_record(folder: Path, question: str) -> tuple[Sidecar, dict[str, AnswerRow]]:
    """Open the answers of a folder for more, and read its rows.

    A last line that is incomplete after a kill is removed.

    Args:
        folder: Made if it does not exist.
        question: The question of all answers.

    Returns:
        The open file, and the rows by `key_of`.

    Raises:
        DataError: If the folder has answers to another question, or can't be written.
    """
    path = folder / ANSWERS
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} can't be made ({error.strerror}); choose another --out") from error
    # longest_px: the name in folders of version 0.1, which can be continued.
    file = Sidecar(path, {"question": question, "longest_px": MAX_SIDE_PX})
    return file, {key: _row(line, path) for key, line in read_sidecar(path)[1].items()}


def _row(line: Mapping[str, Any], path: Path) -> AnswerRow:
    """Parse a saved row; lines that were edited by hand may be invalid.

    Raises:
        DataError: If a value has the wrong type, or the row has the key of another question.
    """
    where = f"{path}, {line['key']}"
    row = check_json(line, AnswerRow, where, remedy="remove the line")
    if row.key != line["key"]:
        raise DataError(f"{where}: the row belongs to another question ({row.key}); remove the line")
    return row
