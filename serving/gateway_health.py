"""Endpoints for operators: health, version, metrics."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

from fastapi import APIRouter
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from schemas.records import SCHEMA_VERSION

from .gateway_http import answer
from .gateway_models import Live, Ready, Version
from .gateway_openapi import answers
from .gateway_state import GatewayOf

router = APIRouter(tags=["operations"])


@router.get("/health/live", responses=answers(Live, "The process answers"), summary="Liveness")
async def live() -> Response:
    """Answer, which is all that is asked."""
    return answer(Live())


_READY = answers(Ready, "Send requests here")
_READY[503] = {**answers(Ready, "Do not send requests here; reasons say why")[200]}


@router.get("/health/ready", responses=_READY, summary="Readiness")
async def ready(gateway: GatewayOf) -> Response:
    """Ready when the topic was read to its end and the broker answers.

    A worker that is away does not count: the lists that are known are served without it.
    """
    state = gateway.reader.state
    reasons: list[str] = []
    if not state.ready:
        reasons.append(f"recommendations: {state.reason}")
    if not await gateway.broker_answers():
        reasons.append("events: the broker does not answer, or its topic does not exist")
    found = Ready(
        status="not_ready" if reasons else "ready",
        reasons=reasons,
        users=state.users,
        lag_records=state.lag_records,
    )
    return answer(found, 503 if reasons else 200)


@router.get("/version", responses=answers(Version, "What runs here"), summary="Version")
async def version_() -> Response:
    """Distribution and contract version."""
    return answer(Version(name="reelflow", version=version("reelflow"), schema_version=SCHEMA_VERSION))


@router.get(
    "/metrics",
    responses={
        200: {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
    summary="Metrics",
)
async def metrics(gateway: GatewayOf) -> Response:
    """Prometheus exposition."""
    body = await asyncio.to_thread(generate_latest, gateway.metrics.registry)
    return Response(body, headers={"content-type": CONTENT_TYPE_LATEST, "cache-control": "no-store"})
