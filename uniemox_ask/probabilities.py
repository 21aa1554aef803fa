"""Probabilities of the options from the log-probabilities of an answer's tokens."""

import re
from collections.abc import Mapping, Sequence

from uniemox_ask.answer_reader import without_thoughts
from uniemox_ask.reply import Position


def option_probabilities(
    positions: Sequence[Position], answer: str, option: str, options: Mapping[str, str]
) -> dict[str, float] | None:
    """Return the probability of each option at the token where the answer names one.

    Tokens that differ in blanks and punctuation count together. An option that is not among the most probable tokens
    has probability 0.

    Args:
        positions: The tokens of the answer; for reasoning models also those of their thoughts.
        answer: The answer.
        option: The option that it names.
        options: Options by their tokens, see `forms.AskedQuestion.tokens`.

    Returns:
        Probabilities by option, 0 to 1, with a sum of at most 1; the rest belongs to tokens that are no option. None
        without log-probabilities, or if the answer names the option by other words than its token.

    >>> positions = [Position(" B", {" B": 0.7, "A": 0.2, "The": 0.1})]
    >>> option_probabilities(positions, "B", "fear", {"A": "awe", "B": "fear"})
    {'awe': 0.2, 'fear': 0.7}
    """
    position = _position_of(positions, without_thoughts(answer), option, options)
    if position is None:
        return None
    sums = dict.fromkeys(options.values(), 0.0)
    for token, probability in position.probabilities.items():
        other = options.get(_plain(token))
        if other is not None:
            sums[other] += probability
    # Rounded values of a server may have a sum above 1.
    total = max(1.0, sum(sums.values()))
    return {name: value / total for name, value in sums.items()}


def _position_of(
    positions: Sequence[Position], answer: str, option: str, options: Mapping[str, str]
) -> Position | None:
    """Return the first token of the answer that stands for the option; None if there is none.

    Args:
        positions: Tokens, perhaps with thoughts before the answer and an end token after it.
        answer: The answer without thoughts.
        option: The option that it names.
        options: Options by their tokens.
    """
    text = "".join(position.token for position in positions)
    # From the last place on, because thoughts may contain the answer. An end token may contain its letter, too.
    start = text.rfind(answer)
    while start >= 0:
        end = 0
        for position in positions:
            begin = end
            end += len(position.token)
            is_inside = begin < start + len(answer) and end > start
            if is_inside and options.get(_plain(position.token)) == option:
                return position
        if start == 0:
            return None
        start = text.rfind(answer, 0, start + len(answer) - 1)
    return None


def _plain(token: str) -> str:
    """Return a token without blanks and punctuation; some servers write a blank as Ġ or ▁."""
    return re.sub(r"\A[\W_Ġ]+|[\W_Ċ]+\Z", "", token)
