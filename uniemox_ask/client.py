"""Requests to an OpenAI-compatible endpoint, with retries and pace."""

import asyncio
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from uniemox.errors import ConfigError
from uniemox.io import back_off, host_of, retry_after
from uniemox_ask.address import CHAT_PATH, is_loopback
from uniemox_ask.reply import Reply, excerpt, read_reply

# Limits on the size of an answer and of an error.
MAX_BYTES = 4 * 2**20
MAX_ERROR_BYTES = 64 * 2**10

# The longest pause that an endpoint may ask for, and the longest time of pauses without an answer between them. Beyond
# either, the command stops with an error instead of waiting; it can be repeated.
MAX_PAUSE_S = 600
MAX_SILENCE_S = 3600

# Statuses that are tried again, besides 500 to 599.
RETRIED_STATUSES = (408, 409, 425, 429)
# Error codes by which services report that a filter refused the question.
FILTER_CODES = ("content_filter", "content_policy_violation", "moderation_blocked")
KEY_HIDDEN = "[key]"
MIN_SECRET = 8  # characters of a key that is hidden
# Numbers of alternatives to request for each token. OpenAI allows 20, other services only 5, and some models none.
TOP_LOGPROBS = (20, 5)


class Pace:
    """Limit on the request rate, shared by all threads that use one endpoint.

    Args:
        rate_per_minute: None for no limit.
        stop: Set when waiting is no longer useful.
    """

    def __init__(self, rate_per_minute: float | None, stop: threading.Event) -> None:
        self.interval_s = 0.0 if rate_per_minute is None else 60 / rate_per_minute
        self.stop = stop
        self.lock = threading.Lock()
        self.next_s = 0.0

    def wait_turn(self) -> bool:
        """Wait until a request may be sent; returns False if no more may be sent."""
        while not self.stop.is_set():
            with self.lock:
                wait_s = self.next_s - time.monotonic()
                if wait_s <= 0:
                    self.next_s = time.monotonic() + self.interval_s
                    return True
            # Checked again afterwards: another thread may have been first, or the pause may have grown.
            self.stop.wait(wait_s)
        return False

    def hold(self, seconds: float) -> None:
        """Keep all threads from sending a request for a number of seconds."""
        with self.lock:
            self.next_s = max(self.next_s, time.monotonic() + seconds)


@dataclass(frozen=True, slots=True)
class _FailedAttempt:
    """Reason why an attempt failed."""

    reason: str
    is_final: bool = False
    wait_s: float | None = None  # pause requested by the endpoint


class Client:
    """Sends questions to one endpoint; several threads may share it. Redirects are not followed, to protect the key.

    Args:
        url: From `chat_url`.
        key: Sent as a bearer token to this address only, or None.
        pace: Shared by all threads.
        timeout_s: Time limit per attempt, from connecting to the last byte.
        attempts: Maximum number of attempts per question.
        first_wait_s: Seconds before the second attempt; see `back_off` for the others.

    Raises:
        ConfigError: If the key has other characters than printable ASCII, or blanks.
    """

    def __init__(
        self, url: str, key: str | None, *, pace: Pace, timeout_s: float, attempts: int, first_wait_s: float
    ) -> None:
        # Errors about invalid headers would show the key.
        if key is not None and not re.fullmatch(r"[\x21-\x7e]+", key):
            raise ConfigError("the key must have printable ASCII characters only, without blanks")
        self.url = url
        self.pace = pace
        self.timeout_s = timeout_s
        self.attempts = attempts
        self.first_wait_s = first_wait_s
        self.host = urlsplit(url).netloc
        self.has_answered = False
        self._silent_since: float | None = None  # the first pause since the last answer
        # By model, how many numbers of `TOP_LOGPROBS` it has refused.
        self._refusals: dict[str, int] = {}
        self._key = key
        # A short key of a local server, such as "x", is no secret, and occurs in words.
        self._secret = key if key is not None and len(key) >= MIN_SECRET else ""

    def ask(self, model: str, messages: Sequence[Mapping[str, Any]], *, with_logprobs: bool = False) -> Reply | None:
        """Return the answer of a model, after up to the allowed number of attempts; None if stopped before.

        Args:
            model: The model's name at the endpoint.
            messages: The conversation so far, in the protocol's form.
            with_logprobs: Request log-probabilities of the tokens. If the endpoint refuses them, the question is sent
                without, and so are all later ones to this model.

        Raises:
            ConfigError: If retrying is pointless: a wrong key, model or address, an empty account.
        """
        for attempt in range(1, self.attempts + 1):
            if not self.pace.wait_turn():
                return None
            started_s = time.monotonic()
            outcome = self._attempt(model, messages, with_logprobs=with_logprobs)
            if outcome is None:
                return None
            latency_s = round(time.monotonic() - started_s, 3)
            if isinstance(outcome, Reply):
                self.has_answered = True
                self._silent_since = None
                return replace(outcome, latency_s=latency_s, attempts=attempt)
            if outcome.is_final or attempt == self.attempts:
                return Reply(error=outcome.reason, latency_s=latency_s, attempts=attempt)
            self._wait(outcome, attempt)
        raise AssertionError("unreachable")

    def _wait(self, failure: _FailedAttempt, attempt: int) -> None:
        """Wait before the next attempt, as long as the endpoint asks for, else longer after each attempt.

        Raises:
            ConfigError: If the endpoint asks for too long a pause, or has answered nothing for too long.
        """
        if failure.wait_s is None:
            self.pace.stop.wait(back_off(attempt, self.first_wait_s))
            return
        if failure.wait_s > MAX_PAUSE_S:
            raise ConfigError(
                f"{self.host} asks for a pause of {failure.wait_s:,.0f} s ({failure.reason}); repeat the command "
                "after that; answers so far are saved"
            )
        now_s = time.monotonic()
        # Read once, because other threads reset it.
        since_s = self._silent_since
        if since_s is None:
            since_s = now_s
        self._silent_since = since_s
        if now_s + failure.wait_s - since_s > MAX_SILENCE_S:
            raise ConfigError(
                f"{self.host} has asked for pauses for {now_s - since_s:,.0f} s without an answer ({failure.reason}); "
                "repeat the command later; answers so far are saved"
            )
        self.pace.hold(failure.wait_s)

    def _attempt(
        self, model: str, messages: Sequence[Mapping[str, Any]], *, with_logprobs: bool
    ) -> Reply | _FailedAttempt | None:
        """Send one request; another with fewer log-probabilities if the endpoint refuses them. None if stopped between.

        Raises:
            ConfigError: If retrying is pointless.
        """
        body: dict[str, Any] = {"model": model, "messages": messages}
        refusals = self._refusals.get(model, 0)
        asks_for_logprobs = with_logprobs and refusals < len(TOP_LOGPROBS)
        if asks_for_logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS[refusals]}
        try:
            data = asyncio.run(self._send(body))
            # Before an error cuts the response, which could leave a part of the key that no longer matches.
            if self._secret:
                data = data.replace(self._secret.encode(), KEY_HIDDEN.encode())
            reply = read_reply(data)
            return replace(reply, answer=self._hide_key(reply.answer or ""))
        except TimeoutError:
            return _FailedAttempt(f"no answer within {self.timeout_s:g} s")
        except openai.APIStatusError as error:
            blames_logprobs = error.status_code < 500 and "logprob" in self._error_message(error).lower()
            if asks_for_logprobs and blames_logprobs:
                # The maximum, because another thread may have raised it.
                self._refusals[model] = max(self._refusals.get(model, 0), refusals + 1)
                if not self.pace.wait_turn():
                    return None
                return self._attempt(model, messages, with_logprobs=True)
            return self._explain_status(model, error)
        except (openai.APIConnectionError, OSError) as error:
            cause = _root_cause(error)
        except ValueError as error:
            return _FailedAttempt(self._clean(str(error)))
        # Earlier versions of openai wrap the errors of event hooks in an APIConnectionError.
        if isinstance(cause, ConfigError):
            raise cause
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise ConfigError(f"{self.host} has no valid certificate ({cause.verify_message}); check --endpoint")
        if isinstance(cause, ConnectionRefusedError | socket.gaierror) and not self.has_answered:
            reason = "connection refused" if isinstance(cause, ConnectionRefusedError) else cause.strerror
            raise ConfigError(f"no server answers at {self.url} ({reason}); check --endpoint, and that it runs")
        return _FailedAttempt(self._clean(f"connection failed: {type(cause).__name__}: {cause}"))

    async def _send(self, body: Mapping[str, Any]) -> bytes:
        """Send one request, and return the body of the response.

        Args:
            body: The request in the protocol's form.

        Raises:
            TimeoutError: If the response is not complete within the time limit.
            openai.APIStatusError: For a status of 400 or more.
            openai.APIConnectionError: If the connection fails.
            OSError: If the body is too large.
            ConfigError: For a redirect, an address or a proxy that can't be used.
        """
        # One limit for everything: httpx2's own timeouts start again with every byte, so a server could send without
        # end. Only asynchronous code can be interrupted wherever it waits.
        async with asyncio.timeout(self.timeout_s), self._new_client() as client:
            # Not `client.chat.completions.create`: its parsed result has lost the text of responses that are no answer.
            response = await client.post(CHAT_PATH, body=body, cast_to=httpx2.Response)
            return response.content

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        """The authorities that are trusted; SSL_CERT_FILE counts for all endpoints. Reading them takes 30 to 60 ms.

        Raises:
            ConfigError: If that file can't be used.
        """
        try:
            return httpx2.create_ssl_context()
        except OSError as error:
            # The error names no file. A file comes before a folder.
            named = [f"{name}={os.environ[name]}" for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
            files = named[0] if named else "the system's"
            raise ConfigError(f"the certificates to trust can't be read ({files}): {error}") from error

    def _new_client(self) -> openai.AsyncOpenAI:
        """Return a client for one request; connections can't be shared by the event loops of several threads.

        Raises:
            ConfigError: If the address, or a proxy named by the environment, can't be used.
        """
        address = urlsplit(self.url)
        # An endpoint on this machine is reached without the proxies that the environment names.
        is_local = is_loopback(address.hostname or "")
        # Also for http, because a proxy may be reached by https.
        is_encrypted = address.scheme == "https" or not is_local
        try:
            # Given a client of ours, openai neither follows redirects nor sets timeouts.
            http_client = httpx2.AsyncClient(
                timeout=None,
                verify=self._certificates if is_encrypted else False,
                trust_env=not is_local,
                event_hooks={"request": [self._limit_headers], "response": [self._limit_response]},
            )
            # `ask` retries instead of openai, so that all attempts are counted and keep the rate limit. The placeholder
            # is not sent: `_limit_headers` adds the key, and without a placeholder openai would read OPENAI_API_KEY.
            return openai.AsyncOpenAI(
                api_key="placeholder", base_url=self.url.removesuffix(CHAT_PATH), max_retries=0, http_client=http_client
            )
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            raise ConfigError(
                f"{self.url} can't be reached: {error}; check --endpoint, and variables such as HTTPS_PROXY"
            ) from error

    async def _limit_headers(self, request: httpx2.Request) -> None:
        """Replace the headers of a request by those that it needs.

        openai adds others: a description of this machine, and those of OPENAI_CUSTOM_HEADERS, OPENAI_ORG_ID and
        OPENAI_PROJECT_ID, which may be meant for another endpoint.
        """
        headers = {name: request.headers[name] for name in ("Host", "Content-Type", "Content-Length")}
        headers |= {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "uniemox"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request.headers = httpx2.Headers(headers)

    async def _limit_response(self, response: httpx2.Response) -> None:
        """Limit the size of a response's body.

        Raises:
            ConfigError: For a redirect.
        """
        if response.status_code // 100 == 3:
            target = self._clean(host_of(response.headers.get("Location", ""))) or "another address"
            raise ConfigError(
                f"{self.url} redirects to {target}; it is not followed, because the key would go along. If you trust "
                "it, give that address as --endpoint"
            )
        # Decompressed, a small body could become larger than the limit; the request does not accept compression. The
        # content type can also name a compression as its charset, and codecs that do not return text.
        for name in ("Content-Encoding", "Content-Type"):
            response.headers.pop(name, None)
        response.stream = _LimitedBody(response.stream, is_error=not response.is_success)

    def _explain_status(self, model: str, error: openai.APIStatusError) -> Reply | _FailedAttempt:
        """Describe a status of 400 or more.

        Returns:
            An answer if a filter of the service refused the question; else the reason.

        Raises:
            ConfigError: If it affects all questions.
        """
        status = error.status_code
        message = self._error_message(error)
        report = f"HTTP {status}: {message}" if message else f"HTTP {status}"
        if status == 401:
            if self._key:
                remedy = "the key is wrong"
            else:
                remedy = "it wants a key: name its environment variable with --key-from"
            raise ConfigError(f"{self.host} says {report}; {remedy}")
        if status == 404:
            raise ConfigError(f"{self.host} says {report}; is there a model {model!r}, and is {self.url} right?")
        if status == 402 or error.code == "insufficient_quota":
            raise ConfigError(f"{self.host} says {report}; the account is empty. Answers so far are saved")
        if status < 500 and error.code in FILTER_CODES:
            return Reply(answer=message, is_refused=True)
        is_final = status < 500 and status not in RETRIED_STATUSES
        wait_s = retry_after(error.response.headers.get("Retry-After"))
        return _FailedAttempt(report, is_final=is_final, wait_s=wait_s)

    def _error_message(self, error: openai.APIStatusError) -> str:
        """Return the message in the body of an error, or the start of a body in another form."""
        body = error.body
        if isinstance(body, Mapping) and isinstance(body.get("message"), str):
            return self._clean(body["message"])
        # A text is the value of a field "error", or the whole response if it is no JSON.
        text = body if isinstance(body, str) else error.response.text
        # Before the text is cut, which could leave a part of the key that no longer matches.
        return self._clean(excerpt(self._hide_key(text)))

    def _clean(self, text: str) -> str:
        """Return one line that is safe to show and save: short, printable, without the key."""
        text = re.sub(r"\s+", " ", self._hide_key(text))
        return "".join(character for character in text if character.isprintable()).strip()[:300]

    def _hide_key(self, text: str) -> str:
        return text.replace(self._secret, KEY_HIDDEN) if self._secret else text


class _LimitedBody(httpx2.AsyncByteStream):
    """Body of a response, with a limit on its bytes.

    Args:
        is_error: True for the body of an error. If it is too long or broken, it ends early without an exception,
            because the status is known.
    """

    def __init__(self, stream: Any, *, is_error: bool) -> None:
        self._stream = stream
        self._is_error = is_error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        limit = MAX_ERROR_BYTES if self._is_error else MAX_BYTES
        size = 0
        try:
            async for part in self._stream:
                size += len(part)
                if size > limit:
                    raise OSError(f"a response of more than {limit:,} bytes")
                yield part
        except (OSError, httpx2.TransportError):
            if not self._is_error:
                raise

    async def aclose(self) -> None:
        await self._stream.aclose()


def _root_cause(error: BaseException) -> BaseException:
    """Return the error of the operating system or the protocol behind those of httpx2 and openai."""
    while True:
        # A host with several addresses fails with a group of errors, one for each.
        if isinstance(error, BaseExceptionGroup):
            cause = error.exceptions[0]
        else:
            # httpcore2 raises its errors "from None", so the cause is only in the context.
            cause = error.__cause__ or error.__context__
        if cause is None:
            return error
        error = cause
