"""Requests to an OpenAI-compatible endpoint, with retries and pace."""

import ipaddress
import json
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPSHandler

from uniemox.errors import ConfigError
from uniemox.io.http_client import back_off, host_of, retry_after, timed_response


class Pace:
    """Limit on the request rate, shared by all threads that use one endpoint.

    Args:
        rate_per_minute: None for no limit.
        stop: Set when waiting is no longer useful.
    """

    def __init__(self, rate_per_minute: float | None, stop: threading.Event) -> None:
        if rate_per_minute is None:
            self.interval_s = 0.0
        else:
            self.interval_s = 60 / rate_per_minute
        self.stop = stop
        self.lock = threading.Lock()
        self.next_s = 0.0

    def wait_turn(self) -> bool:
        """Wait until a request may be sent; returns False if no more may be sent."""
        while not self.stop.is_set():
            with self.lock:
                left_s = self.next_s - time.monotonic()
                if left_s <= 0:
                    self.next_s = time.monotonic() + self.interval_s
                    return True
            self.stop.wait(left_s)  # another thread may have been first, or the pause may have grown
        return False

    def hold(self, seconds: float) -> None:
        """Keep all threads from sending a request for a number of seconds."""
        with self.lock:
            self.next_s = max(self.next_s, time.monotonic() + seconds)


PATH = "/chat/completions"
MAX_BYTES = 4 * 2**20  # of a response
MAX_ERROR_BYTES = 64 * 2**10
MAX_PAUSE_S = 600  # longest pause that an endpoint may ask for; a longer one stops the command
MAX_SILENCE_S = 3600  # maximum sum of pauses without an answer between them
AGAIN = (408, 409, 425, 429)  # retried statuses, besides 500 to 599
FILTERED = ("content_filter", "content_policy_violation", "moderation_blocked")
KEY_HIDDEN = "[key]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Outcome of a question; exactly one of answer and error is None."""

    answer: str | None = None
    error: str | None = None
    is_refused: bool = False
    """True if the service itself reports a refusal, by a field or a filter."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    latency_s: float = 0.0
    """Duration of the last attempt."""
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Reason why an attempt failed."""

    reason: str
    is_final: bool = False
    wait_s: float | None = None  # pause requested by the endpoint


def chat_url(endpoint: str, *, allow_http: bool = False) -> str:
    """Return the address for questions: the endpoint with /chat/completions, and with /v1 if it has no path.

    Raises:
        ConfigError: For an invalid address, for http to another machine unless allowed, and for a name, password or
            query in it, because it is saved with the answers.

    >>> chat_url("http://localhost:11434")
    'http://localhost:11434/v1/chat/completions'
    """
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
    is_plain = endpoint.isascii() and not re.search(r"[\s\x00-\x1f]", endpoint)
    if not host or parts.scheme not in ("http", "https") or not is_plain:
        raise ConfigError("endpoint must be an address such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"endpoint at {host} must not contain a name, a password or a ?query, because it is saved with the "
            "answers; a key belongs in an environment variable, see --key-from"
        )
    if parts.scheme == "http" and not is_loopback(host) and not allow_http:
        raise ConfigError(f"endpoint {endpoint} would send images and key unencrypted; use https, or --allow-http")
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path if path.endswith(PATH) else path + PATH}"


def is_loopback(host: str) -> bool:
    """Return True if a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Client:
    """Sends questions to one endpoint; several threads may share it. Redirects are not followed, to protect the key.

    Args:
        url: From `chat_url`.
        key: Sent as a bearer token to this address only, or None.
        timeout_s: Per attempt.
    """

    def __init__(
        self, url: str, key: str | None, *, pace: Pace, timeout_s: float, attempts: int, first_wait_s: float
    ) -> None:
        self.url = url
        self.pace = pace
        self.timeout_s = timeout_s
        self.attempts = attempts
        self.first_wait_s = first_wait_s
        self.host = urlsplit(url).netloc
        self.has_answered = False
        self._silent_since: float | None = None  # the first pause since the last answer
        self._key = key
        proxies: dict[str, str] | None = {} if is_loopback(urlsplit(url).hostname or "") else None
        self._opener = urllib.request.OpenerDirector()  # neither follows redirects nor raises for a status
        for handler in (urllib.request.ProxyHandler(proxies), _Handler()):
            self._opener.add_handler(handler)

    def ask(self, model: str, messages: Sequence[Mapping[str, Any]]) -> Reply | None:
        """Return the answer of a model, after up to the allowed number of attempts; None if stopped before.

        Args:
            messages: Of the conversation so far, in the protocol's form.

        Raises:
            ConfigError: If retrying is pointless: a wrong key, model or address, an empty account.
        """
        body = json.dumps({"model": model, "messages": list(messages)}).encode()
        for attempt in range(1, self.attempts + 1):
            if not self.pace.wait_turn():
                return None
            started = time.monotonic()
            outcome = self._attempt(model, body)
            latency_s = round(time.monotonic() - started, 3)
            if isinstance(outcome, Reply):
                self.has_answered = True
                self._silent_since = None
                return replace(outcome, latency_s=latency_s, attempts=attempt)
            if outcome.is_final or attempt == self.attempts:
                return Reply(error=outcome.reason, latency_s=latency_s, attempts=attempt)
            self._wait(outcome, attempt)
        raise AssertionError("unreachable")

    def _wait(self, trouble: _Trouble, attempt: int) -> None:
        if trouble.wait_s is None:
            self.pace.stop.wait(back_off(attempt, self.first_wait_s))
            return
        if trouble.wait_s > MAX_PAUSE_S:
            raise ConfigError(
                f"{self.host} asks for a pause of {trouble.wait_s:,.0f} s ({trouble.reason}); repeat the command "
                "after that; answers so far are saved"
            )
        now = time.monotonic()
        since = self._silent_since  # read once, because other threads reset it
        since = self._silent_since = now if since is None else since
        if now + trouble.wait_s - since > MAX_SILENCE_S:
            raise ConfigError(
                f"{self.host} has asked for pauses for {now - since:,.0f} s without an answer ({trouble.reason}); "
                "repeat the command later; answers so far are saved"
            )
        self.pace.hold(trouble.wait_s)

    def _attempt(self, model: str, body: bytes) -> Reply | _Trouble:
        """Send one request.

        Raises:
            ConfigError: If retrying is pointless.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "uniemox"}
        request = urllib.request.Request(self.url, body, headers, method="POST")
        if self._key is not None:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            with self._opener.open(request, timeout=self.timeout_s) as response:
                if response.status < 300:
                    return self._reply(_read(response, MAX_BYTES))
                data = b""
                with suppress(OSError, HTTPException):
                    data = _read(response, MAX_ERROR_BYTES)
                return self._refused(model, response.status, response.headers, data)
        except (OSError, HTTPException) as error:
            if isinstance(error, urllib.error.URLError):
                reason = error.reason
            else:
                reason = error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise ConfigError(f"{self.host} has no valid certificate ({reason.verify_message}); check --endpoint")
        if isinstance(reason, ConnectionRefusedError | socket.gaierror) and not self.has_answered:
            raise ConfigError(f"no server answers at {self.url} ({reason}); check --endpoint, and that it runs")
        if isinstance(reason, TimeoutError):
            return _Trouble(f"no answer within {self.timeout_s:g} s")
        return _Trouble(self._clean(f"connection failed: {type(reason).__name__}: {reason}"))

    def _refused(self, model: str, status: int, headers: Mapping[str, str], data: bytes) -> Reply | _Trouble:
        """Describe a status other than 2xx.

        Raises:
            ConfigError: If it affects all questions.
        """
        if status < 400:
            to = self._clean(host_of(headers.get("Location") or "")) or "another address"
            raise ConfigError(
                f"{self.url} redirects to {to}; it is not followed, because the key would go along. If you trust it, "
                "give that address as --endpoint"
            )
        message, code = self._message(data)
        says = f"HTTP {status}" + (f": {message}" if message else "")
        if status == 401:
            if self._key:
                key = "the key is wrong"
            else:
                key = "it wants a key: name its environment variable with --key-from"
            raise ConfigError(f"{self.host} says {says}; {key}")
        if status == 404:
            raise ConfigError(f"{self.host} says {says}; is there a model {model!r}, and is {self.url} right?")
        if status == 402 or code == "insufficient_quota":
            raise ConfigError(f"{self.host} says {says}; the account is empty. Answers so far are saved")
        if status < 500 and code in FILTERED:
            return Reply(answer=message, is_refused=True)
        is_final = status < 500 and status not in AGAIN
        return _Trouble(says, is_final=is_final, wait_s=retry_after(headers.get("Retry-After")))

    def _reply(self, data: bytes) -> Reply | _Trouble:
        """Parse the answer in a response."""
        try:
            value = json.loads(data)
            choice = value["choices"][0]
            message = choice["message"]
            text = _text(message.get("content"))
            refusal = message.get("refusal")
            usage = value.get("usage") or {}
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
            finish = choice.get("finish_reason")
        except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError) as error:
            return _Trouble(f"no answer in the response ({type(error).__name__}): {self._clean(_excerpt(data))}")
        is_declined = isinstance(refusal, str) and not text.strip()
        tokens_in, tokens_out = (count if type(count) is int and count >= 0 else None for count in counts)
        return Reply(
            answer=self._hide(refusal if is_declined else text),
            is_refused=finish == "content_filter" or (is_declined and bool(refusal)),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
        )

    def _message(self, data: bytes) -> tuple[str, str | None]:
        """Return message and code of an error's body."""
        try:
            error: Any = json.loads(data)["error"]
        except (ValueError, RecursionError, KeyError, TypeError):
            return self._clean(_excerpt(data)), None
        if not isinstance(error, Mapping):
            return self._clean(str(error)), None
        return self._clean(str(error.get("message", ""))), str(error.get("code"))

    def _clean(self, text: str) -> str:
        """Return one line that is safe to show and save: short, printable, without the key."""
        text = re.sub(r"\s+", " ", self._hide(text))
        return "".join(c for c in text if c.isprintable()).strip()[:300]

    def _hide(self, text: str) -> str:
        if self._key:
            return text.replace(self._key, KEY_HIDDEN)
        return text


class _Handler(HTTPHandler, HTTPSHandler):
    """Opens connections whose timeout covers a whole response."""

    def do_open(self, http_class: Any, req: urllib.request.Request, **settings: Any) -> HTTPResponse:
        def connect(*args: Any, **more: Any) -> Any:
            connection = http_class(*args, **more)
            connection.response_class = lambda sock, **rest: timed_response(
                sock, time.monotonic() + (sock.gettimeout() or 0), **rest
            )
            return connection

        return super().do_open(connect, req, **settings)


def _read(response: HTTPResponse, limit: int) -> bytes:
    """Read a body.

    Raises:
        OSError: If it is too large, too slow, or cut off.
    """
    data = bytearray()
    while part := response.read1(2**16):
        data += part
        if len(data) > limit:
            raise OSError(f"a response of more than {limit:,} bytes")
    if response.length:
        raise OSError(f"cut off after {len(data):,} bytes, {response.length:,} are missing")
    return bytes(data)


def _text(content: Any) -> str:
    """Return the words of a message, which is a text or a list of parts; an empty text for none."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content if part.get("type") == "text")


def _excerpt(data: bytes) -> str:
    return re.sub(r"<[^>]{0,200}>", " ", data[:2000].decode("utf-8", "replace"))
