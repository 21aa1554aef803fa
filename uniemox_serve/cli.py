"""The command that serves."""

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from uniemox.cli import config_of, need, options_of, read_key, say, takes
from uniemox.errors import ConfigError
from uniemox_serve.config import ServeConfig

# The page compares two models.
MAX_MODELS = 2
MIN_KEY_LENGTH = 16
NO_OPTIONS = ("max_files", "max_megapixels", "decode_timeout_s", "read_timeout_s", "max_connections")


@takes(limits=options_of(ServeConfig, without=NO_OPTIONS, names={"allow_origins": "--allow-origin"}))
def serve(
    *,
    model: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None,
    person_model: Annotated[str | None, Parameter(negative="")] = None,
    faces: Literal["find", "whole"] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    threads: int | None = None,
    key_from: str | None = None,
    limits: Any,
) -> None:
    """Serve predictions over HTTP, with a page that predicts images dropped on it.

    See `uniemox docs serve`, and /docs on the server. After SIGTERM or Ctrl-C it answers accepted requests, then stops.
    Let strangers reach it only through nginx, because it has no defence of its own against slow clients and many
    connections; `uniemox docs serve` has a configuration.

    For example:

    - uniemox serve --model runs/fi runs/emoset --port 8080
    - export UNIEMOX_KEY=$(openssl rand -hex 24); uniemox serve --host 0.0.0.0 --key-from UNIEMOX_KEY

    Args:
        model: A run, model.onnx, hub: or clip: name; or two, to compare them. Default: the package's own.
        person_model: Model that predicts what the detected people feel; takes the same values as --model.
        faces: Also predict facial expressions, which are not felt emotions. find: detect them. whole: each
            image is one face.
        host: Address to listen on. 0.0.0.0 accepts other machines; then use --key-from, and for strangers nginx with
            HTTPS.
        port: TCP port to listen on; 0 takes any free port.
        threads: Number of CPU threads for the network. Default: one per core.
        key_from: Name of the environment variable with the key. Clients must send the header Authorization: Bearer KEY.
    """
    need("fastapi", "uvicorn", "python_multipart", "prometheus_client", "fastapi_swagger", extra="serve")
    from uniemox.predict import load
    from uniemox_serve.app import create_app
    from uniemox_serve.app import serve as run

    names: list[str | None] = [*model] if model else [None]
    if len(names) > MAX_MODELS:
        raise ConfigError(f"{len(names)} models given; the server takes up to {MAX_MODELS}")
    remedy = f"make one with: export {key_from}=$(openssl rand -hex 24)"
    key = read_key(key_from, min_length=MIN_KEY_LENGTH, remedy=remedy)
    config = config_of(ServeConfig, limits)
    predictors = [load(name, person_model=person_model, faces=faces, threads=threads) for name in names]
    app = create_app(predictors, config, key=key)
    if host not in ("127.0.0.1", "localhost", "::1") and key is None:
        say(f"listening on {host} without a key: anyone who reaches this address can use the server (see --key-from)")
    run(app, config, host=host, port=port)
