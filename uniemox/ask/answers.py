"""Which label a model's answer names. Sentences are not interpreted: who answers in them is asked for one word."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from uniemox.labels import LabelSet, clean

Outcome = Literal["label", "unlisted", "refused", "empty"]
OUTCOMES: tuple[Outcome, ...] = ("label", "unlisted", "refused", "empty")
MAX_CHARACTERS = 20_000  # of an answer that are read
FIELDS = ("answer", "emotion", "label", "choice", "selected_emotion", "selection", "category", "class", "prediction")

_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"\A```\w*\s(.*)```\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says."""

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
