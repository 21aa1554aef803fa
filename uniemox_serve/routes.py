"""Routes of the server."""

import asyncio
import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from prometheus_client import generate_latest
from starlette.requests import ClientDisconnect

from uniemox import __version__
from uniemox.errors import ConfigError, LabelError
from uniemox.predict import Failure, Prediction
from uniemox_serve.answers import (
    REFUSALS,
    ExplanationAnswer,
    HealthAnswer,
    ImageAnswer,
    ImageFailure,
    ModelAnswer,
    RefusedError,
    refusals,
)
from uniemox_serve.batching import Batcher
from uniemox_serve.bodies import ANY, FIELD, FORM, IMAGE_TYPES, Upload, read_uploads
from uniemox_serve.config import ServeConfig
from uniemox_serve.guard import client_of
from uniemox_serve.metrics import Metrics
from uniemox_serve.models import ExplainAsk, Models, Overlay, PredictAsk, without_folders

COVERAGE = "Also give labels, one of them true in this share of images like the model's held-out ones"
EXPLAINED = ("X-Picture-SHA256", "X-Label", "X-Method", "X-Evidence")
"""Headers of a heat map."""
open_routes = APIRouter()
"""Routes without a key."""
routes = APIRouter()
"""Routes that require the key, if the server has one."""


@dataclass(slots=True)
class Service:
    """State that all requests share."""

    config: ServeConfig
    models: Models
    batcher: Batcher
    metrics: Metrics
    held_bytes: Counter[str] = field(default_factory=Counter)
    """Size of all bodies in memory."""


# The dependencies are coroutines, because other functions would wait for a thread.
async def find_service(request: Request) -> Service:
    """Return the server's state, made by `create_app`."""
    service: Service = request.app.state.service
    return service


Shared = Annotated[Service, Depends(find_service)]


async def only_known(request: Request) -> None:
    """Refuse unknown query parameters, so that a misspelt name is reported, and those that are given twice.

    Raises:
        RefusedError: For such a name (422).
    """
    names = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in names:
            raise RefusedError(
                422, "bad_parameter", f"there is no parameter {name[:40]!r}; there are {', '.join(names)}"
            )
        if len(request.query_params.getlist(name)) > 1:
            raise RefusedError(422, "bad_parameter", f"the parameter {name} is given twice; give it once")


ModelName = Annotated[str | None, Query(description="Name from GET /models. Default: the first")]
_BINARY = {"type": "string", "format": "binary"}
_BODY = f"Images in a form, or one image with its own type ({', '.join(IMAGE_TYPES)})"


def _body(**limit: int) -> dict[str, Any]:
    """Return the body's schema.

    Args:
        limit: maxItems of the files; without it, only the server's limits apply (413).
    """
    items = {"type": "array", "items": _BINARY, "minItems": 1, **limit}
    form = {"type": "object", "properties": {FIELD: items}, "required": [FIELD], "additionalProperties": False}
    # Client generators do not support several types such as image/jpeg.
    content = {FORM: {"schema": form}, ANY: {"schema": _BINARY}}
    return {"requestBody": {"required": True, "description": _BODY, "content": content}}


@routes.post(
    "/predict",
    response_model=list[ImageAnswer | ImageFailure],
    responses=refusals(*REFUSALS),
    openapi_extra=_body(),
    dependencies=[Depends(only_known)],
    summary="Predict the emotions of one or several images",
)
async def predict(
    request: Request,
    service: Shared,
    coverage: Annotated[float | None, Query(gt=0, lt=1, description=COVERAGE)] = None,
    labels: Annotated[str | None, Query(description="Label set for the predictions")] = None,
    model: ModelName = None,
) -> list[ImageAnswer | ImageFailure]:
    """Predict images in the order sent; each result has the hash of its image's bytes.

    If several images were sent, an unreadable one becomes an error in the list. If it was the only one, the status is
    422.
    """
    ask = PredictAsk(service.models.find(model), coverage, labels)
    uploads, answers = await _ask(request, service, ask)
    for answer in answers:
        result = "unreadable" if isinstance(answer, Failure) else "answered"
        service.metrics.images.labels(result).inc()
    if len(uploads) == 1:
        _readable(answers[0])
    return [_image_answer(upload, answer, ask.model) for upload, answer in zip(uploads, answers, strict=True)]


FullScale = Annotated[
    float | None,
    Query(
        ge=1e-30,
        le=1e30,
        allow_inf_nan=False,
        description="Evidence with the brightest colour, so that several maps share a scale. Default: the map's most",
    ),
]
ExplainedLabel = Annotated[str | None, Query(description="Label of the model. Default: the most probable")]


@routes.post(
    "/explain",
    response_class=Response,
    responses={
        200: {
            "description": "The image with the heat map on it, at most 1024 px per side",
            "content": {"image/png": {"schema": _BINARY}},
            "headers": {name: {"schema": {"type": "string"}} for name in EXPLAINED},
        },
        **refusals(*REFUSALS),
    },
    openapi_extra=_body(maxItems=1),
    dependencies=[Depends(only_known)],
    summary="Show which parts of an image support a label, as a PNG",
)
async def explain(
    request: Request,
    service: Shared,
    label: ExplainedLabel = None,
    model: ModelName = None,
    full_scale: FullScale = None,
    # One operation with two types of response breaks generated clients; /explain/json took its place.
    answer_format: Annotated[Literal["png", "json"], Query(alias="format", include_in_schema=False)] = "png",
) -> Response:
    """Draw a heat map of one image."""
    model_name = service.models.find(model)
    upload, overlay = await _explained(request, service, ExplainAsk(model_name, label, full_scale))
    if answer_format == "json":
        return Response(_explanation(upload, overlay).model_dump_json(), media_type="application/json")
    headers = {"X-Picture-SHA256": upload.sha256, "X-Method": overlay.method, "X-Evidence": f"{overlay.evidence:.6g}"}
    # Labels of users may have letters that headers can't hold.
    if overlay.label.isascii():
        headers["X-Label"] = overlay.label
    return Response(overlay.png, media_type="image/png", headers=headers)


@routes.post(
    "/explain/json",
    responses=refusals(*REFUSALS),
    openapi_extra=_body(maxItems=1),
    dependencies=[Depends(only_known)],
    summary="Show which parts of an image support a label, as JSON with a PNG",
)
async def explain_json(
    request: Request,
    service: Shared,
    label: ExplainedLabel = None,
    model: ModelName = None,
    full_scale: FullScale = None,
) -> ExplanationAnswer:
    """Draw a heat map of one image."""
    ask = ExplainAsk(service.models.find(model), label, full_scale)
    return _explanation(*await _explained(request, service, ask))


async def _explained(request: Request, service: Service, ask: ExplainAsk) -> tuple[Upload, Overlay]:
    """Return a request's image and its heat map."""
    uploads, answers = await _ask(request, service, ask)
    overlay: Overlay = _readable(answers[0])
    return uploads[0], overlay


def _explanation(upload: Upload, overlay: Overlay) -> ExplanationAnswer:
    return ExplanationAnswer(
        sha256=upload.sha256,
        name=upload.name,
        label=overlay.label,
        method=overlay.method,
        evidence=overlay.evidence,
        box=list(overlay.box),
        data_url=f"data:image/png;base64,{base64.b64encode(overlay.png).decode()}",
    )


@routes.get("/models", responses=refusals(401), summary="List the models and their outputs")
async def list_models(service: Shared) -> list[ModelAnswer]:
    """List the models; the first is used if a request names none."""
    return service.models.describe()


@routes.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(401)},
    summary="Counters for Prometheus",
)
async def metrics(service: Shared) -> Response:
    """Return requests, latency, queue length, batch sizes and refusals."""
    return Response(generate_latest(service.metrics.registry), media_type="text/plain; version=0.0.4; charset=utf-8")


@open_routes.head("/health", include_in_schema=False)
@open_routes.get("/health", responses=refusals(), summary="Check that the server is up")
async def health(service: Shared) -> HealthAnswer:
    """Check that the server is up and its models are loaded."""
    return HealthAnswer(ready=True, models=service.models.names, version=__version__)


async def _ask(request: Request, service: Service, ask: PredictAsk | ExplainAsk) -> tuple[list[Upload], Sequence[Any]]:
    """Read a request's images, put them into the queue, and wait for the results.

    Raises:
        RefusedError: If the body or a parameter is refused, the queue is full, or there is no result in time.
    """
    reserved_bytes = 0
    client = client_of(request.client)

    def reserve(count: int) -> None:
        nonlocal reserved_bytes
        limit = service.config.max_held_bytes
        if service.held_bytes.total() + count > limit or service.held_bytes[client] + count > limit / 2:
            raise service.batcher.refusal()
        reserved_bytes += count
        service.held_bytes[client] += count

    try:
        uploads = await read_uploads(request, service.config, reserve)
        is_map = isinstance(ask, ExplainAsk)
        if is_map and len(uploads) > 1:
            raise RefusedError(422, "one_picture_only", f"{len(uploads)} files; this request takes one")
        answers = service.batcher.submit([upload.data for upload in uploads], ask, is_slow=is_map, client=client)
        return uploads, await _wait(request, answers, service.config.timeout_s)
    except (LabelError, ConfigError) as error:
        raise RefusedError(422, "bad_parameter", without_folders(str(error))) from error
    finally:
        # This also removes clients without any, so that their number does not grow.
        service.held_bytes -= Counter({client: reserved_bytes})


async def _wait(request: Request, answers: "list[asyncio.Future[Any]]", timeout_s: float) -> Sequence[Any]:
    """Wait for the results, and drop them if they are late or the client has gone.

    Raises:
        RefusedError: If there is no result in time (504), or the queue has dropped an image (503).
        ClientDisconnect: If the client has gone.
    """
    disconnect = asyncio.create_task(_until_disconnect(request))
    results = asyncio.gather(*answers)
    # Without this, asyncio would log an exception that comes too late.
    results.add_done_callback(lambda future: future.cancelled() or future.exception())
    try:
        events: set[asyncio.Future[Any]] = {disconnect, results}
        await asyncio.wait(events, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if results.done():
            return results.result()
        if disconnect.done():
            raise ClientDisconnect
        raise RefusedError(504, "timed_out", f"no answer within {timeout_s:g} s; try again, with fewer images")
    finally:
        disconnect.cancel()
        results.cancel()
        # A gather that has failed cancels none of its futures.
        for answer in answers:
            answer.cancel()


async def _until_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _readable(answer: Any) -> Any:
    """Return a result that is not a Failure.

    Raises:
        RefusedError: For a Failure (422).
    """
    if isinstance(answer, Failure):
        raise RefusedError(422, "unreadable_picture", without_folders(answer.error))
    return answer


def _image_answer(upload: Upload, answer: Prediction | Failure, model: str) -> ImageAnswer | ImageFailure:
    if isinstance(answer, Failure):
        return ImageFailure(sha256=upload.sha256, name=upload.name, error=without_folders(answer.error))
    return ImageAnswer.model_validate(answer.to_dict() | {"sha256": upload.sha256, "name": upload.name, "model": model})
