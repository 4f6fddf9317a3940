"""Endpoints that read: lists, similar items, recent events, catalogue facts, statistics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from schemas.errors import UnavailableError
from schemas.records import MAX_ID_CHARS, Reason, RecommendedItem, Snapshot

from .gateway_http import GatewayError, answer
from .gateway_models import (
    ErrorBody,
    Items,
    Recommendations,
    ScoredItem,
    SimilarItems,
    Stats,
    UserEvents,
    served,
)
from .gateway_openapi import answers, stream_of
from .gateway_state import Gateway, GatewayOf, ItemId, Limit, UserId
from .gateway_streams import EventStream, Mailbox, sse

_STATS_EVERY_S: Final = 1.0
_MAX_FACTS: Final = 100

router = APIRouter(prefix="/v1", tags=["reading"])

Ids = Annotated[
    list[Annotated[str, Query(min_length=1, max_length=MAX_ID_CHARS)]],
    Query(alias="id", min_length=1, max_length=_MAX_FACTS, description="item id; repeat for several"),
]


@router.get(
    "/users/{user_id:path}/recommendations",
    responses=answers(Recommendations, "The list", 422, 502, 503),
    summary="A user's list",
)
async def recommendations(user_id: UserId, gateway: GatewayOf, limit: Limit = 20) -> Response:
    """Answer with the newest snapshot; without one, with what is popular, and say so."""
    snapshot = gateway.reader.get(user_id)
    if snapshot is not None:
        found = served(snapshot, gateway.now_ms(), limit)
    else:
        found = await _popular_for(gateway, user_id, limit)
    gateway.metrics.lists.labels(found.freshness if snapshot is not None else "popular").inc()
    return answer(found)


async def _popular_for(gateway: Gateway, user_id: str, limit: int) -> Recommendations:
    try:
        popular = await gateway.worker.popular(limit)
    except UnavailableError as error:
        raise UnavailableError(f"no list is known for this user, and {error}") from None
    if not popular.items:
        raise UnavailableError("no list is known for this user, and nothing is popular yet")
    return Recommendations(
        snapshot_id=None,
        user_id=user_id,
        generated_at_ms=None,
        ttl_ms=None,
        knows=None,
        model=None,
        fallback="cold_user",
        items=[
            RecommendedItem(
                item_id=item.item_id,
                score=item.score,
                source="popularity",
                reasons=[Reason(kind="popular")],
            )
            for item in popular.items[:limit]
        ],
        freshness="none",
        age_ms=None,
    )


@router.get(
    "/users/{user_id:path}/snapshots",
    responses=stream_of(
        Recommendations, "Events named snapshot: the newest first, then each as it comes", 422, 503
    ),
    summary="A user's snapshots as they are published",
)
async def snapshots(user_id: UserId, gateway: GatewayOf) -> Response:
    """Follow a user's snapshots as server-sent events."""
    loop = asyncio.get_running_loop()

    @contextmanager
    def source(mailbox: Mailbox) -> Iterator[None]:
        def post(snapshot: Snapshot) -> None:
            mailbox.put(sse("snapshot", served(snapshot, gateway.now_ms())))

        def on_snapshot(snapshot: Snapshot) -> None:
            # Called by the reader's thread, which outlives the loop when that ends by force.
            if not loop.is_closed():
                loop.call_soon_threadsafe(post, snapshot)

        undo = gateway.reader.listen(user_id, on_snapshot)
        try:
            if (current := gateway.reader.get(user_id)) is not None:
                post(current)
            yield
        finally:
            undo()

    return EventStream(gateway.streams, source)


@router.get(
    "/users/{user_id:path}/events",
    responses=answers(UserEvents, "Newest first", 404, 422, 502, 503),
    summary="A user's newest events",
)
async def user_events(user_id: UserId, gateway: GatewayOf) -> Response:
    """Ask the worker, who holds the user's state."""
    found = await gateway.worker.user_events(user_id)
    if found is None:
        raise GatewayError(404, "the worker knows no event of this user", field="user_id")
    return answer(found)


@router.get(
    "/items/{item_id:path}/similar",
    responses=answers(SimilarItems, "Best first", 404, 422, 502, 503),
    summary="Items close to an item",
)
async def similar(item_id: ItemId, gateway: GatewayOf, limit: Limit = 20) -> Response:
    """Ask the worker, who holds the model; of an item without events, what is near it by its content."""
    found = await gateway.worker.similar(item_id, limit)
    if gateway.finder is not None and (found is None or not found.items):
        near = await asyncio.to_thread(gateway.finder.similar, item_id, limit)
        if near is not None:
            items = [ScoredItem(item_id=other, score=round(score, 6)) for other, score in near]
            return answer(SimilarItems(item_id=item_id, items=items))
    if found is None:
        raise GatewayError(404, "the worker does not know this item", field="item_id")
    return answer(found)


@router.get(
    "/items",
    responses=answers(Items, "By item id; unknown items are left out", 422, 502, 503),
    summary="What the catalogue says about items",
)
async def items(ids: Ids, gateway: GatewayOf) -> Response:
    """Titles, tags, categories and durations."""
    return answer(await gateway.worker.items(ids))


@router.get("/stats", responses=answers(Stats, "The worker's figures", 502, 503), summary="Statistics")
async def stats(gateway: GatewayOf) -> Response:
    """Ask the worker; at most once a second however many ask here."""
    return answer(await gateway.worker.stats())


@router.get(
    "/stats/stream",
    responses=stream_of(Stats, "Events named stats once a second; unavailable when the worker is not", 503),
    summary="Statistics once a second",
)
async def stats_stream(gateway: GatewayOf) -> Response:
    """Follow the worker's figures as server-sent events."""

    @contextmanager
    def source(mailbox: Mailbox) -> Iterator[None]:
        async def post() -> None:
            async for message in _figures(gateway):
                mailbox.put(message)

        task = asyncio.create_task(post())
        try:
            yield
        finally:
            task.cancel()

    return EventStream(gateway.streams, source)


async def _figures(gateway: Gateway) -> AsyncIterator[bytes]:
    while True:
        try:
            yield sse("stats", await gateway.worker.stats())
        except UnavailableError as error:
            yield sse("unavailable", ErrorBody(error=str(error)))
        except GatewayError as error:
            yield sse("unavailable", error.body)
        await asyncio.sleep(_STATS_EVERY_S)
