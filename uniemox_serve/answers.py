"""Responses of the server in its OpenAPI schema, and the form of all error responses."""

from collections.abc import Sequence
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model

from uniemox.labels import MIKELS, Kind
from uniemox.predict import FIELDS, columns_of, required_type, table_fields
from uniemox.predict import Field as AnswerField

EXAMPLE_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
EXAMPLE_PROBABILITIES: tuple[JsonValue, ...] = (0.02, 0.01, 0.61, 0.28, 0.01, 0.05, 0.01, 0.01)


def _type_of(field: AnswerField) -> Any:
    """Return a field's type for pydantic: lists of fixed length for tuples, models for objects."""
    required = required_type(field)
    field_type: Any = required
    if field.parts:
        part: Any = create_model(f"{field.name.removesuffix('s').title()}Answer", **_described(field.parts))
        field_type = list[part]
    elif get_origin(required) is tuple:
        count = len(get_args(required))
        field_type = Annotated[list[float], Field(min_length=count, max_length=count)]
    is_optional = required is not field.type
    return field_type | None if is_optional else field_type


def _described(fields: Sequence[AnswerField]) -> dict[str, Any]:
    """Return arguments for `create_model`: type and description of each field, by name."""
    return {field.name: (_type_of(field), _described_field(field)) for field in fields}


def _described_field(field: AnswerField) -> Any:
    """Return a field's description; an optional one without a value is left out of the answer."""
    if field.is_optional:
        return Field(default=None, description=field.meaning, exclude_if=lambda value: value is None)
    return Field(description=field.meaning)


class ImageAnswer(
    create_model(  # type: ignore[misc]
        "ImageFields",
        sha256=(str, Field(description="SHA-256 of the received bytes of the predicted image")),
        name=(str | None, Field(description="The file name as sent; it is only repeated")),
        **_described([field for field in FIELDS if field.name != "path" and not field.of_film]),
    )
):
    """Prediction for one image: the fields of `predict.schema`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "sha256": EXAMPLE_SHA256,
                "name": "beach.jpg",
                "kind": "evoked",
                "scene": dict(zip(MIKELS.labels, EXAMPLE_PROBABILITIES, strict=True)),
                "valence": 6.9,
                "valence_interval": [4.6, 9.0],
                "affect_from": "ratings",
                "arousal": 4.1,
                "arousal_interval": [2.6, 5.6],
                "familiarity": 0.62,
                "is_unfamiliar": False,
                "is_colourless": False,
                "view": [106.5, 0.0, 533.5, 427.0],
                "persons": [{"box": [12.0, 40.5, 120.0, 300.0], "confidence": 0.87, "emotions": None}],
                "faces": None,
                "likely": ["awe", "contentment"],
                "width_px": 640,
                "height_px": 427,
                "label_set": "mikels",
                "model": "scene",
            },
            # The page builds its table from these.
            "x-columns": [
                [field.name, *columns_of(field)] for field in table_fields((), of_film=False, with_optional=True)
            ],
        }
    )


class ImageFailure(BaseModel):
    """One of several images that could not be predicted; the others were."""

    sha256: str
    name: str | None
    error: str

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"sha256": EXAMPLE_SHA256, "name": "notes.txt", "error": "image: not an image of a known format"}
        }
    )


class ExplanationAnswer(BaseModel):
    """Heat map of an image for a label."""

    sha256: str
    name: str | None
    label: str
    method: str = Field(description="cam: class-activation map; occlusion: effect of hiding each part")
    evidence: float = Field(ge=0, description="At the brightest place, before scaling; the full_scale of other maps")
    box: list[float] = Field(min_length=4, max_length=4, description="The part that the model saw: x1, y1, x2, y2, px")
    data_url: str = Field(description="PNG of the image with the heat map on it")


class ModelAnswer(BaseModel):
    """Model on the server."""

    name: str
    labels: list[str]
    label_set: str
    kind: Kind
    task: str = Field(
        description="label or distribution: probabilities of sum 1; multilabel: a probability of each label; affect: "
        "valence and arousal, 1 to 9"
    )
    trained_on: str
    finds_persons: bool
    tells_persons_emotions: bool
    finds_faces: bool = Field(description="True if it predicts facial expressions")
    flags_unfamiliar: bool = Field(description="False: is_unfamiliar is true only for blank images, or never")
    max_coverage: float = Field(description="Maximum coverage of its likely sets; 0: it has none")


class HealthAnswer(BaseModel):
    """State of the server: it is up, and its models are loaded."""

    ready: bool
    models: list[str]
    version: str


class ErrorAnswer(BaseModel):
    """Reason why a request was refused."""

    code: str = Field(description="A word for programs")
    error: str = Field(description="A sentence for people")


class RefusedError(Exception):
    """Raised to refuse a whole request.

    Args:
        status: HTTP status of the response.
        code: A word for programs.
        error: A sentence for people.
        headers: Further headers of the response.
    """

    def __init__(self, status: int, code: str, error: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.code = code
        self.headers = headers or {}


REFUSALS = {
    400: ("malformed_body", "the multipart body can't be read; does its boundary match?"),
    401: ("wrong_key", "this server asks for a key; send it as Authorization: Bearer KEY"),
    403: ("foreign_origin", "pages of other sites may not use this server; see --allow-origin"),
    408: ("too_slow", "the body came too slowly; send it within 30 s and at least 10 KiB/s, or a smaller image"),
    413: ("too_large", "the body is larger than 10 MiB; send fewer or smaller images"),
    415: ("unsupported_type", "expected multipart/form-data or an image's own type"),
    421: (
        "wrong_host",
        "this server does not answer under that name; see --allow-origin, or use the machine's address",
    ),
    422: ("unreadable_picture", "image: not an image of a known format"),
    503: ("queue_full", "too many images are waiting; try again in 2 s"),
    504: ("timed_out", "no answer within 10 s; try again, with fewer images"),
    500: ("internal", "something is wrong in the server; its log says what"),
}
"""Code by status, and a sentence; those with numbers are examples."""
FOR_ALL = (403, 421, 500)
"""Statuses that any request may get."""

_DESCRIPTIONS = {
    400: "The body is malformed",
    401: "No key, or a wrong one",
    403: "The request comes from a page of another site",
    408: "The body came too slowly",
    413: "The body is too large, or has too many files",
    415: "The body has an unsupported type",
    421: "The server does not answer under this host name",
    422: "A parameter is out of range, no image was sent, or the only one can't be read",
    503: "The queue is full; Retry-After says when to try again",
    504: "No answer in time; the work was dropped",
    500: "An internal error",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses of an OpenAPI operation for these statuses, and for those of FOR_ALL."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, *FOR_ALL}):
        code, error = REFUSALS[status]
        content = {"application/json": {"example": {"code": code, "error": error}}}
        responses[status] = {"model": ErrorAnswer, "description": _DESCRIPTIONS[status], "content": content}
    if 503 in responses:
        seconds = {"type": "integer", "minimum": 1}
        responses[503]["headers"] = {"Retry-After": {"description": "Seconds", "schema": seconds}}
    if 401 in responses:
        responses[401]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return responses
