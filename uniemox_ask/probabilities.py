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
        options: Options by their tokens, see `forms.Question.tokens`.

    Returns:
        Probabilities by option, 0 to 1, with a sum of at most 1; the rest belongs to tokens that are no option. None
        without log-probabilities, or if the answer names the option by other words than its token.

    >>> positions = [Position(" B", {" B": 0.7, "A": 0.2, "The": 0.1})]
    >>> option_probabilities(positions, "B", "fear", {"A": "awe", "B": "fear"})
    {'awe': 0.2, 'fear': 0.7}
    """
    # Thoughts come first, and may name several options.
    start = "".join(position.token for position in positions).rfind(without_thoughts(answer))
    if start < 0:
        return None
    end = 0
    for position in positions:
        end += len(position.token)
        if end <= start or options.get(_plain(position.token)) != option:
            continue
        sums = dict.fromkeys(options.values(), 0.0)
        for token, probability in position.probabilities.items():
            other = options.get(_plain(token))
            if other is not None:
                sums[other] += probability
        # Rounded values of a server may have a sum above 1.
        total = max(1.0, sum(sums.values()))
        return {name: value / total for name, value in sums.items()}
    return None


def _plain(token: str) -> str:
    """Return a token without blanks and punctuation; some servers write a blank as Ġ or ▁."""
    return re.sub(r"\A[\W_Ġ]+|[\W_Ċ]+\Z", "", token)
