"""The gateway: recommendations out, events in, over HTTP; and a page to look at it live.

It holds no state of its own but the reader's view, so any number of gateways may run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from schemas.settings import Settings

from . import gateway_content, gateway_events, gateway_health, gateway_lists, gateway_score
from .gateway_http import Observed, add_error_handlers
from .gateway_openapi import describe
from .gateway_state import Finder, Gateway

PAGE: Final = Path(__file__).parent / "page"


class _PageFiles(StaticFiles):
    """Files that a browser asks about each time, so that an upgrade is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """As the base class, with a cache header."""
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def create_app(
    settings: Settings,
    *,
    consumer: Mapping[str, Any],
    producer: Mapping[str, Any],
    acknowledge_s: float = 5.0,
    finder: Finder | None = None,
) -> FastAPI:
    """Build the gateway's application; its parts start and stop with the server's lifespan.

    Parameters
    ----------
    settings : Settings
        Sections kafka (topic prefix) and gateway are used.
    consumer : Mapping
        Keyword arguments for kafka-python consumers: bootstrap_servers and security.
    producer : Mapping
        confluent-kafka configuration with ``partitioner`` murmur2_random.
    acknowledge_s : float
        A posted event that the broker has not acknowledged by then is answered with 503.
    finder : Finder, optional
        Finds items by their content; it starts and stops with the gateway.

    Returns
    -------
    FastAPI
        Its ``state.gateway`` is the `Gateway`; ``state.gateway.streams.stop()`` ends the event
        streams, which a server must do before it waits for open connections.
    """
    gateway = Gateway(
        settings, consumer=consumer, producer=producer, acknowledge_s=acknowledge_s, finder=finder
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await gateway.open()
        try:
            yield
        finally:
            await gateway.close()

    app = FastAPI(
        title="reelflow gateway",
        version=version("reelflow"),
        description="Fresh recommendation lists out, behaviour events in.",
        lifespan=lifespan,
        # Both documentation pages load scripts from elsewhere, which the page's policy forbids.
        docs_url=None,
        redoc_url=None,
    )
    app.state.gateway = gateway
    for module in (gateway_lists, gateway_content, gateway_score, gateway_events, gateway_health):
        app.include_router(module.router)
    add_error_handlers(app)
    describe(app)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/page", _PageFiles(directory=PAGE), name="page")
    app.add_middleware(Observed, metrics=gateway.metrics)
    return app
