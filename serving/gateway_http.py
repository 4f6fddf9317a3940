"""What every endpoint shares: JSON answers, errors of one shape, headers, request metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import UnavailableError

from .gateway_metrics import GatewayMetrics
from .gateway_models import ErrorBody, EventResult

log = structlog.get_logger(__name__)

SECURITY_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
RETRY_AFTER_S: Final = "1"


class GatewayError(Exception):
    """An answer other than 2xx: ends the request, is no fault of the program."""

    def __init__(
        self,
        status: int,
        error: str,
        *,
        field: str | None = None,
        reason: str | None = None,
        results: list[EventResult] | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.body = ErrorBody(error=error, field=field, reason=reason, results=results)


def answer(value: Any, status: int = 200) -> Response:
    """`value` as JSON."""
    return Response(
        msgspec.json.encode(value),
        status_code=status,
        media_type="application/json",
        headers={"cache-control": "no-store"} | ({"retry-after": RETRY_AFTER_S} if status == 503 else {}),
    )


async def json_body(request: Request, limit: int) -> bytes:
    """The body of a request that says it is JSON.

    Raises
    ------
    GatewayError
        415 where it does not say so (no foreign page can, without asking first), 413 beyond `limit` bytes.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise GatewayError(415, f"the content type must be application/json, not {content_type or 'absent'}")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise GatewayError(413, f"the body has {declared} bytes; at most {limit} are taken")
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise GatewayError(413, f"the body is larger than {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def add_error_handlers(app: FastAPI) -> None:
    """Give every error the shape of `ErrorBody`."""

    def gateway_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)  # noqa: S101  (registered for this class only)
        return answer(error.body, error.status)

    def unavailable(_: Request, error: Exception) -> Response:
        return answer(ErrorBody(error=str(error)), 503)

    def bad_parameter(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101  (registered for this class only)
        return answer(_explained(error.errors()), 422)

    def http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  (registered for this class only)
        return answer(ErrorBody(error=str(error.detail)), error.status_code)

    def fault(_: Request, error: Exception) -> Response:
        log.error("request_failed", error=repr(error))
        return answer(ErrorBody(error="the gateway failed; its log says why"), 500)

    app.add_exception_handler(GatewayError, gateway_error)
    app.add_exception_handler(UnavailableError, unavailable)
    app.add_exception_handler(RequestValidationError, bad_parameter)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, fault)


def _explained(errors: Sequence[Any]) -> ErrorBody:
    first = errors[0]
    field = str(first["loc"][-1])
    return ErrorBody(error=f"{field}: {first['msg']}", field=field)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""A label of the client's own choosing would make series without end."""


class Observed:
    """ASGI middleware: security headers on every answer, a count and a duration for each.

    Durations run to the first byte of the answer, so that streams are comparable.
    """

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; act on what is sent back."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def observed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
                route = getattr(scope.get("route"), "path", None) or "other"
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._metrics.requests.labels(route, method, str(message["status"])).inc()
                self._metrics.request_seconds.labels(route).observe(time.perf_counter() - begun)
            await send(message)

        await self.app(scope, receive, observed_send)
