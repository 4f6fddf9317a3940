"""Questions to the worker's own port: bounded in time, answers checked against their model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from schemas.errors import UnavailableError

from .gateway_http import GatewayError
from .gateway_models import (
    ItemFacts,
    Items,
    PopularItems,
    Probabilities,
    ScoreRequest,
    SimilarItems,
    Stats,
    UserEvents,
)

T = TypeVar("T")

_TIMEOUT_S: Final = 2.0
_STATS_KEPT_S: Final = 0.8
_JSON: Final = {"content-type": "application/json"}


class _WorkerError(Struct):
    error: str = "no message"


class WorkerClient:
    """Client of the worker's port; open and close it inside the event loop.

    Every method raises UnavailableError when the worker does not answer in time, and
    GatewayError 502 when its answer is not what it should be.
    """

    def __init__(self, base_url: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        self.base_url = base_url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._stats_lock = asyncio.Lock()
        self._stats: Stats | None = None
        self._stats_at = 0.0

    async def open(self) -> None:
        """Make the session."""
        self._session = aiohttp.ClientSession(timeout=self._timeout)

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def stats(self) -> Stats:
        """The worker's figures, asked for at most about once a second however many want them."""
        async with self._stats_lock:
            if self._stats is None or time.monotonic() - self._stats_at > _STATS_KEPT_S:
                self._stats = None
                self._stats = _needed(await self._get(("stats",), Stats))
                self._stats_at = time.monotonic()
            return self._stats

    async def user_events(self, user_id: str) -> UserEvents | None:
        """A user's newest events; None for a user that the worker does not know."""
        return await self._get(("users", user_id), UserEvents)

    async def similar(self, item_id: str, limit: int) -> SimilarItems | None:
        """Items close to an item; None for an item that the worker does not know."""
        return await self._get(("items", item_id, "similar"), SimilarItems, {"limit": str(limit)})

    async def score(self, user_id: str, asked: ScoreRequest) -> Probabilities | None:
        """What is expected of items if they are shown to a user; None where nobody learns it."""
        return await self._get(("users", user_id, "score"), Probabilities, body=msgspec.json.encode(asked))

    async def popular(self, limit: int) -> PopularItems:
        """What is popular now."""
        return _needed(await self._get(("popular",), PopularItems, {"limit": str(limit)}))

    async def items(self, item_ids: Sequence[str]) -> Items:
        """Catalogue facts of the items that the worker knows."""
        if not item_ids:
            return Items(items={})
        found = _needed(await self._get(("items",), Items, {"id": list(item_ids)}))
        facts: dict[str, ItemFacts] = {key: found.items[key] for key in item_ids if key in found.items}
        return Items(items=facts)

    async def _get(
        self,
        path: Sequence[str],
        kind: type[T],
        params: Mapping[str, str | list[str]] | None = None,
        body: bytes | None = None,
    ) -> T | None:
        """Ask with GET, or with a JSON `body` with POST."""
        if self._session is None:
            raise RuntimeError("the worker client is not open")
        # Quoted by hand: an id may hold slashes, which must stay one segment.
        url = URL(self.base_url + "".join("/" + quote(part, safe="") for part in path), encoded=True)
        if params:
            url = url.with_query(params)
        try:
            method = "GET" if body is None else "POST"
            async with self._session.request(method, url, data=body, headers=_JSON) as response:
                status, body = response.status, await response.read()
        except TimeoutError:
            raise UnavailableError(
                f"the worker at {self.base_url} did not answer in {self._timeout.total:g} s"
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise UnavailableError(
                f"the worker at {self.base_url} does not answer: {error.os_error.strerror or error.os_error}"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise UnavailableError(f"the worker at {self.base_url} does not answer: {error}") from None
        if status == 404:
            return None
        if status == 503:
            raise UnavailableError(f"the worker at {self.base_url} is busy: {_message(body)}")
        if status != 200:
            raise GatewayError(502, f"the worker at {self.base_url} answered {status}: {_message(body)}")
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise GatewayError(
                502, f"the worker's answer to {url.path} is not as expected: {error}"
            ) from None


def _needed(value: T | None) -> T:
    if value is None:
        raise GatewayError(502, "the worker does not know this question; is it another version?")
    return value


def _message(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_WorkerError).error[:200]
    except msgspec.MsgspecError:
        return "no message"
