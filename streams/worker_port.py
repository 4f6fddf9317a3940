"""The worker's own HTTP port: metrics, health, and questions only the holder of the state can answer.

Loopback by default. The gateway stands in front of it for everyone else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from schemas.errors import ConfigurationError
from serving.gateway_models import ScoreRequest

from .learner_thread import LearnerThread

log = structlog.get_logger(__name__)

MAX_LIMIT = 500
MAX_IDS = 500
MAX_STEPS = 10
DIGEST_TIMEOUT_S = 60.0


class Telling(Protocol):
    """What a role tells of itself, as `streams.answers.Answers`; None for what it does not know."""

    @property
    def registry(self) -> CollectorRegistry:
        """Where the metrics live."""

    def version(self) -> dict[str, str]:
        """Distribution version."""

    def readiness(self) -> dict[str, Any]:
        """Whether the role does its work."""

    def refresh_gauges(self) -> None:
        """Set the gauges that are read rather than counted."""

    def stats(self) -> dict[str, Any]:
        """The role's figures."""

    def digest(self) -> dict[str, Any]:
        """Hashes of the state."""

    def user(self, user_id: str) -> dict[str, Any] | None:
        """A user's newest events."""

    def score(self, user_id: str, asked: ScoreRequest) -> dict[str, Any] | None:
        """What is expected of items if they are shown to a user."""

    def items(self, item_ids: list[str]) -> dict[str, Any]:
        """Catalogue facts of items."""

    def next_tags(self, tag: str, steps: int) -> dict[str, Any] | None:
        """What is watched after items with a tag."""

    def similar(self, item_id: str, limit: int) -> dict[str, Any] | None:
        """Items near an item."""

    def popular(self, limit: int) -> dict[str, Any]:
        """What is popular now."""


class WorkerPort:
    """Serves what a role tells, each asked on the learner thread between batches."""

    def __init__(self, answers: Telling, thread: LearnerThread, *, host: str, port: int) -> None:
        self._answers = answers
        self._thread = thread
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen; returns the port (the one chosen when 0 was asked for).

        Raises
        ------
        ConfigurationError
            When the port is taken or the host is not ours.
        """
        app = web.Application(middlewares=[_errors])
        app.add_routes(
            [
                web.get("/health/live", self._live),
                web.get("/health/ready", self._ready),
                web.get("/version", self._version),
                web.get("/metrics", self._metrics),
                web.get("/stats", self._stats),
                web.get("/digest", self._digest),
                web.get("/users/{user_id}", self._user),
                web.post("/users/{user_id}/score", self._score),
                web.get("/items", self._items),
                web.get("/items/{item_id}/similar", self._similar),
                web.get("/popular", self._popular),
                web.get("/tags/{tag}/next", self._next_tags),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigurationError(
                "worker.port", f"cannot listen on {self._host}:{self._port}: {error.strerror}"
            ) from None
        port = int(self._runner.addresses[0][1])
        log.info("worker_port_open", host=self._host, port=port)
        return port

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _live(self, _: web.Request) -> web.Response:
        alive = self._thread.alive
        return _json({"live": alive}, status=200 if alive else 503)

    async def _ready(self, _: web.Request) -> web.Response:
        state = self._answers.readiness()
        return _json(state, status=200 if state["ready"] else 503)

    async def _version(self, _: web.Request) -> web.Response:
        return _json(self._answers.version())

    async def _metrics(self, _: web.Request) -> web.Response:
        await self._thread.look(self._answers.refresh_gauges)
        body = await asyncio.to_thread(generate_latest, self._answers.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _stats(self, _: web.Request) -> web.Response:
        return _json(await self._thread.look(self._answers.stats))

    async def _digest(self, _: web.Request) -> web.Response:
        return _json(await self._thread.ask(self._answers.digest, DIGEST_TIMEOUT_S))

    async def _user(self, request: web.Request) -> web.Response:
        user_id = request.match_info["user_id"]
        return _found(
            await self._thread.look(lambda: self._answers.user(user_id)), f"user {user_id} is not known"
        )

    async def _score(self, request: web.Request) -> web.Response:
        user_id = request.match_info["user_id"]
        try:
            asked = msgspec.json.decode(await request.read(), type=ScoreRequest)
        except msgspec.MsgspecError as error:
            raise web.HTTPUnprocessableEntity(reason=str(error).replace("\n", " ")) from None
        found = await self._thread.look(lambda: self._answers.score(user_id, asked))
        return _found(
            found, "no probabilities are learned here: learner.probabilities is off, or this is a ranker"
        )

    async def _items(self, request: web.Request) -> web.Response:
        ids = [item_id for item_id in request.query.getall("id", []) if item_id][:MAX_IDS]
        return _json(await self._thread.look(lambda: self._answers.items(ids)))

    async def _similar(self, request: web.Request) -> web.Response:
        item_id, limit = request.match_info["item_id"], _limit(request)
        found = await self._thread.look(lambda: self._answers.similar(item_id, limit))
        return _found(found, f"item {item_id} is not known")

    async def _next_tags(self, request: web.Request) -> web.Response:
        tag, steps = request.match_info["tag"], _number(request, "steps", 1, MAX_STEPS)
        found = await self._thread.look(lambda: self._answers.next_tags(tag, steps))
        return _found(found, f"tag {tag} is not known")

    async def _popular(self, request: web.Request) -> web.Response:
        limit = _limit(request)
        return _json(await self._thread.look(lambda: self._answers.popular(limit)))


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except TimeoutError:
        return _json({"error": "the learner is too busy to answer; try again"}, status=503)
    except web.HTTPException as error:
        return _json({"error": error.reason}, status=error.status)


def _limit(request: web.Request) -> int:
    return _number(request, "limit", 20, MAX_LIMIT)


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > len(str(most)) or not 1 <= int(text) <= most:
        raise web.HTTPUnprocessableEntity(reason=f"{name} must be a whole number from 1 to {most}")
    return int(text)


def _found(value: Any | None, message: str) -> web.Response:
    return _json({"error": message}, status=404) if value is None else _json(value)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
