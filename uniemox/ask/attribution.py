"""What an answer says of others: what some would choose, what would be if, what a person in the picture feels.

Patterns up to a statement's verb, over clauses in lower case with single blanks, for `AnswerReader`.

>>> bool(re.search(never_counts("evoked"), "while some may choose fear"))
True
>>> [bool(re.search(never_counts(kind), "the person feels anger")) for kind in ("evoked", "felt")]
[True, False]
"""

import re

from uniemox.labels import Kind

_VERBS = "may|might|could|would|will|can|do|say|see|feel|find|choose|select|pick|think|argue|call|consider|opt"
_VIEWERS = "people|persons|viewers|observers|individuals|others|of us"
_NOT_MADE = r"(?<!make )(?<!makes )(?<!making )(?<!lets )"  # "makes people feel" is what the picture evokes
_SOME = (
    r"\b(?:some|others|several|someone|somebody|a few)(?: of (?:us|you|them|the))?"
    rf"(?: (?!(?:the|this|it|i|my|we)\b)[\w'-]+){{0,3}}? (?:{_VERBS})s?\b"
)
_MOST = (
    rf"{_NOT_MADE}(?<!most )(?<!many )\b"
    rf"(?:most|many|(?:(?:most|many) (?:{_VIEWERS})|people|viewers|observers|everyone|everybody|anyone)"
    rf"(?: (?:often|\w+ly))?) (?:{_VERBS})s?\b|\b(?:one|you) (?:may|might|could)\b"
)
# Not "as if it were", "even if it was", nor how one is asked: "if I were to choose", "if one had to be picked".
_SUPPOSED = (
    r"(?<!\bas )(?<!\beven )\bif (?!(?:i|we|you|one)\b)"
    r"(?![^,]{0,80}\b(?:chosen|picked|selected|choose|pick|select|asked|forced|to be made|up to)\b)"
    r"[^,]{0,80}?\b(?:were|was|weren't|wasn't|had been|hadn't been|had not been)\b"
    r"|\A\s*(?:had|were) (?:it|this|there|the)\b"
)
_PERSON = "(?:person|man|woman|child|girl|boy|baby|kid|individual|figure|subject|character)"
_PERSONS = r"(?:they|(?:the|these|those|both|two) (?:\w+ )?(?:people|men|women|children|girls|boys|kids|figures))"
_GAP = r"(?: (?!(?:makes?|making|lets?|causes?|i|me|us|we|you|viewers?|observers?|it)\b)[\w'-]+){0,6}?"
_FELT = (
    rf"\b(?:he|she|{_PERSON}){_GAP} (?:feels|(?:seems?|appears?) to feel)\b|\b{_PERSONS}{_GAP} feel\b"
    rf"|\b(?:his|her|{_PERSON}'s)(?: [\w-]+){{0,2}}? (?:emotion|feeling)\b"
)
_SHOWN = rf"\b(?:some|his|her|their|{_PERSON}'s|expressions?|face|posture|smile){_GAP} (?:conveys?|suggests?)\b"
_EVOKED = r"\b(?:evok|elicit|arous|inspir|provok)\w+\b"
SUPPOSED = re.compile(_SUPPOSED)
"""What would be if the picture were another one, up to "were"; at the start of a sentence also "had it"."""


def never_counts(kind: Kind) -> str:
    """Statements that are no answer to a question of this kind, whatever else is said.

    What a person in the picture feels is an answer to the question what is felt.
    """
    always = f"{_NOT_MADE}{_SOME}|{_SUPPOSED}"
    return always if kind == "felt" else f"{always}|{_FELT}"


def counts_alone(kind: Kind) -> str:
    """Statements that are the answer only where there is no other: of most people, of faces, of the other kind."""
    return f"{_SOME}|{_MOST}|{_EVOKED if kind == 'felt' else _SHOWN}"
