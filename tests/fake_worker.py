"""A small real HTTP server with the routes of the worker's own port, for the gateway's tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web


class FakeWorker:
    """Answers from plain attributes, which a test may change at any time.

    `status` other than 200 makes every route answer with that status; `body` replaces every
    answer by those bytes; `delay_s` holds every answer back.
    """

    def __init__(self) -> None:
        self.url = ""
        self.reset()

    def reset(self) -> None:
        """Know nothing and answer at once."""
        self.status = 200
        self.body: bytes | None = None
        self.delay_s = 0.0
        self.asked: list[str] = []
        self.users: dict[str, list[dict[str, Any]]] = {}
        self.similar: dict[str, list[tuple[str, float]]] = {}
        self.popular: list[tuple[str, float]] = []
        self.probabilities: dict[str, float] | None = None
        self.posted: list[Any] = []
        self.items: dict[str, dict[str, Any]] = {}
        self.stats: dict[str, Any] = {
            "events_per_s": 0.0,
            "events_learned": 0,
            "dead_letters": {},
            "users_with_snapshot": 0,
            "snapshots": 0,
            "event_to_snapshot_p50_s": None,
            "event_to_snapshot_p99_s": None,
            "hit_rate_10": {"reelflow": None, "popularity": None, "markov": None},
            "quality": {"reelflow": {"recall_20": None}},
            "quality_series": {"recall_20": []},
            "ready": True,
            "active_users": [],
            "n_items": 0,
            "n_users": 0,
            "device": "cpu",
            "a_field_of_a_later_version": 1,
        }

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._conditions])
        app.add_routes(
            [
                web.get("/stats", self._stats),
                web.get("/users/{user_id}", self._user),
                web.post("/users/{user_id}/score", self._score),
                web.get("/items/{item_id}/similar", self._similar),
                web.get("/items", self._items),
                web.get("/popular", self._popular),
            ]
        )
        return app

    @web.middleware
    async def _conditions(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        await asyncio.sleep(self.delay_s)
        if self.body is not None:
            return web.Response(body=self.body, status=self.status, content_type="application/json")
        if self.status != 200:
            return web.json_response({"error": "as the test wants it"}, status=self.status)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response(self.stats)

    async def _user(self, request: web.Request) -> web.Response:
        user_id = request.match_info["user_id"]
        recent = self.users.get(user_id)
        if recent is None:
            return web.json_response({"error": f"user {user_id} is not known"}, status=404)
        return web.json_response({"user_id": user_id, "recent": recent, "session": 1})

    async def _score(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.posted.append(asked)
        if self.probabilities is None:
            return web.json_response({"error": "no probabilities are learned here"}, status=404)
        rows = [
            {"item_id": item_id, "known": item_id in self.probabilities, "ranking": -0.5}
            | dict.fromkeys(("p_click", "p_completion", "p_like"), self.probabilities.get(item_id, 0.125))
            for item_id in asked["items"]
        ]
        return web.json_response({"user_id": request.match_info["user_id"], "known": True, "items": rows})

    async def _similar(self, request: web.Request) -> web.Response:
        item_id = request.match_info["item_id"]
        found = self.similar.get(item_id)
        if found is None:
            return web.json_response({"error": f"item {item_id} is not known"}, status=404)
        return web.json_response({"item_id": item_id, "items": _scored(found, request)})

    async def _items(self, request: web.Request) -> web.Response:
        ids = request.query.getall("id")
        return web.json_response({"items": {key: self.items[key] for key in ids if key in self.items}})

    async def _popular(self, request: web.Request) -> web.Response:
        return web.json_response({"items": _scored(self.popular, request)})


def _scored(pairs: list[tuple[str, float]], request: web.Request) -> list[dict[str, Any]]:
    limit = int(request.query["limit"])
    return [{"item_id": item_id, "score": score} for item_id, score in pairs[:limit]]


@contextmanager
def fake_worker() -> Iterator[FakeWorker]:
    """Run a `FakeWorker` on a free loopback port in a thread of its own."""
    worker = FakeWorker()
    listening = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(worker.app(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        worker.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        listening.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert listening.wait(10)
        yield worker
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
