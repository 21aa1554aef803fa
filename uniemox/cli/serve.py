"""The command that serves."""

import os
from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from uniemox.cli.console import need, say
from uniemox.errors import ConfigError

MAX_MODELS, SHORTEST_KEY = 2, 16  # the page compares two; characters


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """Limits of the server: queue, batch, request size and time."""

    queue: int = 64
    """Maximum number of waiting images, at least 1; further requests get 503 with Retry-After."""
    batch_size: int = 16
    """Maximum number of images per batch, at least 1."""
    max_wait_ms: float = 5.0
    """Milliseconds that the first image of a batch waits for others, 0 or more."""
    max_mb: float = 10.0
    """Maximum size of one request in MiB, above 0."""
    timeout_s: float = 10.0
    """Seconds from the end of an upload to its answer, above 0; a later answer is 504."""


def serve(
    *,
    model: Annotated[list[str] | None, Parameter(negative="")] = None,
    person_model: Annotated[str | None, Parameter(negative="")] = None,
    faces: Literal["find", "whole"] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int | None = None,
    key_from: str | None = None,
    allow_origin: Annotated[list[str] | None, Parameter(negative="")] = None,
    root_path: str = "",
    limits: Annotated[LimitOptions, Parameter(name="*")] = LimitOptions(),
) -> None:
    """Serve predictions over HTTP, and a page to drop images on.

    See `uniemox docs serve`, and /docs of the server. SIGTERM and Ctrl-C answer what was accepted, then stop.

    For example:

    uniemox serve --model runs/fi --model runs/emoset --port 8080

    UNIEMOX_KEY=$(openssl rand -hex 24) uniemox serve --host 0.0.0.0 --key-from UNIEMOX_KEY

    Args:
        model: A run, model.onnx, hub: or clip: name; given twice, the page compares both. Without it the package's own.
        person_model: Model that predicts what the detected persons feel; named in the same way as --model.
        faces: Also predict what faces show to others. find: detect the faces; whole: each image is one face.
        host: Address to listen on; 0.0.0.0 lets other machines in: use --key-from then, and HTTPS before it.
        port: TCP port to listen on; 0 takes any free port.
        threads: Number of CPU threads for the network; one per core if not given.
        key_from: Name of the environment variable that holds the key which clients must send as Authorization: Bearer
            KEY.
        allow_origin: Site whose pages may send requests, such as https://example.org; the server also answers under its
            host.
        root_path: Path prefix that a proxy adds and removes, such as /emotions; the schema names it.
    """
    need("fastapi", "uvicorn", "python_multipart", "prometheus_client", "fastapi_swagger", extra="serve")
    from uniemox.predict.opening import load
    from uniemox.serve.app import create_app
    from uniemox.serve.app import serve as run
    from uniemox.serve.config import ServeConfig

    names: list[str | None] = [*model] if model else [None]
    if len(names) > MAX_MODELS:
        raise ConfigError(f"{len(names)} models given; the server takes up to {MAX_MODELS}")
    key = read_key(key_from)
    config = ServeConfig(root_path=root_path, allow_origins=tuple(allow_origin or ()), **vars(limits))
    predictors = [load(name, person_model=person_model, faces=faces, threads=threads) for name in names]
    app = create_app(predictors, config, key=key)
    if host not in ("127.0.0.1", "localhost", "::1") and key is None:
        say(f"listening on {host} without a key: whoever reaches this address can use it (see --key-from)")
    run(app, config, host=host, port=port)


def read_key(variable: str | None) -> str | None:
    """The key in an environment variable; None if no variable is named. Raises ConfigError if it holds none."""
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"the environment variable {variable} holds no key: expected at least {SHORTEST_KEY} printable characters "
            f"without blanks; make one with: export {variable}=$(openssl rand -hex 24)"
        )
    return key
