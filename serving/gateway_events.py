"""The endpoint that writes: events in, acknowledged by the broker before the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from schemas.errors import ContractError, UnavailableError

from .events_in import Refused, Stored, parse_events
from .gateway_http import GatewayError, answer, json_body
from .gateway_models import EventResult, EventsAccepted
from .gateway_openapi import EVENTS_BODY, answers
from .gateway_state import GatewayOf

# A body of which nothing can be said but that it is not JSON; the rest is a matter of fields.
_NO_JSON: Final = frozenset({"not_json", "not_utf8", "not_an_object"})

router = APIRouter(prefix="/v1", tags=["writing"])


@router.post(
    "/events",
    status_code=202,
    responses=answers(
        EventsAccepted, "Every event is stored by the broker", 400, 413, 415, 422, 503, status=202
    ),
    openapi_extra=EVENTS_BODY,
    summary="Post one event, or a list of at most 500",
)
async def post_events(request: Request, gateway: GatewayOf) -> Response:
    """Validate all events, then produce all of them; one that breaks the contract stops them all."""
    body = await json_body(request, gateway.settings.gateway.max_body_bytes)
    outcomes = gateway.metrics.events
    try:
        events, refused = parse_events(body)
    except ContractError as error:
        outcomes.labels("refused").inc()
        status = 400 if error.reason in _NO_JSON else 422
        raise GatewayError(status, str(error), field=error.field, reason=error.reason) from None
    if refused:
        outcomes.labels("refused").inc(len(refused))
        raise _refusal(refused, n_events=len(refused) + len(events))
    try:
        stored = await gateway.events.send(events)
    except UnavailableError:
        outcomes.labels("failed").inc(len(events))
        raise
    failed = [result for result in stored if result.error is not None]
    outcomes.labels("failed").inc(len(failed))
    outcomes.labels("stored").inc(len(stored) - len(failed))
    results = [_result(index, result) for index, result in enumerate(stored)]
    if any(result.too_large for result in failed):
        raise GatewayError(
            413,
            f"{len(failed)} of {len(stored)} events were not stored: larger than the broker takes",
            results=results,
        )
    if failed:
        raise GatewayError(
            503,
            f"{len(failed)} of {len(stored)} events were not stored: {failed[0].error}; "
            "send them again unchanged",
            results=results,
        )
    return answer(EventsAccepted(results=results), 202)


def _refusal(refused: Sequence[Refused], *, n_events: int) -> GatewayError:
    first = refused[0]
    by_index = {event.index: event for event in refused}
    results = [
        EventResult(index=index, status="refused", error=bad.error, field=bad.field, reason=bad.reason)
        if (bad := by_index.get(index)) is not None
        else EventResult(index=index, status="not_sent")
        for index in range(n_events)
    ]
    if n_events == 1:
        status = 400 if first.reason in _NO_JSON else 422
        return GatewayError(status, first.error, field=first.field, reason=first.reason, results=results)
    return GatewayError(
        422,
        f"event {first.index}: {first.error} ({len(refused)} of {n_events} refused, none stored)",
        field=first.field,
        reason=first.reason,
        results=results,
    )


def _result(index: int, stored: Stored) -> EventResult:
    return EventResult(
        index=index,
        status="stored" if stored.error is None else "failed",
        event_id=stored.event_id,
        partition=stored.partition,
        offset=stored.offset,
        error=stored.error,
    )
