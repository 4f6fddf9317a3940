"""OpenAPI whose schemas are generated from the msgspec structs that the endpoints encode."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from schemas.records import Event

from .gateway_models import ALL_MODELS, ErrorBody, ScoreRequest

_REF = "#/components/schemas/{name}"

_MEANING = {
    400: "The body is not JSON",
    404: "Not known",
    413: "The body is too large",
    415: "The body is not application/json",
    422: "A parameter or a field is not allowed",
    502: "The worker gave an answer that makes no sense",
    503: "Something that is needed does not answer, or there is no room; try again",
}


def ref(model: type[Any]) -> dict[str, str]:
    """Reference to a model's schema."""
    return {"$ref": _REF.format(name=model.__name__)}


def answers(model: type[Any], what: str, *errors: int, status: int = 200) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint: its model on success, `ErrorBody` with each error status."""
    described: dict[int | str, dict[str, Any]] = {
        status: {"description": what, "content": {"application/json": {"schema": ref(model)}}}
    }
    for error in errors:
        described[error] = {
            "description": _MEANING[error],
            "content": {"application/json": {"schema": ref(ErrorBody)}},
        }
    return described


def stream_of(model: type[Any], what: str, *errors: int) -> dict[int | str, dict[str, Any]]:
    """As `answers`, for server-sent events whose data is `model`."""
    described = answers(model, what, *errors)
    described[200]["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
    described[200]["description"] += f". Each event's data is a {model.__name__} as JSON."
    return described


EVENTS_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        ref(Event),
                        {"type": "array", "minItems": 1, "maxItems": 500, "items": ref(Event)},
                    ]
                }
            }
        },
    }
}


SCORE_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": ref(ScoreRequest)}}}
}


def describe(app: FastAPI) -> None:
    """Make `app` answer /openapi.json with the structs' schemas among its components."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            _, components = msgspec.json.schema_components((*ALL_MODELS, Event), ref_template=_REF)
            document.setdefault("components", {}).setdefault("schemas", {}).update(components)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this way of overriding
