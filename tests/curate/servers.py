"""Servers on this machine for the tests: one that misbehaves in every way, and what search services answer."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.drawn import draw_image, jpeg_of
from uniemox.curate.collect.config import CollectConfig

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
    server.answer, server.paths, server.headers = answer, [], []  # type: ignore[attr-defined]
    server.host = f"127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    server.address = f"http://{server.host}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def misbehaving() -> Callable[[Handler], None]:
    """What a bad server answers, by path."""
    times: Counter[str] = Counter()

    def answer(handler: Handler) -> None:  # noqa: PLR0912 - one line a fault
        path = handler.path.partition("?")[0]
        times[path] += 1
        if path == "/drip":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            for _ in range(100):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.05)
        elif path == "/drip-header":
            for _ in range(100):
                handler.wfile.write(b"H")
                handler.wfile.flush()
                time.sleep(0.05)
        elif path == "/promised":
            handler.send(b"", Content_Length=str(10**9))
        elif path == "/endless":
            handler.send_response(200)
            handler.send_header("Connection", "close")
            handler.end_headers()
            for _ in range(200):
                handler.wfile.write(b"x" * 2000)
        elif path == "/cut":
            handler.send(JPEG[:200], Content_Length=str(len(JPEG)))
            handler.close_connection = True
        elif path == "/gone":
            handler.connection.close()
        elif path == "/gzip":
            handler.send(JPEG, Content_Encoding="gzip")
        elif path == "/busy":
            handler.send(b"", 429, Retry_After="7")
        elif path == "/twice" and times[path] < 3:
            handler.send(b"", 503)
        elif path == "/loop":
            handler.send(b"", 302, Location="/loop")
        elif path == "/moved":
            handler.send(b"", 301, Location="/ok.jpg")
        elif path.startswith("/to/"):
            handler.send(b"", 302, Location=handler.path.removeprefix("/to/"))
        elif path == "/page":
            handler.send(b"<html>no image</html>", Content_Type="image/jpeg")
        elif path == "/robots.txt":
            handler.send(b"User-agent: *\nDisallow: /private/\n")
        elif path == "/missing":
            handler.send(b"", 404)
        else:
            handler.send(JPEG)

    return answer


def local(server: ThreadingHTTPServer, **settings: object) -> CollectConfig:
    """Settings that let a test fetch from its server, and from no other."""
    quick = {"timeout_s": 2.0, "rate": 1000.0, "tries": 2, "first_wait_s": 0.01}
    return CollectConfig(private_hosts=(server.host,), **{**quick, **settings})  # type: ignore[attr-defined,arg-type]
