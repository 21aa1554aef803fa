"""A chat endpoint on this machine that misbehaves on request; each test starts and closes its own."""

import json
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """A received request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def model(self) -> str:
        return self.body["model"]

    @property
    def text(self) -> str:
        return self.body["messages"][0]["content"][0]["text"]

    @property
    def image(self) -> str:
        return self.body["messages"][0]["content"][1]["image_url"]["url"]

    @property
    def is_follow_up(self) -> bool:
        return len(self.body["messages"]) == 3


@dataclass
class Response:
    """A response to send; the body is sent as JSON unless it is bytes."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    cut_after: int | None = None
    """Bytes of the body after which the connection is cut."""
    reset: bool = False
    """The connection is reset without any response."""
    endless: bytes = b""
    """Bytes sent again and again, for at most 3 s, after the body, which then also has the status line and headers."""


def says(text: str | None, tokens: tuple[int, int] | None = (300, 20), **message: Any) -> Response:
    """Return a good response."""
    body: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text, **message}}]}
    if tokens:
        body["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
    return Response(body=body)


def says_with_probabilities(*tokens: tuple[str, Mapping[str, float]], text: str | None = None) -> Response:
    """Return a response with log-probabilities, in the form of OpenAI, vLLM, llama.cpp and Ollama.

    Args:
        tokens: Each token with the probabilities of the most probable ones at its place, as {token: p}.
        text: The answer; None: all tokens.
    """
    response = says("".join(token for token, _ in tokens) if text is None else text)
    content = []
    for token, probabilities in tokens:
        top = [_token(name, math.log(p)) for name, p in probabilities.items()]
        logprob = math.log(probabilities[token]) if token in probabilities else -9999.0
        content.append({**_token(token, logprob), "top_logprobs": top})
    response.body["choices"][0]["logprobs"] = {"content": content, "refusal": None}
    return response


def _token(name: str, logprob: float) -> dict[str, Any]:
    return {"token": name, "logprob": logprob, "bytes": list(name.encode())}


def error(status: int, message: str = "", code: str | None = None, **headers: str) -> Response:
    """Return an error in OpenAI's form."""
    return Response(status, {"error": {"message": message, "code": code}}, headers)


@dataclass
class Endpoint:
    """A running server."""

    url: str
    requests: list[Request] = field(default_factory=list)
    max_concurrent: int = 0


Behaviour = Callable[[Request, int], Response]


def in_turn(responses: Sequence[Response]) -> Behaviour:
    """Return a behaviour that sends these responses, then the last one for ever."""
    return lambda request, number: responses[min(number, len(responses) - 1)]


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Endpoint]:
    """Run a server.

    Args:
        behaviour: Called with the request and the number of requests before it.
    """
    lock = threading.Lock()
    concurrent = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal concurrent
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            request = Request(self.path, dict(self.headers), body)
            with lock:
                number = len(endpoint.requests)
                endpoint.requests.append(request)
                concurrent += 1
                endpoint.max_concurrent = max(endpoint.max_concurrent, concurrent)
            try:
                response = behaviour(request, number)
                time.sleep(response.wait_s)
            finally:
                # Before the response is sent: the next request may come while this thread still runs.
                with lock:
                    concurrent -= 1
            # A client that gave up has closed the connection.
            with suppress(OSError):
                self.send(response)

        def do_GET(self) -> None:
            self.do_POST()

        def send(self, response: Response) -> None:
            if response.reset:
                # With a linger time of 0 s, closing sends a reset.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return
            if response.endless:
                self.wfile.write(response.body)
                for _ in range(300):
                    self.wfile.write(response.endless)
                    time.sleep(0.01)
                return
            if isinstance(response.body, bytes):
                data = response.body
            else:
                data = json.dumps(response.body).encode()
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: response.cut_after])

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Print nothing: connections are reset on purpose."""

    server = Server(("127.0.0.1", 0), Handler)
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
