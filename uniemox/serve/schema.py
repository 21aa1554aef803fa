"""The OpenAPI schema of one server: what its models and limits allow, beside what all servers have."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from uniemox.serve.bodies import FIELD, FORM, IMAGE_TYPES
from uniemox.serve.models import Models


def describe(app: FastAPI, models: Models, root_path: str) -> dict[str, Any]:
    """The schema, with the names of models, labels and label sets that this server takes.

    root_path: prefix of its address; empty for none.
    """
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        license_info=app.license_info,
        servers=[{"url": root_path}] if root_path else None,
    )
    known: dict[str, dict[str, Any]] = {
        "model": {"enum": models.names},
        "labels": {"enum": models.label_sets},
        "label": {"enum": models.all_labels},
        "coverage": {"maximum": models.max_coverage},
    }
    for path in ("/predict", "/explain"):
        operation = schema["paths"][path]["post"]
        parameters = [each for each in operation["parameters"] if _is_answered(known.get(each["name"]))]
        operation["parameters"] = parameters
        for parameter in parameters:
            if parameter["name"] in known:
                [value, _] = parameter["schema"].pop("anyOf")  # the other is null, which no query can say
                parameter["schema"] |= value | known[parameter["name"]]
        form = operation["requestBody"]["content"][FORM]
        form["encoding"] = {FIELD: {"contentType": ", ".join(IMAGE_TYPES)}}
    return schema


def _is_answered(limits: dict[str, Any] | None) -> bool:
    """Return whether any model answers a parameter of which this is known."""
    return limits is None or any(limits.values())
