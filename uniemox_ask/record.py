"""Answers of endpoints: parsing, and the file that stores them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from uniemox.data import Sidecar, read_sidecar
from uniemox.errors import DataError
from uniemox.io import check_json
from uniemox.labels import LabelSet, clean
from uniemox_ask.question import MAX_SIDE_PX
from uniemox_ask.reply import Reply

Outcome = Literal["label", "unlisted", "refused", "empty"]
"""label: the answer is a label; unlisted: another word, several, or sentences; refused: by the service; empty."""
OUTCOMES: tuple[Outcome, ...] = ("label", "unlisted", "refused", "empty")
MAX_CHARACTERS = 20_000  # maximum length of an answer; the rest is ignored
# Fields of JSON answers that hold the label, in the order in which they are tried.
LABEL_FIELDS = (
    "answer",
    "emotion",
    "label",
    "choice",
    "selected_emotion",
    "selection",
    "category",
    "class",
    "prediction",
)

# Reasoning models put their thoughts before the answer, and many models put JSON into a Markdown code block.
_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"\A```\w*\s(.*)```\Z", re.DOTALL)


class AnswerReader:
    """Parses answers to a question whose options were the labels of a set."""

    def __init__(self, labels: LabelSet) -> None:
        aliases = {_normalise(word): label for word, label in labels.aliases.items()}
        # A label wins over an alias of another label with the same spelling.
        self.spellings = aliases | {_normalise(label): label for label in labels.labels}

    def read(self, answer: str) -> tuple[Outcome, str | None]:
        """Return the outcome, and the label if the answer is one, or JSON with a single field that is one.

        Case and punctuation are ignored.

        >>> from uniemox.labels import MIKELS
        >>> AnswerReader(MIKELS).read("**Fear**.")
        ('label', 'fear')
        """
        text = _THOUGHTS.sub("", answer[:MAX_CHARACTERS]).strip()
        if fenced := _FENCED.match(text):
            text = fenced.group(1).strip()
        if not re.search(r"\w", text):
            return "empty", None
        label = self.spellings.get(_normalise(_word_of_json(text)))
        if label is None:
            return "unlisted", None
        return "label", label

    def read_row(self, row: "AnswerRow") -> "AnswerRow":
        """Parse the answer of a row, or else the follow-up's word, unless the service refused."""
        if row.is_refused:
            return replace(row, outcome="refused", label=None)
        outcome, label = self.read(row.answer or "")
        if outcome == "unlisted" and row.word is not None:
            outcome, label = self.read(row.word)
        return replace(row, outcome=outcome, label=label)

    def needs_word(self, row: "AnswerRow") -> bool:
        """Return True if a model that answered in sentences still has to be asked for one word."""
        return row.answer is not None and row.word is None and self.read_row(row).outcome == "unlisted"


def _word_of_json(text: str) -> str:
    """Return the word that JSON gives as the answer; other texts unchanged."""
    if text[0] not in "{[":
        return text
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict):
        fields = {str(key).lower(): entry for key, entry in value.items()}
        candidates = [fields[name] for name in LABEL_FIELDS if name in fields]
        candidates += [entry for name, entry in fields.items() if "emotion" in name]
        value = candidates[0] if candidates else None
    if isinstance(value, list) and len(value) == 1:
        [value] = value
    return value if isinstance(value, str) else text


def _normalise(word: str) -> str:
    """Normalise a word for comparison: lower-case, blanks for underscores, no punctuation around it."""
    return re.sub(r"[\s_]+", " ", re.sub(r"\A[\W_]+|[\W_]+\Z", "", clean(word)))


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
    answer: str | None = None
    """Answer as received; None if the question failed."""
    word: str | None = None
    """Answer to the follow-up for one word; None if it was not asked or failed, and in rows of version 0.1."""
    is_refused: bool = False
    """True if the service itself refused, by a field or filter."""
    outcome: str | None = None
    """Outcome of parsing the answer, see `AnswerReader`."""
    label: str | None = None
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
        return key_of(self.endpoint, self.model, self.picture)

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


def key_of(endpoint: str, model: str, image: str) -> str:
    """Return the key of an answer, under which it is saved.

    Args:
        endpoint: Address from `chat_url`.
        model: The model's name at the endpoint.
        image: The image's sha256.
    """
    return f"{endpoint} {model} {image}"


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
