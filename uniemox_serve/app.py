"""The application and the process that serves it."""

import gc
import hmac
import logging
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from uniemox import __version__
from uniemox.insight import PAGE_FOLDER, STYLE_NAME
from uniemox.io import STYLE_SHEET
from uniemox.predict import Predictor
from uniemox_serve.answers import REFUSALS, RefusedError
from uniemox_serve.batching import Batcher
from uniemox_serve.bodies import FIELD, FORM, IMAGE_TYPES
from uniemox_serve.config import ServeConfig
from uniemox_serve.guard import Guard, as_sent, own_addresses, own_names
from uniemox_serve.metrics import Metrics
from uniemox_serve.models import Models
from uniemox_serve.routes import EXPLAINED, Service, open_routes, routes
from uniemox_serve.server import create_server, listen

PAGE_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
PAGES = {"index.html": "/", "docs.html": "/docs"}
# Hosts that users give to listen on all addresses of the machine.
EVERY_ADDRESS = ("0.0.0.0", "::")
SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css")
DESCRIPTION = (
    "Predict what images make people feel, and detect the people in them. Every prediction includes the SHA-256 of the "
    "image's bytes. Limits of size, number and time are the server's settings; an error has a code for programs and a "
    "sentence for people."
)
logger = logging.getLogger("uniemox_serve")
bearer = HTTPBearer(auto_error=False, description="The key that the server was started with (--key-from)")


def create_app(predictors: Sequence[Predictor], config: ServeConfig, *, key: str | None = None) -> FastAPI:
    """Create the application for loaded models.

    Args:
        predictors: The models; at least one.
        config: Limits of the server.
        key: Clients must send it as Authorization: Bearer KEY; None: no key.

    Raises:
        UniemoxError: If a model does not run.
    """
    metrics = Metrics()
    decode_s = min(config.decode_timeout_s, config.timeout_s / 2)
    models = Models(predictors, max_megapixels=config.max_megapixels, decode_s=decode_s)
    models.warm_up()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        batcher = Batcher(models.work, config, metrics)
        app.state.service = Service(config, models, batcher, metrics)
        batcher.start()
        yield
        # No request is waiting any more, because uvicorn has waited for all of them.
        models.close()
        await batcher.stop()

    app = FastAPI(
        title="uniemox",
        description=DESCRIPTION,
        version=__version__,
        lifespan=life,
        # Generated clients name their functions by this.
        generate_unique_id_function=lambda route: route.name,
        # FastAPI's own pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        # Behind a proxy that speaks https, a redirect for a trailing slash would lead to plain http.
        redirect_slashes=False,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        servers=[{"url": config.root_path}] if config.root_path else None,
    )
    app.state.key = None if key is None else key.encode()
    origins = [as_sent(origin) for origin in config.allow_origins]
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "Content-Type"),
            expose_headers=(*EXPLAINED, "Retry-After"),
        )
    app.add_middleware(Guard, metrics=metrics, origins=origins)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.include_router(routes, dependencies=[] if key is None else [Depends(check_key)])
    app.include_router(open_routes)
    app.include_router(_page())
    _limit_parameters(app.openapi(), models.limits())
    return app


def serve(app: FastAPI, config: ServeConfig, *, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; accepted requests are answered first.

    Args:
        app: The application.
        config: Its limits.
        host: Address to listen on.
        port: TCP port; 0 takes any free one.

    Raises:
        ConfigError: If it can't listen there.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    listener = listen(host, port)
    port = listener.getsockname()[1]
    logger.info("listening on %s - stop with Ctrl-C", _address_of(host, port))
    if host in EVERY_ADDRESS:
        shared = ", ".join(addresses_to_share(host, port))
        logger.info("other machines of the network may reach it as %s; for other names give --allow-origin", shared)
    # uvicorn repeats the signal to itself after the last response; SIGTERM is not a failure then.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    # Otherwise a body of many lists makes the collector go through all modules again and again.
    gc.freeze()
    try:
        server_of(app, config).run([listener])
    finally:
        signal.signal(signal.SIGTERM, before)


def addresses_to_share(host: str, port: int) -> list[str]:
    """Return addresses under which other machines may reach this one: IP addresses first, then names.

    Args:
        host: One of EVERY_ADDRESS.
        port: TCP port.
    """
    reached = [address for address in own_addresses() if ":" in host or ":" not in address]
    return [_address_of(name, port) for name in (*reached, *sorted(own_names()))]


def _address_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_of(app: FastAPI, config: ServeConfig) -> uvicorn.Server:
    """Return a server that is not running yet."""
    # A request takes at most the time for its body and the time for its answer.
    shutdown_s = int(config.timeout_s + config.read_timeout_s) + 1
    return create_server(app, config, keep_alive_s=5, shutdown_s=shutdown_s, proxy_headers=False)


def _limit_parameters(schema: dict[str, Any], limits: dict[str, dict[str, Any]]) -> None:
    """Put limits such as this server's models and labels into the OpenAPI schema, which FastAPI makes once."""
    for path in ("/predict", "/explain", "/explain/json"):
        operation = schema["paths"][path]["post"]
        parameters = []
        for parameter in operation["parameters"]:
            limit = limits.get(parameter["name"])
            if limit is None:
                parameters.append(parameter)
            # Without a value, no model supports the parameter.
            elif any(limit.values()):
                # The other type is null, which a query can't express.
                [value_type, _] = parameter["schema"].pop("anyOf")
                parameter["schema"] |= value_type | limit
                parameters.append(parameter)
        operation["parameters"] = parameters
        form = operation["requestBody"]["content"][FORM]
        form["encoding"] = {FIELD: {"contentType": ", ".join(IMAGE_TYPES)}}


async def check_key(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> None:
    """Check that a request has the server's key; the comparison takes constant time.

    Raises:
        RefusedError: If the key is missing or wrong (401).
    """
    key = b"" if credentials is None else credentials.credentials.encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(key, request.app.state.key):
        raise RefusedError(401, *REFUSALS[401], headers={"WWW-Authenticate": "Bearer"})


def _page() -> APIRouter:
    """Return routes for the files of the page and of Swagger UI, read once. No other file is served."""
    router = APIRouter(include_in_schema=False)
    page_files = [file for file in PAGE_FOLDER.iterdir() if Path(file.name).suffix in PAGE_TYPES]
    swagger_files = [files("fastapi_swagger.resources") / name for name in SWAGGER]
    named_files = [(file.name, file) for file in (*page_files, *swagger_files)]
    for name, file in (*named_files, (STYLE_NAME, STYLE_SHEET)):
        path = PAGES.get(name, f"/page/{name}")
        media_type = PAGE_TYPES[Path(name).suffix]
        router.add_api_route(path, _constant(file.read_bytes(), media_type), methods=["GET", "HEAD"])
    return router


def _constant(content: bytes, media_type: str) -> Any:
    """Return a route function that always answers with the same bytes."""

    async def answer() -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return answer


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    request.app.state.service.metrics.rejected.labels(error.code).inc()
    return JSONResponse({"code": error.code, "error": str(error)}, error.status, headers=error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """Return the error response for a parameter out of range, in our format."""
    assert isinstance(error, RequestValidationError)
    # The first part of a location is its kind, "query".
    sentences = [f"{'.'.join(map(str, problem['loc'][1:]))}: {problem['msg']}" for problem in error.errors()]
    return await _refused(request, RefusedError(422, "bad_parameter", "; ".join(sentences)))


async def _http(request: Request, error: Exception) -> Response:
    """Return the error response for an unknown path or method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    code = {404: "not_found", 405: "wrong_method"}.get(error.status_code, "refused")
    return await _refused(request, RefusedError(error.status_code, code, str(error.detail), headers))
