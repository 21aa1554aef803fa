"""Answers of endpoints: how they are read, and the file that keeps them."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_type_hints

from uniemox.ask.client import Reply
from uniemox.ask.question import MAX_SIDE_PX, AskedImage
from uniemox.data.people import Sidecar, read_sidecar
from uniemox.errors import DataError
from uniemox.labels import LabelSet, clean

Outcome = Literal["label", "unlisted", "refused", "empty"]
OUTCOMES: tuple[Outcome, ...] = ("label", "unlisted", "refused", "empty")
MAX_CHARACTERS = 20_000  # of an answer that are read
FIELDS = ("answer", "emotion", "label", "choice", "selected_emotion", "selection", "category", "class", "prediction")

_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"\A```\w*\s(.*)```\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reading:
    """Meaning of an answer."""

    outcome: Outcome
    """label: it is one; unlisted: another word, several, or sentences; refused, by the service; empty."""
    label: str | None = None
    """Of the label set, with outcome label."""


class AnswerReader:
    """Reads answers to a question whose options were the labels of a set."""

    def __init__(self, labels: LabelSet) -> None:
        words = {_plain(word): label for word, label in labels.aliases.items()}
        self.spellings = words | {_plain(label): label for label in labels.labels}

    def read(self, answer: str) -> Reading:
        """A label if the answer is one, whatever its case and marks, or JSON with one field that is one.

        >>> from uniemox.labels import MIKELS
        >>> AnswerReader(MIKELS).read("**Fear**.")
        Reading(outcome='label', label='fear')
        """
        text = _THOUGHTS.sub("", answer[:MAX_CHARACTERS]).strip()
        if fenced := _FENCED.match(text):
            text = fenced.group(1).strip()
        if not re.search(r"\w", text):
            return Reading("empty")
        label = self.spellings.get(_plain(_from_json(text)))
        return Reading("unlisted") if label is None else Reading("label", label)


def _from_json(text: str) -> str:
    """The word that JSON says the answer is; other texts as they are."""
    if text[0] not in "{[":
        return text
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict):
        fields = {str(key).lower(): entry for key, entry in value.items()}
        named = [fields[name] for name in FIELDS if name in fields]
        value = (named or [entry for name, entry in fields.items() if "emotion" in name] or [None])[0]
    if isinstance(value, list) and len(value) == 1:
        [value] = value
    return value if isinstance(value, str) else text


def _plain(word: str) -> str:
    """A word as spellings are compared: lower-case, single blanks for underscores, no marks around it."""
    return re.sub(r"[\s_]+", " ", re.sub(r"\A[\W_]+|[\W_]+\Z", "", clean(word)))


ANSWERS = "answers.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """One question to one model about one image, and what came of it."""

    endpoint: str
    model: str
    picture: str
    """sha256 of its file."""
    name: str
    """Of the image in its data set."""
    question_sha256: str
    answer: str | None
    """As it came; None if the question failed."""
    word: str | None
    """What it said when it was asked for one word; None if it was not, or that failed, and in rows of version 0.1."""
    is_refused: bool
    """By a field or filter of the service itself."""
    outcome: str | None
    """How the answer was read, see answers.py."""
    label: str | None
    latency_s: float
    tokens_in: int | None
    tokens_out: int | None
    attempts: int
    cost: float | None
    """At the prices that were given."""
    error: str | None
    """Why it failed."""
    time: str
    """When, in UTC."""

    @property
    def key(self) -> str:
        """Return the key of this answer."""
        return key_of(self.endpoint, self.model, self.picture)


def key_of(endpoint: str, model: str, image: str) -> str:
    """Return the key of an answer.  image: its sha256."""
    return f"{endpoint} {model} {image}"


def row_of(
    asked: AskedImage, source: tuple[str, str], reply: Reply | None, earlier: AnswerRow | None, *, question: str
) -> AnswerRow:
    """A row to keep, not read yet.

    source: endpoint and model.  reply: to the question, or None where the answer is that of the earlier row.
    question: its sha256.
    """
    if reply is None:
        assert earlier is not None, "there is an answer"
        return replace(earlier, time=_now())
    return AnswerRow(
        endpoint=source[0],
        model=source[1],
        picture=asked.sha256,
        name=asked.sample.key,
        question_sha256=question,
        answer=reply.answer,
        word=None,
        is_refused=reply.is_refused,
        outcome=None,
        label=None,
        latency_s=reply.latency_s,
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        attempts=reply.attempts,
        cost=None,
        error=reply.error,
        time=_now(),
    )


def with_word(row: AnswerRow, reply: Reply) -> AnswerRow:
    """The row with what came of the follow-up; tokens, seconds and attempts add up."""
    if reply.error is not None:
        return replace(row, attempts=row.attempts + reply.attempts, error=reply.error)
    return replace(
        row,
        word=reply.answer,
        is_refused=reply.is_refused,
        latency_s=round(row.latency_s + reply.latency_s, 3),
        tokens_in=_sum(row.tokens_in, reply.tokens_in),
        tokens_out=_sum(row.tokens_out, reply.tokens_out),
        attempts=row.attempts + reply.attempts,
        error=None,
    )


def sha256_of(text: str) -> str:
    """The sha256 of a question's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


class Record:
    """The answers of a folder, open for more.

    question: that all of them answer. A last line that was cut off by a kill is taken away.
    Raises DataError if the folder holds answers to another question, or can't be written.
    """

    def __init__(self, folder: Path, question: str) -> None:
        path = folder / ANSWERS
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder} can't be made ({error.strerror}); choose another --out") from error
        # longest_px: as folders of version 0.1 have it, which are continued.
        self._file = Sidecar(path, {"question": question, "longest_px": MAX_SIDE_PX})
        self.rows: dict[str, AnswerRow] = {key: _row(line, path) for key, line in read_sidecar(path)[1].items()}

    def append(self, row: AnswerRow) -> None:
        """Keep a row; it is in the file when this returns."""
        self._file.append(row.key, asdict(row))
        self.rows[row.key] = row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.__exit__(kind, error, trace)


def _row(line: Mapping[str, Any], path: Path) -> AnswerRow:
    """A row as it was kept; lines that a person changed may be wrong."""
    hints = get_type_hints(AnswerRow)
    values: dict[str, Any] = {name: value for name, value in line.items() if name != "key"}
    for part in fields(AnswerRow):
        kind = hints[part.name] if hints[part.name] is not float else float | int
        if not isinstance(values.get(part.name), kind):
            raise DataError(f"{path}, {line['key']}: {part.name} is {values.get(part.name)!r}; remove the line")
    given: dict[str, Any] = {part.name: values.get(part.name) for part in fields(AnswerRow)}
    row = AnswerRow(**given)
    if row.key != line["key"]:
        raise DataError(f"{path}, {line['key']}: the row is of another question ({row.key}); remove the line")
    return row
