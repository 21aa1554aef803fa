"""Parsing of answers: which option an answer names."""

import json
import re
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Literal

from uniemox.errors import ConfigError
from uniemox.labels import LabelSet, clean

Outcome = Literal["label", "unlisted", "refused", "empty"]
"""label: the answer is an option; unlisted: another word, several, or sentences; refused: by the service; empty."""
OUTCOMES: tuple[Outcome, ...] = ("label", "unlisted", "refused", "empty")
MAX_CHARACTERS = 20_000  # maximum length of an answer without thoughts; the rest is ignored
# Words of which one names a field of JSON that holds the answer; the field with the first of them decides.
_ANSWERS = ("answer", "emotion", "label", "selection", "prediction")
# The same, in JSON without the fields above, beside which they hold something else, such as the options.
_OTHER_ANSWERS = ("choice", "category", "class", "response", "result", "state")
_ALL_ANSWERS = (*_ANSWERS, *_OTHER_ANSWERS)
# Words that such a name may have besides, as in "dominant_emotion". With any other word, as in "excluded_emotion", a
# field holds no answer.
_BESIDE_ANSWERS = frozenset(
    (
        "best",
        "chosen",
        "dominant",
        "emotional",
        "evoked",
        "final",
        "likely",
        "main",
        "most",
        "name",
        "overall",
        "predicted",
        "primary",
        "probable",
        "prominent",
        "selected",
        "strongest",
        "the",
        "top",
        "your",
    )
)

# Reasoning models put their thoughts before the answer, and many models put JSON into a Markdown code block.
_THOUGHT = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad)"
_END_OF_THOUGHTS = re.compile(rf"</{_THOUGHT}>|\[/{_THOUGHT}\]|◁/{_THOUGHT}▷", re.IGNORECASE)
_THOUGHTS = re.compile(
    rf"(?:<{_THOUGHT}>|\[{_THOUGHT}\]|◁{_THOUGHT}▷).*?(?:{_END_OF_THOUGHTS.pattern}|\Z)", re.DOTALL | re.IGNORECASE
)
# Signs that models write instead of the ASCII minus of a number.
_MINUS = re.compile("[\u2010-\u2013\u2212\ufe63\uff0d](?=\\d)")
_FENCED = re.compile(r"\A```\w*\s(.*)```\Z", re.DOTALL)


# The final message of models that write to several channels; what they think is in the others.
_FINAL_CHANNEL = re.compile(r"<\|channel\|>final[^<]*<\|message\|>")
# Special tokens that some endpoints pass on, such as <|im_end|>.
_TOKEN = re.compile(r"<\|/?[A-Za-z_]{1,30}\|>|</?s>|<(?:bos|eos|pad|unk|(?:start|end)_of_turn)>|\[/?INST\]")
# Marks around an answer: special tokens, tags, and LaTeX.
_MARKED = (
    re.compile(r"<\|begin_of_box\|>(.*?)(?:<\|end_of_box\|>|\Z)", re.DOTALL),
    re.compile(r"<(?:final_)?answer>(.*?)(?:</(?:final_)?answer>|\Z)", re.DOTALL | re.IGNORECASE),
    re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}"),
)
_LATEX_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:bf|it|rm|sf|tt)|operatorname)\{([^{}]*)\}")
# The only or last line of an answer, after its colon, or under its heading.
_ANNOUNCED = re.compile(
    r"^[^\w\n]*(?:the\s+|my\s+)?(?:final\s+)?answer[^\w\n]*(?:(?:is\W*)?[:：]\W*|\n\W*)(.+)$",
    re.MULTILINE | re.IGNORECASE,
)
_NUMBERED = re.compile(r"\A\W*\d{1,2}[.)]\s+(.+)\Z", re.DOTALL)


class AnswerReader:
    """Parses answers to a question.

    Args:
        spellings: Options by the words that name them; for labels from `spellings_of`.
    """

    def __init__(self, spellings: Mapping[str, str]) -> None:
        self.spellings = spellings

    def read(self, answer: str) -> tuple[Outcome, str | None]:
        """Return the outcome, and the option if the answer is one, or JSON with one as its answer.

        Case, punctuation and marks around the answer, such as <answer>, are ignored. Of JSON, one field decides, see
        `_rank_of`. If several fields for the answer, or several marks, name different options, it is no answer.

        >>> from uniemox.labels import MIKELS
        >>> AnswerReader(spellings_of(MIKELS)).read("**Fear**.")
        ('label', 'fear')
        """
        text = without_thoughts(answer)
        if fenced := _FENCED.match(text):
            text = fenced.group(1).strip()
        if not re.search(r"\w", _TOKEN.sub("", text)):
            return "empty", None
        option = self._option_of(text) or self._option_of_json(text) or self._option_in_marks(text)
        if option is None:
            return "unlisted", None
        return "label", option

    def _option_of(self, word: str) -> str | None:
        return self.spellings.get(normalise(word))

    def _option_of_json(self, text: str) -> str | None:
        """Return the option that JSON gives as the answer; None for other texts, and if it gives none, or several."""
        if text[0] not in "{[":
            return None
        try:
            return self._option_in(json.loads(text, object_pairs_hook=_Fields))
        except (ValueError, RecursionError):
            return None

    def _option_in_marks(self, text: str) -> str | None:
        """Return the option that stands in marks; None for other texts, and if several options are marked."""
        marked = [match for pattern in _MARKED for match in pattern.findall(text)] or _ANNOUNCED.findall(text)
        if not marked and (numbered := _NUMBERED.match(text)):
            marked = [numbered.group(1)]
        if not marked and _TOKEN.search(text):
            marked = [text]
        words = [_LATEX_TEXT.sub(r"\1", _TOKEN.sub(" ", words)) for words in marked]
        options = {self._option_of(word) or self._option_of_json(word.strip() or " ") for word in words}
        return options.pop() if len(options) == 1 else None

    def _option_in(self, value: Any) -> str | None:
        """Return the option that a JSON value names: a word, a number, an object, or a list of one of these."""
        if isinstance(value, _Fields):
            return self._option_of_fields(value)
        if isinstance(value, list) and len(value) == 1:
            return self._option_in(value[0])
        return self._option_of(str(value)) if isinstance(value, str | int) else None

    def _option_of_fields(self, fields: "_Fields") -> str | None:
        """Return the option in the first field for the answer; None if it has none, or another field another one."""
        ranked = [(rank, value) for name, value in fields if (rank := _rank_of(name)) is not None]
        ranked.sort(key=itemgetter(0))
        for is_other in (False, True):
            values = [value for rank, value in ranked if (rank >= len(_ANSWERS)) == is_other]
            options = [self._option_in(value) for value in values]
            # Numbers that are no options are indices or shares, and empty values say nothing.
            options = [
                option
                for option, value in zip(options, values, strict=True)
                if option is not None or (value and isinstance(value, str | list) and not isinstance(value, _Fields))
            ]
            if options:
                return options[0] if len(set(options) - {None}) == 1 else None
        return None


def _rank_of(name: str) -> int | None:
    """Return the rank of a field of JSON among those that hold the answer, 0 for the first; None if it holds none.

    >>> _rank_of("answer"), _rank_of("Dominant Emotion"), _rank_of("mostLikelyEmotion"), _rank_of("second_choice")
    (0, 1, 1, None)
    """
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W_A-Z]+", name)]
    words = [word if word == "class" else word.removesuffix("s") for word in words]
    ranks = [_ALL_ANSWERS.index(word) for word in words if word in _ALL_ANSWERS]
    if not ranks or not _BESIDE_ANSWERS.issuperset(set(words) - set(_ALL_ANSWERS)):
        return None
    return min(ranks)


class _Fields(list[tuple[str, Any]]):
    """Fields of a JSON object, also if one occurs twice."""


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
    # If the chat template begins the thoughts, the answer has only their end.
    text = _THOUGHTS.sub("", _FINAL_CHANNEL.split(answer)[-1]).strip()
    if not _is_json(text):
        text = _END_OF_THOUGHTS.split(text)[-1]
    return text[:MAX_CHARACTERS].strip()


def _is_json(text: str) -> bool:
    """Return True for JSON, also in a Markdown code block."""
    fenced = _FENCED.match(text)
    try:
        json.loads(fenced.group(1) if fenced else text)
    except (ValueError, RecursionError):
        return False
    return True


def normalise(word: str) -> str:
    """Return a word for comparison: lower-case, blanks for underscores, no Markdown, no punctuation around it."""
    plain = re.sub(r"[*`]", "", clean(word))
    plain = _MINUS.sub("-", plain)
    # The sign of a number is part of it: -1, 0 and 1 may be three labels.
    return re.sub(r"[\s_]+", " ", re.sub(r"\A((?!-\d)[\W_])+|[\W_]+\Z", "", plain))
