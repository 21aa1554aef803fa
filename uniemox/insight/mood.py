"""Moods: conditions on the values of predictions, such as "valence>6 people=0"."""

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError
from uniemox.insight.columns import COUNTS, FAMILIARITY, field_note
from uniemox.labels import AXES, DOMINANCE, clean

EXAMPLE = "valence>6 arousal<5"
COMPARE = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "=": np.equal}
# A name, in quotes if it has a blank or a sign.
_NAME = r"""(?P<quote>["'])(?P<quoted>.+?)(?P=quote)|(?P<name>[^\s<>=,]+)"""
_CONDITION = re.compile(
    rf"(?:{_NAME})\s*(?P<sign><=|>=|==?|<|>)\s*(?P<limit>-?(?:\d+(?:\.\d+)?|\.\d+))\s*(?P<percent>%?)(?:\s*,\s*|\s+|$)"
)
# Several words before a sign, as of a name with a blank that lacks its quotes.
_WORDS_AND_SIGN = re.compile(r"([\w'-]+(?:\s+[\w'-]+)+)\s*([<>=]=?)")
# Name, sign and value of a part that is no condition; all three may be missing.
_OTHER_PART = re.compile(r"[^\s<>=]*(?:\s*[<>=]+\s*\S*)?")
# Conditions for words that people try. Of 700 photographs of Flickr8k, 9 % have an arousal below 4.5.
_WORDS = {
    **dict.fromkeys(("calm", "peaceful", "quiet", "relaxing"), "arousal<4.5"),
    **dict.fromkeys(("exciting", "excited", "lively"), "arousal>5.5"),
    **dict.fromkeys(("happy", "cheerful", "pleasant", "positive", "good", "valence"), "valence>6"),
    **dict.fromkeys(("sad", "gloomy", "unpleasant", "negative", "bad"), "valence<4"),
    "arousal": "arousal<4.5",
    "familiarity": "familiarity>0.1",
    "dominance": "dominance>5",
    **dict.fromkeys(("people", "persons"), "people>0"),
    "faces": "faces>0",
}


class Condition(NamedTuple):
    """One condition of a mood, such as valence>6."""

    name: str
    sign: str
    limit: float

    def __str__(self) -> str:
        name = self.name
        if re.search(r"[\s<>=,]", name):
            quote = "'" if '"' in name else '"'
            name = f"{quote}{name}{quote}"
        # Without an exponent, which no condition may have.
        limit = np.format_float_positional(self.limit, precision=15, unique=False, fractional=False, trim="-")
        return f"{name}{self.sign}{limit}"

    def holds(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return True for the values that satisfy the condition, as they are shown.  values: (N,)."""
        if self.name in AXES:
            values = values.round(2)
        return np.asarray(COMPARE[self.sign](values, self.limit), np.bool_)

    def check(self) -> None:
        """Raise ConfigError for a limit that no value reaches, and for equality with a value that has fractions."""
        lowest = 0.0
        highest = 1.0
        if self.name in AXES:
            lowest = 1.0
            highest = 9.0
        elif self.name in COUNTS:
            highest = float("inf")
        if not lowest <= self.limit <= highest:
            value_range = f"{lowest:g} or more"
            if highest < float("inf"):
                value_range = f"{lowest:g} to {highest:g}"
            if highest == 1 < self.limit <= 100:
                value_range += f"; {self.limit:g} % is {self.limit / 100:g}"
            raise ConfigError(f"the mood {self}: {self.name} has values from {value_range}")
        if self.sign == "=" and self.name not in COUNTS:
            raise ConfigError(
                f"the mood {self}: {self.name} has digits after the point, so hardly any value is equal; "
                f"write {self.name}>{self.limit:g} or {self.name}<{self.limit:g}"
            )


def parse_mood(text: str) -> list[Condition]:
    """Split conditions such as "valence>6 people = 0, excitement > 50 %". A name with a blank is quoted.

    Raises:
        ConfigError: With the part that is no condition.
    """
    text = text.strip()
    conditions = []
    position = 0
    while position < len(text):
        match = _CONDITION.match(text, position)
        if match is None:
            raise _no_condition(text, text[position:])
        name = match["quoted"] or match["name"]
        sign = match["sign"]
        percent = match["percent"]
        limit = float(match["limit"])
        if percent:
            if clean(name) in (*AXES, *COUNTS):
                raise ConfigError(f"the mood {text!r}: {name} is not a share; write {name}{sign}NUMBER without %")
            limit /= 100
            if limit > 1:
                raise ConfigError(f"the mood {text!r}: {name} has values up to 100 %")
        conditions.append(Condition(name, sign.replace("==", "="), limit))
        position = match.end()
    return conditions


def _no_condition(text: str, ending: str) -> ConfigError:
    """Return the error for a mood.

    Args:
        text: The mood.
        ending: Its end, which does not begin with a condition.
    """
    match = _OTHER_PART.match(ending)
    part = match[0].strip() if match else ""
    part = part or ending
    word = part.lower()
    hint = ""
    if word in _WORDS:
        hint = f"; for {word!r} write {_WORDS[word]}"
    elif note := field_note(part):
        hint = note
    elif word.isalpha():
        hint = f"; if {part!r} is an emotion of the model, write {part}>0.5"
        words = _WORDS_AND_SIGN.match(ending)
        if words and words[1].split()[-1].lower() not in (*AXES, DOMINANCE, FAMILIARITY, *COUNTS):
            hint += f'; a name with a blank needs quotes: "{words[1]}"{words[2]}0.5'
    return ConfigError(
        f"the mood {text!r}: {part!r} is no condition{hint}. A condition is a name, one of < <= > >= = and a number, "
        f"such as {EXAMPLE!r}. Names: valence and arousal (1 to 9), an emotion of the model (in quotes if it has a "
        "blank or one of , < > =) and familiarity (0 to 1, or 50%), people and faces (numbers), where the model "
        "predicts them"
    )
