"""One question to a real server on this machine that misbehaves on purpose."""

import gzip
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ask.server import Endpoint, Response, error, in_turn, says, serving
from uniemox.errors import ConfigError
from uniemox.io.http_client import MAX_WAIT_S, back_off
from uniemox_ask import client as client_module
from uniemox_ask.address import chat_url, is_loopback
from uniemox_ask.client import MAX_BYTES, Client, Pace
from uniemox_ask.question import first_message
from uniemox_ask.reply import Reply

KEY = "sk-secret-1234567890"
IMAGE = "data:image/jpeg;base64,AAAA"
MESSAGES = [first_message("Which?", IMAGE)]
GOOD = says("Fear.")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def client_of(endpoint: Endpoint, *, key: str | None = KEY, attempts: int = 3, timeout_s: float = 5.0) -> Client:
    pace = Pace(None, threading.Event())
    url = chat_url(endpoint.url)
    return Client(url, key, pace=pace, timeout_s=timeout_s, attempts=attempts, first_wait_s=0.01)


def ask(*responses: Response, **settings: object) -> tuple[Reply, Endpoint]:
    """Ask a server that sends these responses, and return its reply and its requests."""
    with serving(in_turn(responses)) as endpoint:
        reply = client_of(endpoint, **settings).ask("llava", MESSAGES)  # type: ignore[arg-type]
    assert reply is not None
    return reply, endpoint


def test_answer_and_request_of_a_good_response() -> None:
    reply, endpoint = ask(GOOD)
    assert (reply.answer, reply.error, reply.attempts) == ("Fear.", None, 1)
    assert (reply.tokens_in, reply.tokens_out, reply.is_refused) == (300, 20, False)
    [request] = endpoint.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert (request.model, request.text, request.image) == ("llava", "Which?", IMAGE)


@pytest.mark.parametrize("key", [KEY, None])
def test_environment_changes_no_request(monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    """Keys, headers, addresses and proxies for other services are not used, and nothing describes this machine."""
    with serving(in_turn([GOOD])) as other:
        for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
            monkeypatch.setenv(name, f"secret of {name}")
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer other\nX-Secret: 1")
        monkeypatch.setenv("OPENAI_BASE_URL", other.url)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url)
        reply, endpoint = ask(GOOD, key=key)
        assert (reply.answer, other.requests) == ("Fear.", [])
    [request] = endpoint.requests
    names = {"Host", "Content-Type", "Content-Length", "Accept", "Accept-Encoding", "User-Agent"}
    if key is not None:
        names.add("Authorization")
        assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert set(request.headers) == names
    assert request.headers["User-Agent"] == "uniemox"
    assert set(request.body) == {"model", "messages"}


@pytest.mark.parametrize(
    ("proxy", "endpoint"),
    [("socks9://127.0.0.1:9", "https://x.invalid"), (None, "https://999.999.999.999"), (None, "https://[v1.a]")],
)
def test_unusable_proxies_and_hosts_raise(monkeypatch: pytest.MonkeyPatch, proxy: str | None, endpoint: str) -> None:
    if proxy is not None:
        monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ConfigError, match=r"can't be reached: .*check --endpoint, and variables such as HTTPS_PROXY"):
        client_of(Endpoint(endpoint)).ask("llava", MESSAGES)


def test_certificates_that_cannot_be_read_raise_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An endpoint on this machine without encryption needs none."""
    missing = tmp_path / "gone.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(missing))
    # The folder is not to blame.
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"can't be read \(SSL_CERT_FILE={re.escape(str(missing))}\).*No such file"):
        client_of(Endpoint("https://x.invalid")).ask("llava", MESSAGES)
    reply, _ = ask(GOOD)
    assert reply.answer == "Fear."


def test_answer_in_parts_without_tokens_and_key() -> None:
    parts: Any = [{"type": "text", "text": "Aw"}, {"type": "text", "text": "e"}]
    reply, endpoint = ask(says(parts, tokens=None), key=None)
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
def test_temporary_failures_are_retried(trouble: Response) -> None:
    reply, endpoint = ask(trouble, trouble, GOOD)
    assert (reply.answer, reply.attempts, len(endpoint.requests)) == ("Fear.", 3, 3)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (error(429, "slow down"), "HTTP 429: slow down"),
        (Response(500, b"<html><h1>Bad\n\x1b[31m gateway</h1>"), "HTTP 500: Bad [31m gateway"),
        (Response(200, {"choices": []}), 'no answer in the response (IndexError): {"choices": []}'),
        (Response(200, b"<p>login</p>"), "no answer in the response (JSONDecodeError): login"),
        (
            Response(200, b"x" * 100, cut_after=20),
            "without sending complete message body (received 20 bytes, expected 100)",
        ),
        (Response(reset=True), "connection failed: ConnectionResetError"),
    ],
)
def test_last_failure_is_reported(trouble: Response, reason: str) -> None:
    reply, endpoint = ask(trouble)
    assert reply.answer is None
    assert reason in str(reply.error)
    assert reply.attempts == len(endpoint.requests) == 3


def test_slow_and_large_responses_fail() -> None:
    reply, _ = ask(Response(200, GOOD.body, wait_s=1.0), timeout_s=0.2, attempts=1)
    assert reply.error == "no answer within 0.2 s"
    reply, _ = ask(Response(200, b" " * (MAX_BYTES + 1)), attempts=1)
    assert "more than 4,194,304 bytes" in str(reply.error)


def test_compressed_responses_are_not_decompressed() -> None:
    """The request accepts only "identity", and 50 kB could become 50 MB."""
    packed = gzip.compress(json.dumps(GOOD.body).encode() + b" " * 50_000_000)
    assert len(packed) < 60_000
    reply, _ = ask(Response(200, packed, {"Content_Encoding": "gzip"}), attempts=1)
    assert str(reply.error).startswith("no answer in the response")


@pytest.mark.parametrize("charset", ["zlib", "hex", "undefined", "nonsense", "utf-16", "idna"])
def test_charsets_of_errors_are_ignored(charset: str) -> None:
    body = json.dumps({"error": {"message": "no images"}}).encode()
    reply, _ = ask(Response(400, body, {"Content_Type": f"application/json; charset={charset}"}))
    assert reply.error == "HTTP 400: no images"


@pytest.mark.parametrize("response", [Response(400, b"no " * 1_000_000), Response(400, b"no " * 99, cut_after=30)])
def test_long_and_incomplete_errors_count_by_their_status(response: Response) -> None:
    reply, endpoint = ask(response)
    assert str(reply.error).startswith("HTTP 400: no no no")
    assert len(str(reply.error)) < 400
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "no images"}, "no images"),
        ({"error": {"message": "no <image> token"}}, "no <image> token"),
        ({"detail": "no images"}, '{"detail": "no images"}'),
        ({"object": "error", "message": "no images", "code": 400}, "no images"),
        ({"error": {"message": None}}, '{"error": {"message": null}}'),
        (["no images"], '["no images"]'),
        (b"", ""),
    ],
)
def test_errors_in_other_forms_are_shown(body: Any, message: str) -> None:
    assert ask(Response(400, body))[0].error == f"HTTP 400: {message}".removesuffix(": ")


@pytest.mark.parametrize(
    ("start", "endless"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X"),
        (CHUNKED, b"0"),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"A: b\r\n"),
    ],
)
def test_time_limit_covers_the_whole_response(start: bytes, endless: bytes) -> None:
    reply, _ = ask(Response(body=start, endless=endless), timeout_s=0.3, attempts=1)
    assert reply.error == "no answer within 0.3 s"


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_final_statuses_are_not_retried(status: int) -> None:
    reply, endpoint = ask(error(status, "no images please"))
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
def test_errors_of_all_questions_raise(response: Response, message: str) -> None:
    with serving(in_turn([response])) as endpoint:
        with pytest.raises(ConfigError) as raised:
            client_of(endpoint).ask("llava", MESSAGES)
        assert message in str(raised.value)
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with serving(in_turn([GOOD])) as other:
        away = Response(status, b"", {"Location": f"{other.url}/chat/completions"})
        with serving(in_turn([away])) as endpoint, pytest.raises(ConfigError, match="redirects to 127"):
            client_of(endpoint).ask("llava", MESSAGES)
        assert not other.requests


@pytest.mark.parametrize("location", ["http://[::1", "http://[bad]/v1", "//[", "ftp://other/", "\x01", "", "x" * 9000])
def test_invalid_redirects_are_refused(location: str) -> None:
    with serving(in_turn([Response(302, b"", {"Location": location})])) as endpoint:
        with pytest.raises(ConfigError, match=r"redirects to (another address|other); it is not followed"):
            client_of(endpoint).ask("llava", MESSAGES)
        assert len(endpoint.requests) == 1


@pytest.mark.parametrize("pause", ["601", "1e9", "Wed, 21 Oct 9999 07:28:00 GMT", "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_too_long_pause_raises(pause: str) -> None:
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
def test_invalid_pauses_are_ignored(pause: str) -> None:
    reply, endpoint = ask(error(503, Retry_After=pause), GOOD)
    assert (reply.answer, len(endpoint.requests)) == ("Fear.", 2)


def test_pauses_without_an_answer_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pause alone is short enough."""
    monkeypatch.setattr(client_module, "MAX_SILENCE_S", 0.25)
    with serving(in_turn([error(429, Retry_After="0.1")])) as endpoint:
        with pytest.raises(ConfigError, match=r"has asked for pauses for \d+ s without an answer"):
            client_of(endpoint, attempts=20).ask("llava", MESSAGES)
        # A slow machine leaves time for fewer requests, but the first pause is always allowed.
        assert len(endpoint.requests) in (2, 3)


def test_answer_resets_the_sum_of_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_SILENCE_S", 5)
    with serving(in_turn([error(429, Retry_After="4"), GOOD])) as endpoint:
        client = client_of(endpoint)
        monkeypatch.setattr(client.pace, "hold", lambda _: None)
        for _ in range(3):
            endpoint.requests.clear()
            assert client.ask("llava", MESSAGES).answer == "Fear."  # type: ignore[union-attr]
            assert client._silent_since is None


def test_missing_key_and_missing_server_raise() -> None:
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
    reply, endpoint = ask(response)
    assert reply.is_refused
    assert reply.error is None
    assert reply.answer is not None
    assert len(endpoint.requests) == 1


def test_key_is_hidden_in_every_text() -> None:
    echo = f"your key is {KEY}"
    assert ask(says(echo))[0].answer == "your key is [key]"
    assert ask(says(None, refusal=echo))[0].answer == "your key is [key]"
    replies = [ask(error(400, echo))[0], ask(Response(500, echo.encode()), attempts=1)[0]]
    replies += [ask(Response(200, echo.encode()), attempts=1)[0]]
    for reply in replies:
        assert KEY not in str(reply.error)
        assert "[key]" in str(reply.error)
    with serving(in_turn([error(401, echo)])) as endpoint, pytest.raises(ConfigError) as raised:
        client_of(endpoint).ask("llava", MESSAGES)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("key", ["x", "content"])
def test_a_short_key_is_no_secret(key: str) -> None:
    """Local servers take any key; this one is a part of the answer, or of the response's JSON."""
    assert ask(says("excitement"), key=key)[0].answer == "excitement"


@pytest.mark.parametrize("status", [200, 500])
def test_no_part_of_the_key_stays_where_a_text_is_cut(status: int) -> None:
    """Only the first 2,000 characters of a response are shown, and tags take none of a reason's 300."""
    body = "<p>" * 660 + "0123" + KEY
    reply, _ = ask(Response(status, body.encode()), attempts=1)
    assert reply.error
    assert KEY[:6] not in reply.error


@pytest.mark.parametrize("key", ["", "secret\n x", "secret x", "secret\xe9", "secret\0"])
def test_invalid_keys_are_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigError, match="printable ASCII") as raised:
        client_of(Endpoint("http://127.0.0.1:9"), key=key)
    assert "secret" not in str(raised.value)


def test_requested_pause_is_observed() -> None:
    started = time.monotonic()
    reply, _ = ask(error(429, Retry_After="1"), GOOD)
    assert reply.attempts == 2
    assert time.monotonic() - started >= 1


def test_stop_ends_a_pause() -> None:
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
def test_chat_url_adds_the_path(endpoint: str, url: str) -> None:
    assert chat_url(endpoint) == f"{url}/chat/completions"


NO_ADDRESSES = ("", "api.openai.com", "ftp://x.org", "file:///etc/passwd", "https://", "https://x y")


@pytest.mark.parametrize("endpoint", [*NO_ADDRESSES, "http://[::1", "https://x:99999", "https://x.org/\n"])
def test_invalid_addresses_are_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="endpoint must be an address"):
        chat_url(endpoint)


@pytest.mark.parametrize(
    "endpoint", ["https://me:hunter2@x.org", "https://x.org/v1?key=hunter2", "https://x.org#hunter2"]
)
def test_secrets_in_addresses_are_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="must not contain") as raised:
        chat_url(endpoint)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("host", ["x.org", "192.168.1.5", "127.0.0.1.x.org", "localhost.x.org"])
def test_plain_http_needs_a_loopback_host(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="--allow-http"):
        chat_url(f"http://{host}/v1")
    assert chat_url(f"http://{host}/v1", allow_http=True) == f"http://{host}/v1/chat/completions"


@given(st.integers(1, 50), st.floats(0.01, 10))
def test_back_off_doubles_up_to_the_maximum(attempt: int, first: float) -> None:
    longest = min(first * 2 ** (attempt - 1), MAX_WAIT_S)
    assert longest / 2 <= back_off(attempt, first) <= longest


def test_rate_limit_is_shared_by_threads() -> None:
    pace = Pace(600, threading.Event())  # one every 0.1 s
    times: list[float] = []

    def record_turns() -> None:
        for _ in range(3):
            assert pace.wait_turn()
            times.append(time.monotonic())

    threads = [threading.Thread(target=record_turns) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(times) - min(times) >= 0.1 * (len(times) - 1) - 0.001


@pytest.mark.parametrize("count", [-1, True, 3.0, "300", 10**400])
def test_impossible_token_counts_are_unknown(count: Any) -> None:
    reply, _ = ask(says("Awe", tokens=(count, 20)))
    assert (reply.answer, reply.tokens_in, reply.tokens_out) == ("Awe", None, 20)
