"""The endpoint that asks what is expected of items: probabilities of click, completion and like."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from .gateway_http import GatewayError, answer, json_body
from .gateway_models import Probabilities, ScoreRequest
from .gateway_openapi import SCORE_BODY, answers
from .gateway_state import GatewayOf, UserId

router = APIRouter(prefix="/v1", tags=["reading"])


@router.post(
    "/users/{user_id:path}/score",
    responses=answers(Probabilities, "In the order asked", 400, 404, 413, 415, 422, 502, 503),
    openapi_extra=SCORE_BODY,
    summary="Probabilities of items for a user",
)
async def score(user_id: UserId, request: Request, gateway: GatewayOf) -> Response:
    """Ask the worker, who learns them, about at most 500 items."""
    body = await json_body(request, gateway.settings.gateway.max_body_bytes)
    try:
        asked = msgspec.json.decode(body, type=ScoreRequest)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        field = where.rstrip("`").lstrip(".") or None
        raise GatewayError(422, message, field=field) from None
    except msgspec.DecodeError as error:
        raise GatewayError(400, f"the body is not JSON: {error}") from None
    found = await gateway.worker.score(user_id, asked)
    if found is None:
        raise GatewayError(
            404,
            "no probabilities are learned: learner.probabilities is off, or gateway.worker_url is a ranker's",
        )
    return answer(found)
