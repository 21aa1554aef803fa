"""Probabilities of options in responses in the forms of real servers, and in damaged ones."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ask.server import Endpoint, Request, Response, error, says, says_with_probabilities, serving
from tests.ask.test_client import MESSAGES, client_of
from uniemox.labels import MIKELS
from uniemox_ask.forms import questions_of
from uniemox_ask.probabilities import option_probabilities
from uniemox_ask.reply import Position, Reply

QUESTION = questions_of(MIKELS, "letters").questions[0]
STATEMENT = questions_of(MIKELS, "statements").questions[0]
# Probabilities of A (sadness), B (fear) and F (awe).
TOP = {"B": 0.5, "A": 0.25, "F": 0.125, "The": 0.0625}


def reply_of(response: Response) -> tuple[Reply, Endpoint]:
    with serving(lambda request, number: response) as endpoint:
        reply = client_of(endpoint).ask("m", MESSAGES, with_logprobs=True)
    assert reply is not None
    return reply, endpoint


def probabilities(response: Response) -> dict[str, float] | None:
    """Return the probabilities of the options with more than 0."""
    reply, _ = reply_of(response)
    assert reply.answer is not None
    outcome, label = QUESTION.reader.read(reply.answer)
    assert (outcome, label) == ("label", "fear")
    values = option_probabilities(reply.positions, reply.answer, "fear", QUESTION.tokens)
    if values is None:
        return None
    assert set(values) == set(MIKELS.labels)
    return {label: round(p, 6) for label, p in values.items() if p}


def test_probabilities_of_the_letters() -> None:
    assert probabilities(says_with_probabilities(("B", TOP))) == {"fear": 0.5, "sadness": 0.25, "awe": 0.125}
    _, endpoint = reply_of(says("B"))
    assert {name: endpoint.requests[0].body[name] for name in ("logprobs", "top_logprobs")} == {
        "logprobs": True,
        "top_logprobs": 20,
    }


@pytest.mark.parametrize(
    "tokens",
    [
        ["**", "B", "**"],
        ["B", ")", " fear"],
        ["B)", " fear"],
        ["(", "B", ")"],
        [" B", "\n"],
        ['{"', "answer", '":', ' "', "B", '"}'],
        ["```", "json", "\n", '{"', "choice", '":', ' "', "B", '"}', "\n", "```"],
        ["<think>", "A", " or", " ", "B", "?", "</think>", "\n\n", "B", "<|im_end|>"],
        ["B", "<|END_OF_B|>"],
    ],
)
def test_the_token_of_the_answer_is_found(tokens: list[str]) -> None:
    """In Markdown, in JSON, after thoughts that name other letters, and before an end token."""
    ends = ("<|im_end|>", "<|END_OF_B|>")
    last = max(i for i, token in enumerate(tokens) if "B" in token and token not in ends)
    tops = [{tokens[last]: 0.5, "A": 0.25, "F": 0.125} if i == last else {token: 0.9} for i, token in enumerate(tokens)]
    text = "".join(token for token in tokens if token not in ends)
    if "<think>" in tokens:
        text = text.partition("</think>\n\n")[2]
    response = says_with_probabilities(*zip(tokens, tops, strict=True), text=text)
    assert probabilities(response) == {"fear": 0.5, "sadness": 0.25, "awe": 0.125}


def test_a_letter_in_the_thoughts_is_not_that_of_an_answer_in_words() -> None:
    tokens = ["<think>", "fear", " is", " B", "</think>", "fear"]
    tops = [{token: 0.9} for token in tokens]
    assert probabilities(says_with_probabilities(*zip(tokens, tops, strict=True), text="fear")) is None


def test_tokens_that_differ_in_blanks_count_together() -> None:
    top = {"B": 0.25, " B": 0.125, "ĠB": 0.0625, "▁B": 0.0625, "**B": 0.0625, "b": 0.125, "BB": 0.125}
    assert probabilities(says_with_probabilities(("B", top))) == {"fear": 0.5625}


def test_case_counts_for_letters_but_not_for_yes_and_no() -> None:
    positions = [Position("Yes", {"Yes": 0.5, "yes": 0.25, "No": 0.125, "NO": 0.0625})]
    values = option_probabilities(positions, "Yes", "yes", STATEMENT.tokens)
    assert values == {"yes": 0.75, "no": 0.1875}


def test_rounded_sums_above_one_are_divided() -> None:
    values = option_probabilities([Position("B", {"B": 0.9, "A": 0.3})], "B", "fear", QUESTION.tokens)
    assert values is not None
    assert values["fear"] == pytest.approx(0.75)


def with_logprobs(logprobs: Any) -> Response:
    response = says("B")
    response.body["choices"][0]["logprobs"] = logprobs
    return response


@pytest.mark.parametrize(
    "logprobs",
    [
        *(None, {}, [], 3, {"content": None}, {"content": []}, {"content": 3}, {"content": [3]}, {"content": [{}]}),
        {"content": [{"token": "B", "logprob": None}]},
        {"content": [{"token": "B", "logprob": "-0.1"}]},
        {"content": [{"token": "B", "logprob": math.nan}]},
        # A whole number that no float can hold.
        {"content": [{"token": "B", "logprob": -(10**400)}]},
        {"content": [{"token": "B", "logprob": -0.1, "top_logprobs": [{"token": "A"}]}]},
        {"content": [{"token": "B", "logprob": -0.1, "top_logprobs": 3}]},
        # The form of the older completions protocol.
        {"tokens": ["B"], "token_logprobs": [-0.1], "top_logprobs": [{"B": -0.1}]},
        # Tokens that are not those of the answer.
        {"content": [{"token": "A", "logprob": -0.1}]},
    ],
)
def test_missing_and_damaged_log_probabilities_keep_the_answer(logprobs: Any) -> None:
    assert probabilities(with_logprobs(logprobs)) is None


def test_no_alternatives_give_the_probability_of_the_answer_alone() -> None:
    """Also above 0 after rounding, and -9999, by which OpenAI says that a token is very improbable."""
    entry = {"token": "B", "logprob": math.log(0.5), "top_logprobs": []}
    assert probabilities(with_logprobs({"content": [entry]})) == {"fear": 0.5}
    entry = {"token": "B", "logprob": 1e-7, "top_logprobs": []}
    reply, _ = reply_of(with_logprobs({"content": [entry]}))
    assert reply.positions == (Position("B", {"B": 1.0}),)
    entry = {"token": "B", "logprob": -9999.0, "top_logprobs": [{"token": "A", "logprob": math.log(0.75)}]}
    assert probabilities(with_logprobs({"content": [entry]})) == {"sadness": 0.75}


def test_the_first_of_several_choices_counts() -> None:
    response = says_with_probabilities(("B", TOP))
    response.body["choices"].append(says_with_probabilities(("A", {"A": 0.9})).body["choices"][0])
    assert probabilities(response) == {"fear": 0.5, "sadness": 0.25, "awe": 0.125}


@pytest.mark.parametrize(
    ("maximum", "numbers"), [(20, [20, 20]), (8, [20, 5, 5]), (0, [20, 5, None, None])], ids=["all", "5", "none"]
)
@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_refused_numbers_of_log_probabilities_are_lowered(maximum: int, numbers: list[int | None], status: int) -> None:
    """In the words of OpenAI, vLLM and Gemini; the number is remembered for the next question."""

    def behave(request: Request, number: int) -> Response:
        if request.body.get("top_logprobs", 0) > maximum:
            return error(status, f"Cannot request more than {maximum} Logprobs from this model")
        return says("B")

    with serving(behave) as endpoint:
        client = client_of(endpoint, attempts=1)
        replies = [client.ask("m", MESSAGES, with_logprobs=True) for _ in range(2)]
        assert [reply.answer for reply in replies if reply is not None] == ["B", "B"]
        assert [request.body.get("top_logprobs") for request in endpoint.requests] == numbers
        # Another model is asked for all again; questions without options as tokens request none.
        client.ask("n", MESSAGES, with_logprobs=True)
        client.ask("n", MESSAGES)
        assert endpoint.requests[len(numbers)].body["top_logprobs"] == 20
        assert set(endpoint.requests[-1].body) == {"model", "messages"}


def test_a_question_stopped_after_a_refusal_has_no_reply() -> None:
    def behave(request: Request, number: int) -> Response:
        client.pace.stop.set()
        return error(400, "no logprobs")

    with serving(behave) as endpoint:
        client = client_of(endpoint, attempts=1)
        assert client.ask("m", MESSAGES, with_logprobs=True) is None
        assert len(endpoint.requests) == 1


def test_other_refusals_are_not_taken_for_one_of_log_probabilities() -> None:
    reply, endpoint = reply_of(error(400, "it takes no images"))
    assert (reply.error, len(endpoint.requests)) == ("HTTP 400: it takes no images", 1)


TOKEN = st.sampled_from(["A", "B", " B", "**", "fear", "\n", "</think>", "ÿ"])
POSITIONS = st.lists(st.builds(Position, TOKEN, st.dictionaries(TOKEN, st.floats(0, 1))), max_size=8)


@given(POSITIONS, st.text(st.sampled_from("AB fear*"), max_size=5))
def test_any_tokens_give_a_distribution_or_none(positions: list[Position], answer: str) -> None:
    values = option_probabilities(positions, answer, "fear", QUESTION.tokens)
    if values is not None:
        assert all(0 <= value <= 1 for value in values.values())
        assert sum(values.values()) <= 1 + 1e-9
