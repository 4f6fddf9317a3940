"""What the endpoints share: the parts of one running gateway, and how a request gets at them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final, Protocol

from fastapi import Depends, Path, Query, Request

from schemas.records import MAX_ID_CHARS, MAX_LIST
from schemas.settings import Settings
from schemas.topics import topic_names

from .events_in import EventsIn
from .gateway_metrics import GatewayMetrics
from .gateway_streams import Streams
from .gateway_worker import WorkerClient
from .reader import RecommendationsReader

_BROKER_CHECK_KEPT_S: Final = 1.0


class Finder(Protocol):
    """Finds items by their content; from any thread."""

    def start(self) -> None:
        """Begin to learn what items are."""

    def close(self) -> None:
        """End it."""

    def similar(self, item_id: str, limit: int) -> list[tuple[str, float]] | None:
        """Items near an item, and how near; None for one that is not known."""

    def search(self, query: str, limit: int) -> list[tuple[str, float]]:
        """Items near a text."""


class Gateway:
    """The parts of one gateway; `open` and `close` frame its life inside the event loop.

    Parameters
    ----------
    settings : Settings
    consumer : Mapping
        Keyword arguments for kafka-python consumers.
    producer : Mapping
        Configuration of the confluent-kafka producer.
    acknowledge_s : float
        How long a posted event may take to be acknowledged.
    finder : Finder, optional
        Without one nothing is found by content.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        consumer: Mapping[str, Any],
        producer: Mapping[str, Any],
        acknowledge_s: float = 5.0,
        finder: Finder | None = None,
    ) -> None:
        self.finder = finder
        names = topic_names(settings.kafka.prefix)
        self.settings = settings
        self.metrics = GatewayMetrics()
        self.reader = RecommendationsReader(
            consumer, names.recommendations, max_users=settings.gateway.max_users
        )
        self.worker = WorkerClient(settings.gateway.worker_url)
        self.streams = Streams(settings.gateway.max_streams, self.metrics)
        self._producer_config = producer
        self._behaviour = names.behaviour
        self._acknowledge_s = acknowledge_s
        self._events: EventsIn | None = None
        self._broker_answers = False
        self._broker_asked_at = -_BROKER_CHECK_KEPT_S
        self.metrics.watch(self.reader)

    @property
    def events(self) -> EventsIn:
        """Where posted events go."""
        if self._events is None:
            raise RuntimeError("the gateway is not open")
        return self._events

    async def open(self) -> None:
        """Start the reader, the producer and the worker's client."""
        self._events = EventsIn(self._producer_config, self._behaviour, timeout_s=self._acknowledge_s)
        await self.worker.open()
        self.reader.start()
        if self.finder is not None:
            self.finder.start()

    async def close(self) -> None:
        """Stop them; streams end first."""
        self.streams.stop()
        await self.worker.close()
        if self.finder is not None:
            await asyncio.to_thread(self.finder.close)
        await asyncio.to_thread(self.reader.close)
        await asyncio.to_thread(self.events.close)

    async def broker_answers(self) -> bool:
        """Whether the broker answers; asked at most once a second."""
        if time.monotonic() - self._broker_asked_at >= _BROKER_CHECK_KEPT_S:
            self._broker_answers = await self.events.broker_answers()
            self._broker_asked_at = time.monotonic()
        return self._broker_answers

    @staticmethod
    def now_ms() -> int:
        """Wall clock, milliseconds since 1970."""
        return time.time_ns() // 1_000_000


def gateway_of(request: Request) -> Gateway:
    """The gateway that serves this request."""
    found: Gateway = request.app.state.gateway
    return found


GatewayOf = Annotated[Gateway, Depends(gateway_of)]
UserId = Annotated[str, Path(min_length=1, max_length=MAX_ID_CHARS, description="user id")]
ItemId = Annotated[str, Path(min_length=1, max_length=MAX_ID_CHARS, description="item id")]
Limit = Annotated[int, Query(ge=1, le=MAX_LIST, description="how many items at most")]
