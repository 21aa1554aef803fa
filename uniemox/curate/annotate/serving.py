"""Running the application on a socket, in the foreground or beside other work."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from uniemox.curate.annotate.guard import READ_TIMEOUT_S
from uniemox.curate.annotate.web import create_app
from uniemox.curate.project import Project
from uniemox.errors import ConfigError
from uniemox.serve.config import ServeConfig
from uniemox.serve.protocol import with_limits

MAX_CONNECTIONS = 4000
"""Open at a time; two hundred browsers keep up to six each."""
OTHER_FILES = 200  # that the process may have open beside its connections


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one. Raises ConfigError if that can't be."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else the end of an answer can wait for 40 ms
    try:
        sock.bind((host, port))
        sock.listen(512)
    except OSError as error:
        sock.close()
        raise ConfigError(f"can't listen on {host}:{port} ({error.strerror}); try another --port") from error
    return sock


def address_of(sock: socket.socket) -> str:
    """Where pages of that socket are."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server(project: Project, sock: socket.socket, address: str | None = None) -> uvicorn.Server:
    """A server that is not running yet.

    address: where people open the pages if something stands before this server, such as https://curate.example.org.
    Raises ConfigError if people could not open them.
    """
    own = address_of(sock)
    if address is None and sock.getsockname()[0] in ("0.0.0.0", "::"):
        raise ConfigError(
            "listening on every network needs --address, where people open the pages, such as http://me:8790"
        )
    if address is not None and not address.startswith(("http://", "https://")):
        raise ConfigError(f"address must begin with http:// or https://, got {address!r}")
    addresses = [address.rstrip("/")] if address else [own, own.replace("127.0.0.1", "localhost")]
    app = create_app(project, addresses, read_timeout_s=READ_TIMEOUT_S)
    protocol = with_limits(ServeConfig(read_timeout_s=READ_TIMEOUT_S, max_connections=_max_connections()))
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        log_config=None,  # uvicorn's own would close the log handlers of everything else in this process
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,
        backlog=512,
    )
    return uvicorn.Server(config)


def serve(project: Project, sock: socket.socket, address: str | None = None) -> None:
    """Serve until SIGINT or SIGTERM; answers that arrived are written before it ends."""
    _allow_many_sockets()
    server(project, sock, address).run(sockets=[sock])


def _allow_many_sockets() -> None:
    """Two hundred browsers keep up to six connections each, more than many systems allow a process by default."""
    try:
        import resource  # noqa: PLC0415 - not on Windows, which has no such limit
    except ImportError:
        return
    now, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard_limit == resource.RLIM_INFINITY else min(8192, hard_limit)
    if now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard_limit))


def _max_connections() -> int:
    """As many as the process may have files open for."""
    try:
        import resource  # noqa: PLC0415 - not on Windows, which has no such limit
    except ImportError:
        return MAX_CONNECTIONS
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if now == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, now - OTHER_FILES))


@contextmanager
def served(project: Project) -> Iterator[str]:
    """Serve in a thread while the context lasts; gives the address."""
    sock = listen("127.0.0.1", 0)
    running = server(project, sock)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]}, name="curate", daemon=True)
    thread.start()
    while not running.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield address_of(sock)
    finally:
        running.should_exit = True
        thread.join()
        sock.close()
