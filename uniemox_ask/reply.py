"""Replies of endpoints: the answer, refusal, tokens and their probabilities in a response of the chat protocol."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Larger counts are no counts; prices times such a number may be beyond the range of floats.
MAX_TOKENS = 10**12


@dataclass(frozen=True, slots=True)
class Position:
    """A token of an answer, with the tokens that the model might have chosen instead."""

    token: str
    probabilities: Mapping[str, float]
    """Probability of this token and of the most probable others, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Outcome of a question; exactly one of answer and error is None."""

    answer: str | None = None
    error: str | None = None
    is_refused: bool = False
    """True if the service itself reports a refusal, by a field or a filter."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    positions: tuple[Position, ...] = ()
    """All tokens in order; empty if the endpoint gives no log-probabilities."""
    latency_s: float = 0.0
    """Duration of the last attempt."""
    attempts: int = 1


def read_reply(data: bytes) -> Reply:
    """Parse the answer in a response.

    Raises:
        ValueError: If there is none; the message has an excerpt of the response.
    """
    # Not as the `openai` package's ChatCompletion: it checks no types, and lacks attributes for fields that a server
    # leaves out, which many compatible servers do.
    try:
        response = json.loads(data)
        choice = response["choices"][0]
        message = choice["message"]
        text = _message_text(message.get("content"))
        refusal = message.get("refusal")
        usage = response.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        finish_reason = choice.get("finish_reason")
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError) as error:
        text = excerpt(data.decode("utf-8", "replace"))
        raise ValueError(f"no answer in the response ({type(error).__name__}): {text}") from error
    is_declined = isinstance(refusal, str) and not text.strip()
    tokens_in, tokens_out = map(_token_count, counts)
    return Reply(
        answer=refusal if is_declined else text,
        is_refused=finish_reason == "content_filter" or (is_declined and bool(refusal)),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        positions=_positions(choice.get("logprobs")),
    )


def _token_count(count: Any) -> int | None:
    """Return a number of tokens; None if it is missing or impossible."""
    if type(count) is int and 0 <= count <= MAX_TOKENS:
        return count
    return None


def _positions(logprobs: Any) -> tuple[Position, ...]:
    """Return the tokens of an answer; none if they are missing or have another form, as with some servers.

    Args:
        logprobs: Field of this name: {"content": [{"token", "logprob", "top_logprobs": [{"token", "logprob"}]}]}.
    """
    try:
        positions = []
        for entry in logprobs["content"]:
            candidates = [entry, *(entry.get("top_logprobs") or ())]
            probabilities = {str(candidate["token"]): _probability(candidate["logprob"]) for candidate in candidates}
            positions.append(Position(str(entry["token"]), probabilities))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        return ()
    return tuple(positions)


def _probability(logprob: Any) -> float:
    """Return the probability of a logarithm, at most 1: servers round, and give -9999 for a very small one.

    Raises:
        ValueError: If it is no number.
        OverflowError: If it is a whole number beyond the range of floats.
    """
    if not isinstance(logprob, int | float) or math.isnan(logprob):
        raise ValueError(f"{logprob} is no log-probability")
    return math.exp(min(logprob, 0.0))


def excerpt(text: str) -> str:
    """Return the first 2,000 characters of a response, without HTML tags."""
    return re.sub(r"<[^>]{0,200}>", " ", text[:2000])


def _message_text(content: Any) -> str:
    """Return the words of a message, which is a text or a list of parts; an empty text for none."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content if part.get("type") == "text")
