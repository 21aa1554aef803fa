"""Running the web application on a socket."""

import gc
import re
import socket
import sys
from contextlib import suppress

import uvicorn

from uniemox.errors import ConfigError, DataError
from uniemox.io import read_limited, write_file
from uniemox_curate.annotate import access
from uniemox_curate.annotate.web import create_app
from uniemox_curate.project import Project
from uniemox_serve import ServeConfig, create_server

with suppress(ImportError):  # Windows
    import resource

MAX_CONNECTIONS = 4000
"""Maximum number of open connections; more get status 503. Two hundred browsers keep up to six each."""
# Files that the process may open besides its connections, and a preview for each.
OTHER_FILES = 200
# File limit of the process.
MAX_FILES = 2 * MAX_CONNECTIONS + OTHER_FILES
# File of a project with the address of its pages.
ADDRESS = "address.txt"
DEFAULT_ADDRESS = "http://127.0.0.1:8790"


def address_of(sock: socket.socket) -> str:
    """Return the address of a socket's pages."""
    host, port = sock.getsockname()[:2]
    if ":" in host:
        return f"http://[{host}]:{port}"
    return f"http://{host}:{port}"


def base_address(sock: socket.socket, address: str | None = None) -> str:
    """Return the address of the pages: a given one, or the socket's.

    Raises:
        ConfigError: If people could not open it.
    """
    if address is None and sock.getsockname()[0] in ("0.0.0.0", "::"):
        raise ConfigError(
            "listening on every network needs --address, the address at which people open the pages, such as http://me:8790"
        )
    if address is not None and not address.startswith(("http://", "https://")):
        raise ConfigError(f"address must begin with http:// or https://, got {address!r}")
    if address is not None and "/" in address.partition("://")[2].rstrip("/"):
        raise ConfigError(f"address must not have a path, because the pages lie at /, got {address!r}")
    return (address or address_of(sock)).rstrip("/")


def record_address(project: Project, address: str) -> None:
    """Remember the address of the pages for `served_at`."""
    write_file(project.folder / ADDRESS, address + "\n")


def served_at(project: Project) -> str:
    """Return the address of the pages: the recorded one, or the default before the first start of the server.

    Raises:
        DataError: If a stranger's project records something else.
    """
    path = project.folder / ADDRESS
    if not path.is_file():
        return DEFAULT_ADDRESS
    text = read_limited(path).decode("utf-8", "replace").strip()
    if not re.fullmatch(r"https?://[!-~]+", text):
        raise DataError(f"{path}: not an address; remove the file and start the server again")
    return text


def server(project: Project, sock: socket.socket, address: str | None = None) -> uvicorn.Server:
    """Return a server that is not running yet.

    Args:
        project: Project to serve.
        sock: Socket that listens.
        address: Address of the pages behind a proxy, such as https://curate.example.org; None: that of the socket.

    Raises:
        ConfigError: If people could not open the pages.
    """
    base = base_address(sock, address)
    addresses = [base] if address else [base, base.replace("127.0.0.1", "localhost")]
    max_connections = min(MAX_CONNECTIONS, max(1, (_file_limit() - OTHER_FILES) // 2))
    limits = ServeConfig(read_timeout_s=access.READ_TIMEOUT_S, max_connections=max_connections)
    return create_server(
        create_app(project, addresses),
        limits,
        keep_alive_s=75,
        # Time for the body of a request, and for the client to read the response.
        shutdown_s=int(2 * access.READ_TIMEOUT_S) + 1,
        proxy_headers=True,
    )


def serve(project: Project, sock: socket.socket, address: str | None = None) -> None:
    """Serve until SIGINT or SIGTERM; received answers are written before it ends."""
    _file_limit(raise_it=True)
    # As uniemox_serve.app.serve does: the collector skips all objects made at the start.
    gc.freeze()
    server(project, sock, address).run(sockets=[sock])


def _file_limit(*, raise_it: bool = False) -> int:
    """Return the number of files that this process may open.

    Args:
        raise_it: First raise the number to MAX_FILES if that is allowed.
    """
    # Windows has no such limit.
    if sys.platform == "win32":
        return MAX_FILES
    limit, hard_limit = (
        MAX_FILES if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    if raise_it and limit < min(MAX_FILES, hard_limit):
        limit = min(MAX_FILES, hard_limit)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return limit
