"""Parsing of answers: which option an answer names."""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from uniemox.errors import ConfigError
from uniemox.labels import LabelSet, clean

Outcome = Literal["label", "unlisted", "refused", "empty"]
"""label: the answer is an option; unlisted: another word, several, or sentences; refused: by the service; empty."""
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
    """Parses answers to a question.

    Args:
        spellings: Options by the words that name them; for labels from `spellings_of`.
    """

    def __init__(self, spellings: Mapping[str, str]) -> None:
        self.spellings = spellings

    def read(self, answer: str) -> tuple[Outcome, str | None]:
        """Return the outcome, and the option if the answer is one, or JSON with a single field that is one.

        Case and punctuation are ignored.

        >>> from uniemox.labels import MIKELS
        >>> AnswerReader(spellings_of(MIKELS)).read("**Fear**.")
        ('label', 'fear')
        """
        text = without_thoughts(answer)
        if fenced := _FENCED.match(text):
            text = fenced.group(1).strip()
        if not re.search(r"\w", text):
            return "empty", None
        option = self.spellings.get(normalise(_word_of_json(text)))
        if option is None:
            return "unlisted", None
        return "label", option


def spellings_of(labels: LabelSet) -> dict[str, str]:
    """Return the labels of a set by their names and aliases, as `AnswerReader` compares them.

    Raises:
        ConfigError: If two labels, or a label without letters, would be the same word in an answer.
    """
    by_word: dict[str, str] = {}
    for label in labels.labels:
        word = normalise(label)
        other = by_word.setdefault(word, label)
        if not word or other != label:
            same = f"{other!r} and {label!r}" if word else f"{label!r} and an answer without a word"
            raise ConfigError(f"{same} can't be told apart in answers, because models add punctuation; rename one")
    aliases = {normalise(word): label for word, label in labels.aliases.items()}
    # A label wins over an alias of another label with the same spelling.
    return aliases | by_word


def without_thoughts(answer: str) -> str:
    """Return an answer without the thoughts of a reasoning model, and without blanks around it."""
    return _THOUGHTS.sub("", answer[:MAX_CHARACTERS]).strip()


def normalise(word: str) -> str:
    """Return a word for comparison: lower-case, blanks for underscores, no Markdown, no punctuation around it."""
    plain = re.sub(r"[*`]", "", clean(word))
    # The sign of a number is part of it: -1, 0 and 1 may be three labels.
    return re.sub(r"[\s_]+", " ", re.sub(r"\A((?!-\d)[\W_])+|[\W_]+\Z", "", plain))


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
