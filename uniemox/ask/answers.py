"""Which label a model's answer in words names, by rules that never guess.

The first of these that holds decides:

1. The whole answer is a label, whatever its case, quotes and marks; or it is JSON, or holds JSON in a fence, with one
   field that says the answer.
2. It begins with a label, alone before a mark, a line's end or "because": "Fear. The dark forest ..."; or it says yes
   to one label alone: "sadness - no, awe - yes".
3. A sentence states it: "the emotion is fear", "I would choose fear", "Answer: fear", "evokes a sense of fear". What
   follows "answer" goes before the others, then the first statement; one that is denied ("is not fear"), said of
   others ("some would say fear"), of another picture ("if it were night") or of a person in it is none, see hearsay.py.
   A statement of another word is an answer outside the list, whatever labels follow.
4. One label, and no other, is printed in bold, or is a sentence or a line of its own.

Two labels on a par ("fear and sadness") are ambiguous. Other spellings count only if they are aliases of the label set.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from uniemox.ask.attribution import SUPPOSED, counts_alone, never_counts
from uniemox.labels import LabelSet, clean

Outcome = Literal["label", "ambiguous", "unlisted", "refused", "empty"]
OUTCOMES: tuple[Outcome, ...] = ("label", "ambiguous", "unlisted", "refused", "empty")
MAX_CHARACTERS = 20_000  # of an answer that are read
FIELDS = ("answer", "emotion", "label", "choice", "selected_emotion", "selection", "category", "class", "prediction")

_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_BOLD = re.compile(r"\*\*([^*\n]{1,60})\*\*|__([^_\n]{1,60})__")
_BOXED = re.compile(r"\\boxed\{(?:\\text\{)?\s*([^{}\n]{1,60}?)\s*\}+")
_TAGS = re.compile(r"</?[A-Za-z][^<>\n]{0,60}>")
_FENCE = re.compile(r"```\w*(.*?)```", re.DOTALL)
_MARKS = re.compile(r"[*`#>\"“”„«»]+|(?<!\w)['‘’_]+|['‘’_]+(?!\w)")  # an apostrophe inside a word stays
_REFUSAL = re.compile(
    r"(?:(?:\bi|\bi'm|\bi am|\bwe|\bwe are|\bsorry,?|\bbut|\bmodel,?|\A) (?:\w+ ){0,2}?|\A)"
    r"(?:can(?:no|')t|can not|unable to|not able to|won't|will not|couldn't) (?:\w+ ){0,2}?"
    r"(?:help|assist|provide|comply|view|see|process|analy[sz]e|identify|interpret|determine|answer|select|choose|"
    r"say|tell|make|engage|discuss|describe|fulfill?|access|continue|open|display)\b"
    r"|\b(?:against (?:my|the) (?:policy|policies|guidelines)|(?:must|have to) decline|i refuse to"
    r"|i don't see an? (?:image|picture)|no (?:image|picture) (?:is |was )?(?:attached|provided|visible))\b"
)
_DENIAL = re.compile(
    r"\b(?:not|no|never|neither|nor|cannot|unable|without|hardly|\w+n't|least|less|other|another|second(?:ary)?|also)\b"
)
_END = r"(?=\s*(?:\Z|[\n.;:!()\[\]{}\-–—…]|,(?! (?:while|though|although|however|but|is|if)\b)))"
_GOES_ON = (
    r"(?=\s+(?:because|since|as|due|for|with|rather|over|based|in|through|by|from|that|which|when|and|or|but|more|than|"
    r"most|among|here|to|of|on|at|towards?|followed|mixed|combined|along|within|given|best)\b)"
)
_IS_IT = (
    r"\s+(?:is|would be|seems(?: to be)?|appears to be)\s+(?:clearly |definitely |by far |probably |likely )?"
    r"(?:the|my)\s+(?:(?:most|single|overall|strongly|evoked)\s+)*(?:strong(?:est)?|intense|best|dominant|primary|main|"
    r"emotion|answer|choice|correct|right|clear|obvious|likely|appropriate|fitting|prominent)\b"
    r"(?![^.,;\n]*\b(?:not|least|never|\w+n't)\b)"
)
_FILL = (
    r"(?:(?:that of|an?|the|one of|most|more|very|quite|likely|probably|clearly|definitely|primarily|mainly|mostly|"
    r"strongly|certainly|undoubtedly|best described as|deep|deeply|profound|strong|intense|overwhelming|pure|great|"
    r"(?:sense|feeling|feelings|emotion|emotions|state|response|reaction|label|option|category)(?: of)?|"
    r"viewers? to feel|to be|is|would be|would|as)[\s:,]+)*"
)
_START = re.compile(r"[\W\d_]*(?:[a-h][.)]\s+)?" + _FILL)  # a number or letter of a list, "definitely"
_WORD = re.compile(r"[^\W\d_][\w'-]*")
_VERDICT = re.compile(
    r"\b(?:final answer|my answer|the answer|answer|final choice|my choice)(?:\s+(?:is|would be|:))?\s*[:=\-–—]?\s*"
    + _FILL
)
_STATEMENT = re.compile(
    r"(?:(?P<is_weak>\b(?:evokes?|evoking|elicits?|arouses?|conveys?|inspires?|feels?|suggests?|provokes?)\b"
    r"(?: (?:most strongly|in (?:me|the viewer|viewers)|me|the viewer|viewers))?"
    r"|(?:\A\s*(?:here,? )?|\b(?:think|believe|guess) (?:that )?|\b(?:to|for) me,? )(?:it's|it is|this is)\b)"
    r"|\b(?:emotion|emotional response|response|feeling|reaction|selection|label|option|choice)"
    r"(?: (?:that|which|this|the|it|image|picture|photo|scene|here|in|by|from|of|list|most|strongly|conveyed|evoked|"
    r"evokes|elicited|i|would|choose|select|is)\b){0,12}?"
    r"(?:\s+(?:is|would be|seems to be|appears to be|might be)\b|\s*[:=])"
    r"|\b(?:choose|chose|select|selected|pick|picked|go with|say|opt for|settle on|classify (?:this|it) as)\b)"
    r"\s*[:\-–—]?\s*" + _FILL
)
_NO_STATEMENT = re.compile(
    r"\w{3,}(?:ed|en|wn)\Z|\A(?:clear|evident|visible|complex|subjective|in|from|by|on|because|not)\Z"
)
_JOINT = (
    r"\s*(?:,|/|&|\+|>|\(|"
    r",?\s*\b(?:and|or|plus|mixed with|combined with|as well as|along with|followed closely by)\b)\s*"
)
_BULLET = r"\s*\n+\s*(?:\d+[.)]|[-•])\s*"


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says."""

    outcome: Outcome
    """label: it names one; ambiguous: labels, but none clearly; unlisted: another word; refused; empty."""
    label: str | None = None
    """Of the label set, with outcome label."""


class AnswerReader:
    """Reads answers to a question whose options were the labels of a set."""

    def __init__(self, labels: LabelSet) -> None:
        self.words = {_plain(label): label for label in labels.labels}
        self.spellings = {_plain(word): label for word, label in labels.aliases.items()} | self.words
        # A number is an answer only if it is all there is: lists have numbers too.
        written = sorted((word for word in self.spellings if re.search(r"[^\W\d]", word)), key=len, reverse=True)
        any_word = "|".join(map(re.escape, written)) or r"(?!)"
        self.label = re.compile(rf"(?<![\w-])({any_word})(?![\w-])")
        fill = r"(?:(?:an?|the|also|then|some|even|perhaps|maybe|possibly|sense of|feeling of|feelings of)\s+)*"
        self.joined = re.compile(rf"(?:{_JOINT}{fill}|{_BULLET})({any_word})(?![\w-])")
        self.first = re.compile(rf"{_END}|\s+(?:because|since|as|due|rather|over)\b|{_IS_IT}")  # after the label
        self.last = re.compile(rf"{_END}|(?=\s*[?,/&+>])|{_GOES_ON}")
        self.marked = re.compile(rf"(?<![\w-])({any_word}) *[-–—:=(|]+ *(yes|no)\b(?= *(?:\Z|[\n.,;:!()|–—-]))")
        never = never_counts(labels.kind)
        self.hearsay = re.compile(f"{never}|{counts_alone(labels.kind)}"), re.compile(never)

    def read(self, answer: str) -> Reading:
        """What an answer says.

        >>> from uniemox.labels import MIKELS
        >>> AnswerReader(MIKELS).read("**Fear**. The dark forest ...")
        Reading(outcome='label', label='fear')
        """
        text = _THOUGHTS.sub("", answer[:MAX_CHARACTERS]).strip()
        if not re.search(r"\w", text):
            return Reading("empty")
        whole = self.spellings.get(_plain(text))
        if whole is not None:
            return Reading("label", whole)
        if (found := self._from_json(text)) is not None:
            return found
        fenced = _FENCE.search(text)
        if fenced and (found := self._from_json(fenced.group(1).strip())) is not None:
            is_all = fenced.group() == text
            if is_all or found.outcome in ("label", "ambiguous"):  # beside other words it may be about something else
                return found
        plain = _without_marks(text)
        found = self._beginning(plain) or self._marked(plain) or self._stated(plain) or self._printed(text, plain)
        if found is not None:
            return found
        if _REFUSAL.search(plain[:300]):
            return Reading("refused")
        return Reading("ambiguous" if self.label.search(plain) else "unlisted")

    def _from_json(self, text: str) -> Reading | None:
        """Of an answer that is JSON; None if it is not."""
        if text[:1] not in "{[":
            return None
        try:
            value: Any = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if isinstance(value, dict):
            fields = {str(key).lower(): entry for key, entry in value.items()}
            named = [fields[name] for name in FIELDS if name in fields]
            named = named or [entry for name, entry in fields.items() if "emotion" in name]
            value = named[0] if named else None
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(entry, str) for entry in values):
            return Reading("unlisted")
        found = {self.read(entry) for entry in values}
        if len(found) == 1:
            return found.pop()
        return Reading("ambiguous" if any(reading.label for reading in found) else "unlisted")

    def _beginning(self, plain: str) -> Reading | None:
        """Of an answer that begins with a label."""
        start = _START.match(plain)
        match = self.label.match(plain, start.end() if start else 0)
        if match is None or not self.first.match(plain, match.end()) or self.marked.match(plain, match.start()):
            return None
        is_heading = plain[match.end() : match.end() + 1] == ":" and match.group(1) not in self.words  # "Content: ..."
        return None if is_heading else self._on_its_own(plain, match)

    def _marked(self, plain: str) -> Reading | None:
        """Of an answer that goes through the labels and says yes to one: "fear - no, awe - yes"."""
        found = self.marked.findall(plain)
        labels = {self.words[word] for word, mark in found if mark == "yes" and word in self.words}  # no alias
        return Reading("label", labels.pop()) if len(labels) == 1 else None

    def _stated(self, plain: str) -> Reading | None:
        """Of the first sentence that states an answer; what it says of others is looked at last, or not at all."""
        clauses = list(_clauses(plain))
        for hearsay, pattern in product(self.hearsay, (_VERDICT, _STATEMENT)):
            for clause in clauses:
                against = [found.end() for rule in (hearsay, _DENIAL) if (found := rule.search(clause))]
                for match in pattern.finditer(clause):
                    is_its_own = all(end > match.end() for end in against)
                    if is_its_own and (reading := self._slot(clause, match)) is not None:
                        return reading
        return None

    def _slot(self, clause: str, match: re.Match[str]) -> Reading | None:
        """What stands where a statement has its answer; None if it is none after all."""
        if label := self.label.match(clause, match.end()):
            if not self.last.match(clause, label.end()):
                return Reading("ambiguous")  # "evokes amusement park memories"
            return self._on_its_own(clause, label)
        word = _WORD.match(clause, match.end())
        if word is None or _NO_STATEMENT.search(word.group()) or match.groupdict().get("is_weak"):
            return None  # "the scene conveys movement" says nothing of the emotion
        return Reading("ambiguous" if self.label.search(clause, match.end()) else "unlisted")

    def _on_its_own(self, text: str, match: re.Match[str]) -> Reading:
        """The label of a match, unless another one stands beside it on a par."""
        label, other = self.spellings[match.group(1)], self.joined.match(text, match.end())
        if other is not None and self.spellings[other.group(1)] != label:
            return Reading("ambiguous")
        return Reading("label", label)

    def _printed(self, text: str, plain: str) -> Reading | None:
        """Of an answer with one label in bold, in a box, or as a sentence or line of its own."""
        printed = [next(filter(None, groups)) for groups in _BOLD.findall(text)] + _BOXED.findall(text)
        sentences = re.split(r"[\n.!]+|(?<=\?)", plain)
        printed += [part for part in sentences if re.search(r"[^\W\d]", part) and not part.endswith("?")]
        labels = {self.spellings[_plain(word)] for word in printed if _plain(word) in self.spellings}
        return Reading("label", labels.pop()) if len(labels) == 1 else None


def _plain(word: str) -> str:
    """A word as spellings are compared: lower-case, single blanks for underscores, no marks around it."""
    return re.sub(r"[\s_]+", " ", re.sub(r"\A[\W_]+|[\W_]+\Z", "", clean(word)))


def _without_marks(text: str) -> str:
    """An answer in lower case without tags, markdown and quotes."""
    text = _MARKS.sub("", _TAGS.sub("\n", text.replace("’", "'")))
    return re.sub(r"[^\S\n]+", " ", text).strip().lower()


def _clauses(plain: str) -> Iterator[str]:
    """Sentences, cut at "but", and at commas where what follows is not a label on a par.

    What is supposed ("if it were night, the emotion would be") is not cut from what would follow from it.
    """
    for sentence in re.split(r"[\n;!?]+|\.(?=\s|\Z)", re.sub(r":\s*\n+\s*", ": ", plain)):
        for part in re.split(r",?\s*\bbut\b", sentence):
            comma = r",\s+(?=(?:however|yet|personally|to me|for me|here|the|i|it|my|this|while|(?:and )?so)\b)"
            yield from [part] if SUPPOSED.search(part) else re.split(comma, part)
