"""Questions to several models at a real server: saved answers, repeated questions, and reasons to stop."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ask.server import Endpoint, Request, Response, error, in_turn, says, serving
from tests.drawn import class_folders, jpeg_of
from uniemox.data.readers.folders import read_folder
from uniemox.data.sample import DataSet
from uniemox.errors import ConfigError, DataError
from uniemox.io.images import decode
from uniemox_ask.address import chat_url
from uniemox_ask.client import Client
from uniemox_ask.config import AskConfig
from uniemox_ask.forms import questions_of
from uniemox_ask.question import Selection, image_url, select
from uniemox_ask.record import ANSWERS, AnswerRow, key_of, open_record
from uniemox_ask.run import MAX_FAILURES_IN_A_ROW, ask


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    root = class_folders(tmp_path_factory.mktemp("set") / "x")
    for path in root.rglob("*.jpg"):
        path.write_bytes(jpeg_of(decode(path.read_bytes())[0].resize((32, 24))))
    return read_folder(root)


@pytest.fixture(scope="module")
def selection(data: DataSet) -> Selection:
    return select(data, 8, 0)


def config_of(endpoint: Endpoint, *models: str, **settings: Any) -> AskConfig:
    settings = {"first_wait_s": 0.01, "attempts": 2, "timeout_s": 30, **settings}
    return AskConfig(endpoint=endpoint.url, models=models or ("m",), **settings)


def run(config: AskConfig, selection: Selection, data: DataSet, out: Path, **more: Any) -> dict[str, AnswerRow]:
    questions = questions_of(data.labels, config.form, config.prompts)
    return ask(config, selection.images, questions, out, **more)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / ANSWERS).read_text("utf-8").splitlines()][1:]


def test_every_model_is_asked_once_about_every_image(data: DataSet, selection: Selection, tmp_path: Path) -> None:
    plans: list[str] = []
    steps: list[tuple[str, int, int | None]] = []
    with serving(lambda request, number: says("**Fear**.")) as endpoint:
        config = config_of(endpoint, "m", "n", price_in=2.0, price_out=10.0)
        rows = run(config, selection, data, tmp_path, on_plan=plans.append, on_progress=lambda *at: steps.append(at))
    images = {image_url(image.sample) for image in selection.images}
    assert Counter((request.model, request.image) for request in endpoint.requests) == dict.fromkeys(
        ((model, image) for model in "mn" for image in images), 1
    )
    assert {request.text for request in endpoint.requests} == {questions_of(data.labels).text}
    assert len(rows) == 16
    row = rows[key_of(chat_url(endpoint.url), "n", selection.images[0].sha256)]
    assert (row.answer, row.outcome, row.label, row.error, row.attempts) == ("**Fear**.", "label", "fear", None, 1)
    assert (row.tokens_in, row.tokens_out, row.cost) == (300, 20, 0.0008)
    assert row.name == selection.images[0].sample.key
    assert plans == [
        f"8 images x m, n: sending 16 questions to {endpoint.url[7:-3]}, at most about 36,000 tokens in and "
        "4,080 out, about 0.11 at the given prices"
    ]
    assert steps == [("asking", done, 16) for done in range(1, 17)]
    assert {line["key"] for line in lines(tmp_path)} == set(rows)


def test_answered_questions_are_not_sent_again(data: DataSet, selection: Selection, tmp_path: Path) -> None:
    fewer = Selection(selection.images[:3], ())
    with serving(lambda request, number: says("Awe")) as endpoint:
        run(config_of(endpoint), fewer, data, tmp_path)
        first = run(config_of(endpoint), selection, data, tmp_path)
        assert len(endpoint.requests) == 8
        plans: list[str] = []
        assert run(config_of(endpoint), selection, data, tmp_path, on_plan=plans.append) == first
        assert plans[0] == "8 images x m: 8 answers exist, nothing to send"
        run(config_of(endpoint, "other"), fewer, data, tmp_path)
        assert len(endpoint.requests) == 11
    with serving(lambda request, number: says("Fear")) as elsewhere:
        rows = run(config_of(elsewhere), fewer, data, tmp_path)
        assert len(elsewhere.requests) == 3
    assert Counter(row.endpoint for row in rows.values()) == {chat_url(endpoint.url): 11, chat_url(elsewhere.url): 3}


def test_sentences_get_a_follow_up_for_one_word(data: DataSet, selection: Selection, tmp_path: Path) -> None:
    """Once, in the same conversation. A failed or missing follow-up is sent again without the question."""
    is_broken = True

    def behave(request: Request, number: int) -> Response:
        if not request.is_follow_up:
            return says("The emotion is fear, because it is dark.", (300, 20))
        return error(500, "oops") if is_broken else says("Fear", (350, 2))

    few = Selection(selection.images[:3], ())
    with serving(behave) as endpoint:
        rows = run(config_of(endpoint, price_in=1.0, price_out=1.0), few, data, tmp_path)
        assert [(row.answer, row.word, row.error) for row in rows.values()] == [
            ("The emotion is fear, because it is dark.", None, "HTTP 500: oops")
        ] * 3
        is_broken = False
        before = len(endpoint.requests)
        rows = run(config_of(endpoint, price_in=1.0, price_out=1.0), few, data, tmp_path)
        follow_ups = endpoint.requests[before:]
        assert [request.is_follow_up for request in follow_ups] == [True] * 3
        assert run(config_of(endpoint), few, data, tmp_path) == rows
        assert len(endpoint.requests) == before + 3
    first, answer, follow_up = follow_ups[0].body["messages"]
    assert first["content"][0]["text"] == questions_of(data.labels).text
    assert answer == {"role": "assistant", "content": "The emotion is fear, because it is dark."}
    assert follow_up["role"] == "user"
    assert all(label in follow_up["content"] for label in data.labels.labels)
    for row in rows.values():
        assert (row.word, row.outcome, row.label, row.error) == ("Fear", "label", "fear", None)
        assert (row.tokens_in, row.tokens_out, row.cost) == (650, 22, 0.000672)


def test_failures_are_saved_and_sent_again(data: DataSet, selection: Selection, tmp_path: Path) -> None:
    broken = {image_url(image.sample) for image in selection.images[::3]}

    def behave(request: Request, number: int) -> Response:
        return error(500, "oops") if request.image in broken else says("Awe")

    with serving(behave) as endpoint:
        rows = run(config_of(endpoint, concurrency=1), selection, data, tmp_path)
        failed = [row for row in rows.values() if row.answer is None]
        assert {row.picture for row in failed} == {image.sha256 for image in selection.images[::3]}
        assert {(row.error, row.attempts, row.outcome) for row in failed} == {("HTTP 500: oops", 2, None)}
        missing = set(broken)
        broken.clear()
        before = len(endpoint.requests)
        again = run(config_of(endpoint), selection, data, tmp_path)
    assert {request.image for request in endpoint.requests[before:]} == missing
    assert {row.answer for row in again.values()} == {"Awe"}


@pytest.mark.parametrize("cut", [1, 7, 200])
def test_incomplete_last_line_is_repaired(data: DataSet, selection: Selection, tmp_path: Path, cut: int) -> None:
    with serving(lambda request, number: says("„Fear“ ✨")) as endpoint:
        rows = run(config_of(endpoint), selection, data, tmp_path)
        path = tmp_path / ANSWERS
        path.write_bytes(path.read_bytes()[:-cut])
        again = run(config_of(endpoint), selection, data, tmp_path)
        assert len(endpoint.requests) == 9
    assert set(again) == set(rows)
    assert len(lines(tmp_path)) == 8


def test_unusable_output_folders_are_refused(data: DataSet, selection: Selection, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another --out"):
        open_record(tmp_path / "file", "Which?")
    with open_record(tmp_path, "Another?")[0]:
        pass
    with serving(in_turn([says("Awe")])) as endpoint, pytest.raises(DataError, match="made with other settings"):
        run(config_of(endpoint), selection, data, tmp_path)
    assert not endpoint.requests


@pytest.mark.parametrize(("field", "value"), [("answer", 3), ("model", None), ("latency_s", "1"), ("picture", "other")])
def test_invalid_rows_are_refused(
    data: DataSet, selection: Selection, tmp_path: Path, field: str, value: object
) -> None:
    with serving(in_turn([says("Awe")])) as endpoint:
        run(config_of(endpoint), selection, data, tmp_path)
    header, first, *others = (tmp_path / ANSWERS).read_text("utf-8").splitlines()
    changed = json.dumps({**json.loads(first), field: value})
    (tmp_path / ANSWERS).write_text("\n".join([header, changed, *others, ""]), "utf-8")
    with pytest.raises(DataError, match="remove the line"):
        open_record(tmp_path, questions_of(data.labels).text)


def test_wrong_key_stops_and_keeps_answers(data: DataSet, selection: Selection, tmp_path: Path) -> None:
    with serving(lambda request, number: says("Awe") if number < 3 else error(401, "revoked")) as endpoint:
        with pytest.raises(ConfigError, match="revoked"):
            run(config_of(endpoint, concurrency=1), selection, data, tmp_path, key="k-1")
        assert len(endpoint.requests) == 4
    assert [line["answer"] for line in lines(tmp_path)] == ["Awe"] * 3


def test_wrong_model_stops_and_saves_answers_under_way(data: DataSet, selection: Selection, tmp_path: Path) -> None:
    under_way = threading.Event()
    stopped = threading.Event()

    def behave(request: Request, number: int) -> Response:
        if request.model == "typo":
            under_way.wait(30)
            stopped.set()
            return error(404, "no such model")
        under_way.set()
        stopped.wait(30)
        return Response(200, says("Awe").body, wait_s=0.2)

    with serving(behave) as endpoint, pytest.raises(ConfigError, match="is there a model 'typo'"):
        run(config_of(endpoint, "m", "typo", concurrency=2), selection, data, tmp_path)
    assert [(line["model"], line["answer"]) for line in lines(tmp_path)] == [("m", "Awe")]


def test_model_that_only_fails_stops_the_command(data: DataSet, selection: Selection, tmp_path: Path) -> None:
    refused = error(400, "it takes no images")
    with serving(in_turn([Response(400, refused.body, wait_s=0.2)])) as endpoint:
        with pytest.raises(ConfigError, match=r"failed 5 times in a row.*it takes no images"):
            run(config_of(endpoint, concurrency=1), selection, data, tmp_path)
        assert MAX_FAILURES_IN_A_ROW <= len(endpoint.requests) < len(selection.images)  # the next was under way
    assert {line["error"] for line in lines(tmp_path)} == {"HTTP 400: it takes no images"}


def test_few_failures_are_saved_and_concurrency_is_limited(data: DataSet, selection: Selection, tmp_path: Path) -> None:
    together = threading.Barrier(3)

    def behave(request: Request, number: int) -> Response:
        # The first three requests wait for each other, so that all are under way at once on a slow machine, too.
        if number < 3:
            together.wait(30)
        return error(400, "no")

    with serving(behave) as endpoint:
        rows = run(config_of(endpoint, concurrency=3), Selection(selection.images[:4], ()), data, tmp_path)
    assert [row.error for row in rows.values()] == ["HTTP 400: no"] * 4
    assert endpoint.max_concurrent == 3


def test_vanished_image_stops_the_command(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", each=2)
    data = read_folder(root)
    selection = select(data, 4, 0)
    (root / "awe" / "0.jpg").unlink()
    with serving(in_turn([says("Awe")])) as endpoint, pytest.raises(DataError, match="the data have changed"):
        run(config_of(endpoint), selection, data, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ()}, "--model NAME"),
        ({"models": ("a", " ")}, "--model NAME"),
        ({"models": ("a", "a")}, "lists a model twice"),
        ({"images": 0}, "images must be at least 1"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"concurrency": 65}, "concurrency must be at most 64"),
        ({"rate_per_minute": 0}, "rate_per_minute must be above 0"),
        ({"timeout_s": float("nan")}, "timeout_s must be above 0"),
        ({"price_in": 1.0}, "go together"),
        ({"price_in": -1.0, "price_out": 1.0}, "price_in must be at least 0"),
        ({"endpoint": "http://x.org"}, "--allow-http"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AskConfig(**{"endpoint": "https://x.org", "models": ("a",), **settings})


def test_a_bug_in_a_thread_ends_the_command(
    data: DataSet, selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, with_logprobs: bool) -> None:
        raise OverflowError("a bug")

    monkeypatch.setattr(Client, "ask", broken)
    with serving(in_turn([says("Awe")])) as endpoint, pytest.raises(OverflowError, match="a bug"):
        run(config_of(endpoint), selection, data, tmp_path)


def test_broken_connections_lose_no_answers(data: DataSet, selection: Selection, tmp_path: Path) -> None:
    """Every answer that the server sent completely is saved, in whatever order the threads end."""
    answers: list[str] = []
    lock = threading.Lock()

    def behave(request: Request, number: int) -> Response:
        if number % 4 == 3:
            return Response(reset=True)
        with lock:
            answers.append(f"answer {number}")
        return says(f"answer {number}")

    behaviour: Callable[[Request, int], Response] = behave
    with serving(behaviour) as endpoint:
        rows = run(config_of(endpoint, "m", "n", "o", attempts=6, concurrency=8), selection, data, tmp_path)
    assert sorted(str(text) for row in rows.values() for text in (row.answer, row.word)) == sorted(answers)
    assert len(rows) == 24
