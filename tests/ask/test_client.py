"""One question to a real server on this machine that misbehaves on purpose."""

import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ask.server import Endpoint, Response, error, in_turn, says, serving
from uniemox.ask import client
from uniemox.ask.client import MAX_BYTES, Client, Pace, Reply, chat_url, is_loopback
from uniemox.ask.question import first_message
from uniemox.errors import ConfigError
from uniemox.io.http_client import MAX_WAIT_S, back_off

KEY = "sk-secret-1234567890"
IMAGE = "data:image/jpeg;base64,AAAA"
MESSAGES = [first_message("Which?", IMAGE)]
GOOD = says("Fear.")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def client_of(endpoint: Endpoint, *, key: str | None = KEY, attempts: int = 3, timeout_s: float = 5.0) -> Client:
    pace = Pace(None, threading.Event())
    url = chat_url(endpoint.url)
    return Client(url, key, pace=pace, timeout_s=timeout_s, attempts=attempts, first_wait_s=0.01)


def asked(*responses: Response, **settings: object) -> tuple[Reply, Endpoint]:
    with serving(in_turn(responses)) as endpoint:
        reply = client_of(endpoint, **settings).ask("llava", MESSAGES)  # type: ignore[arg-type]
    assert reply is not None
    return reply, endpoint


def test_a_good_answer() -> None:
    reply, endpoint = asked(GOOD)
    assert (reply.answer, reply.error, reply.attempts) == ("Fear.", None, 1)
    assert (reply.tokens_in, reply.tokens_out, reply.is_refused) == (300, 20, False)
    [request] = endpoint.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert (request.model, request.text, request.image) == ("llava", "Which?", IMAGE)


def test_an_answer_may_come_in_parts_and_without_tokens_and_key() -> None:
    parts: Any = [{"type": "text", "text": "Aw"}, {"type": "text", "text": "e"}]
    reply, endpoint = asked(says(parts, tokens=None), key=None)
    assert (reply.answer, reply.tokens_in, reply.tokens_out) == ("Awe", None, None)
    assert "Authorization" not in endpoint.requests[0].headers


@pytest.mark.parametrize(
    "trouble",
    [
        error(429, "slow down"),
        error(429, "slow down", Retry_After="0"),
        error(429, "slow down", Retry_After="nonsense"),
        error(500, "oops"),
        Response(503, b"<html><h1>Bad gateway</h1></html>"),
        Response(200, b"<html><body>login</body></html>"),
        Response(200, b'{"choices": [{"mess'),
        Response(200, b"\xff\xfe\x00"),
        Response(200, {"choices": []}),
        Response(200, {"error": {"message": "overloaded"}}),
        Response(200, {"choices": [{"message": None}]}),
        Response(200, [1, 2]),
        Response(200, {"choices": [{"message": {"content": 5}}]}),
        Response(200, {"choices": [{"message": {"content": "Fear."}}]}, cut_after=20),
        Response(reset=True),
        Response(200, b"[" * 200_000),
    ],
)
def test_what_passes_is_tried_again(trouble: Response) -> None:
    reply, endpoint = asked(trouble, trouble, GOOD)
    assert (reply.answer, reply.attempts, len(endpoint.requests)) == ("Fear.", 3, 3)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (error(429, "slow down"), "HTTP 429: slow down"),
        (Response(500, b"<html><h1>Bad\n\x1b[31m gateway</h1>"), "HTTP 500: Bad [31m gateway"),
        (Response(200, {"choices": []}), 'no answer in the response (IndexError): {"choices": []}'),
        (Response(200, b"<p>login</p>"), "no answer in the response (JSONDecodeError): login"),
        (Response(200, b"x" * 100, cut_after=20), "cut off after 20 bytes, 80 are missing"),
        (Response(reset=True), "connection failed: ConnectionResetError"),
    ],
)
def test_it_gives_up_and_says_why(trouble: Response, reason: str) -> None:
    reply, endpoint = asked(trouble)
    assert reply.answer is None
    assert reason in str(reply.error)
    assert reply.attempts == len(endpoint.requests) == 3


def test_answers_that_are_too_slow_or_too_large_are_given_up() -> None:
    reply, _ = asked(Response(200, GOOD.body, wait_s=1.0), timeout_s=0.2, attempts=1)
    assert reply.error == "no answer within 0.2 s"
    reply, _ = asked(Response(200, b" " * (MAX_BYTES + 1)), attempts=1)
    assert "more than 4,194,304 bytes" in str(reply.error)


@pytest.mark.parametrize(
    ("start", "endless"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X"),
        (CHUNKED, b"0"),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"A: b\r\n"),
    ],
)
def test_responses_without_end_are_given_up(start: bytes, endless: bytes) -> None:
    reply, _ = asked(Response(body=start, endless=endless), timeout_s=0.3, attempts=1)
    assert reply.error == "no answer within 0.3 s"


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_what_no_repetition_changes_is_not_repeated(status: int) -> None:
    reply, endpoint = asked(error(status, "no images please"))
    assert reply.error == f"HTTP {status}: no images please"
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (error(401, "bad key"), "HTTP 401: bad key; the key is wrong"),
        (error(404, "no such model"), "HTTP 404: no such model; is there a model 'llava'"),
        (error(402, "pay"), "the account is empty"),
        (error(429, "you exceeded", "insufficient_quota"), "the account is empty"),
        (error(429, "later", Retry_After="86400"), "a pause of 86,400 s"),
    ],
)
def test_what_stops_everything(response: Response, message: str) -> None:
    with serving(in_turn([response])) as endpoint:
        with pytest.raises(ConfigError) as found:
            client_of(endpoint).ask("llava", MESSAGES)
        assert message in str(found.value)
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with serving(in_turn([GOOD])) as other:
        away = Response(status, b"", {"Location": f"{other.url}/chat/completions"})
        with serving(in_turn([away])) as endpoint, pytest.raises(ConfigError, match="redirects to 127"):
            client_of(endpoint).ask("llava", MESSAGES)
        assert not other.requests


@pytest.mark.parametrize("location", ["http://[::1", "http://[bad]/v1", "//[", "ftp://other/", "\x01", "", "x" * 9000])
def test_redirects_to_nowhere_are_refused(location: str) -> None:
    with serving(in_turn([Response(302, b"", {"Location": location})])) as endpoint:
        with pytest.raises(ConfigError, match=r"redirects to (another address|other); it is not followed"):
            client_of(endpoint).ask("llava", MESSAGES)
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize("pause", ["601", "1e9", "Wed, 21 Oct 9999 07:28:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_a_pause_of_years_stops_everything(pause: str) -> None:
    with serving(in_turn([error(429, "slow down", Retry_After=pause)])) as endpoint:
        with pytest.raises(ConfigError, match=r"asks for a pause of [\d,]+ s .*repeat the command"):
            client_of(endpoint).ask("llava", MESSAGES)
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "pause",
    [
        "9" * 5000,
        "nan",
        "inf",
        "-1",
        "soon",
        "\xb2",
        "Wed, 99 Oct 2015 07:28:00 GMT",
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
    ],
)
def test_pauses_that_mean_nothing_are_as_none(pause: str) -> None:
    reply, endpoint = asked(error(503, Retry_After=pause), GOOD)
    assert (reply.answer, len(endpoint.requests)) == ("Fear.", 2)


def test_pauses_without_end_stop_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is short enough."""
    monkeypatch.setattr(client, "MAX_SILENCE_S", 0.25)
    with serving(in_turn([error(429, Retry_After="0.1")])) as endpoint:
        with pytest.raises(ConfigError, match="has asked for pauses for 0 s without an answer"):
            client_of(endpoint, attempts=20).ask("llava", MESSAGES)
        assert len(endpoint.requests) <= 3


def test_an_answer_between_pauses_lets_it_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_SILENCE_S", 5)
    with serving(in_turn([error(429, Retry_After="4"), GOOD])) as endpoint:
        asking = client_of(endpoint)
        monkeypatch.setattr(asking.pace, "hold", lambda _: None)
        for _ in range(3):
            endpoint.requests.clear()
            assert asking.ask("llava", MESSAGES).answer == "Fear."  # type: ignore[union-attr]
            assert asking._silent_since is None


def test_nobody_there_or_a_key_wanted() -> None:
    with serving(in_turn([error(401)])) as endpoint, pytest.raises(ConfigError, match="--key-from"):
        client_of(endpoint, key=None).ask("llava", MESSAGES)
    with pytest.raises(ConfigError, match="no server answers at"):
        client_of(endpoint).ask("llava", MESSAGES)


@pytest.mark.parametrize(
    "response",
    [
        says(None, refusal="I can't help with that."),
        Response(200, {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]}),
        error(400, "flagged", "content_filter"),
        error(400, "flagged", "content_policy_violation"),
    ],
)
def test_refusals_of_the_service_are_answers(response: Response) -> None:
    reply, endpoint = asked(response)
    assert reply.is_refused
    assert reply.error is None
    assert reply.answer is not None
    assert len(endpoint.requests) == 1


def test_the_key_comes_back_in_no_text() -> None:
    echo = f"your key is {KEY}"
    assert asked(says(echo))[0].answer == "your key is [key]"
    assert asked(says(None, refusal=echo))[0].answer == "your key is [key]"
    replies = [asked(error(400, echo))[0], asked(Response(500, echo.encode()), attempts=1)[0]]
    replies += [asked(Response(200, echo.encode()), attempts=1)[0]]
    for reply in replies:
        assert KEY not in str(reply.error)
        assert "[key]" in str(reply.error)
    with serving(in_turn([error(401, echo)])) as endpoint, pytest.raises(ConfigError) as found:
        client_of(endpoint).ask("llava", MESSAGES)
    assert KEY not in str(found.value)


def test_a_pause_that_is_asked_for_is_kept() -> None:
    started = time.monotonic()
    reply, _ = asked(error(429, Retry_After="1"), GOOD)
    assert reply.attempts == 2
    assert time.monotonic() - started >= 1


def test_stopped_while_it_waits() -> None:
    with serving(in_turn([error(429, Retry_After="100")])) as endpoint:
        client = client_of(endpoint)
        threading.Timer(0.3, client.pace.stop.set).start()
        assert client.ask("llava", MESSAGES) is None


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("https://api.openai.com", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("https://x.org/api/v1/chat/completions", "https://x.org/api/v1"),
        ("http://localhost:1234/v1", "http://localhost:1234/v1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_addresses(endpoint: str, url: str) -> None:
    assert chat_url(endpoint) == f"{url}/chat/completions"


NO_ADDRESSES = ("", "api.openai.com", "ftp://x.org", "file:///etc/passwd", "https://", "https://x y")


@pytest.mark.parametrize("endpoint", [*NO_ADDRESSES, "http://[::1", "https://x:99999", "https://x.org/\n"])
def test_what_is_no_address(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="endpoint must be an address"):
        chat_url(endpoint)


@pytest.mark.parametrize(
    "endpoint", ["https://me:hunter2@x.org", "https://x.org/v1?key=hunter2", "https://x.org#hunter2"]
)
def test_an_address_holds_no_secret(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="must not contain") as found:
        chat_url(endpoint)
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize("host", ["x.org", "192.168.1.5", "127.0.0.1.x.org", "localhost.x.org"])
def test_http_is_for_this_machine(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="--allow-http"):
        chat_url(f"http://{host}/v1")
    assert chat_url(f"http://{host}/v1", allow_http=True) == f"http://{host}/v1/chat/completions"


@given(st.integers(1, 50), st.floats(0.01, 10))
def test_waits_grow_and_end(attempt: int, first: float) -> None:
    longest = min(first * 2 ** (attempt - 1), MAX_WAIT_S)
    assert longest / 2 <= back_off(attempt, first) <= longest


def test_the_rate_holds_for_all_threads() -> None:
    pace = Pace(600, threading.Event())  # one every 0.1 s
    times: list[float] = []

    def go() -> None:
        for _ in range(3):
            assert pace.wait_turn()
            times.append(time.monotonic())

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(times) - min(times) >= 0.1 * (len(times) - 1) - 0.001
