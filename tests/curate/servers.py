"""Servers on this machine for the tests: one that misbehaves in every way, and what search services answer."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.drawn import draw_image, jpeg_of
from uniemox_curate.collect.config import CollectConfig

JPEG = jpeg_of(draw_image(1, (160, 140)))


class Handler(BaseHTTPRequestHandler):
    """Quiet; `server.answer` says what to do."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        self.server.headers.append(dict(self.headers))  # type: ignore[attr-defined]
        try:
            self.server.answer(self)  # type: ignore[attr-defined]
        except OSError:
            return  # the other side has had enough

    def log_message(self, *_: object) -> None:
        return

    def send(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), **{k.replace("_", "-"): v for k, v in headers.items()}}
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(answer: Callable[[Handler], None]) -> Iterator[ThreadingHTTPServer]:
    """A server whose paths and headers are kept; `address` is its address, `host` its host and port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.answer = answer  # type: ignore[attr-defined]
    server.paths = []  # type: ignore[attr-defined]
    server.headers = []  # type: ignore[attr-defined]
    server.host = f"127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    server.address = f"http://{server.host}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def drip(handler: Handler, byte: bytes) -> None:
    for _ in range(100):
        handler.wfile.write(byte)
        handler.wfile.flush()
        time.sleep(0.05)


def endless(handler: Handler, length: str = "") -> None:
    handler.send_response(200)
    handler.send_header(*(("Content-Length", length) if length else ("Connection", "close")))
    handler.end_headers()
    if length:
        drip(handler, b"x")
    else:
        handler.wfile.write(b"x" * 400_000)


FAULTS: dict[str, Callable[[Handler], None]] = {
    "/drip": lambda handler: endless(handler, "1000"),
    "/drip-header": lambda handler: drip(handler, b"H"),
    "/promised": lambda handler: handler.send(b"", Content_Length=str(10**9)),
    "/endless": endless,
    "/cut": lambda handler: handler.send(JPEG[:200], Content_Length=str(len(JPEG)), Connection="close"),
    "/gone": lambda handler: handler.connection.close(),
    "/gzip": lambda handler: handler.send(JPEG, Content_Encoding="gzip"),
    "/busy": lambda handler: handler.send(b"", 429, Retry_After="7"),
    "/loop": lambda handler: handler.send(b"", 302, Location="/loop"),
    "/moved": lambda handler: handler.send(b"", 301, Location="/ok.jpg"),
    "/page": lambda handler: handler.send(b"<html>no image</html>", Content_Type="image/jpeg"),
    "/robots.txt": lambda handler: handler.send(b"User-agent: *\nDisallow: /private/\n"),
    "/missing": lambda handler: handler.send(b"", 404),
}


def misbehaving() -> Callable[[Handler], None]:
    """What a bad server answers, by path."""
    times: Counter[str] = Counter()

    def answer(handler: Handler) -> None:
        path = handler.path.partition("?")[0]
        times[path] += 1
        if path == "/twice" and times[path] < 3:
            handler.send(b"", 503)
        elif path.startswith("/to/"):
            handler.send(b"", 302, Location=handler.path.removeprefix("/to/"))
        else:
            FAULTS.get(path, lambda handler: handler.send(JPEG))(handler)

    return answer


def local(server: ThreadingHTTPServer, **settings: object) -> CollectConfig:
    """Settings that let a test fetch from its server, and from no other."""
    quick = {"timeout_s": 2.0, "rate": 1000.0, "tries": 2, "first_wait_s": 0.01}
    return CollectConfig(private_hosts=(server.host,), **{**quick, **settings})  # type: ignore[attr-defined,arg-type]
