"""Recorded events as the columns that `learners.prequential` plays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from learners.prequential import Stream
from learners.signals import DEFAULT_SIGNALS, interest_weights
from schemas.codec import decode_event
from schemas.records import EVENT_TYPES, SURFACES, Event
from schemas.runs import Int64

from ..sources.source import Source, TableSource

WATCH: Final = EVENT_TYPES.index("watch")
_TYPES: Final = {name: i for i, name in enumerate(EVENT_TYPES)}
_SURFACES: Final = {name: i for i, name in enumerate(SURFACES)}
STEP_MS: Final = 86_400
"""Time between the events of a data set without times: a thousand of them are a day."""


def events_of(source: Source) -> Iterable[Event]:
    """Events of a source; 2 microseconds each."""
    if isinstance(source, TableSource):
        return source.decoded()
    return (
        decode_event(record.value) for record in source.events() if record.kind == "event" and record.value
    )


def stream_of(name: str, events: Iterable[Event], is_prior: Callable[[Event], bool]) -> Stream:
    """Columns of events in the order given; targets are the watches that are not prior.

    Slots are given out as users and items are first met. 3 microseconds an event.
    """
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    rows = [
        (
            users.setdefault(event.user_id, len(users)),
            items.setdefault(event.item_id, len(items)),
            _TYPES[event.type],
            event.ts_ms,
            -1 if event.watch_ms is None else event.watch_ms,
            -1 if event.duration_ms is None else event.duration_ms,
            -1 if event.surface is None else _SURFACES[event.surface],
            -1 if event.autoplay is None else event.autoplay,
            -1 if event.gift_value is None else int(event.gift_value),
            is_prior(event),
        )
        for event in events
    ]
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 10)
    types = table[:, 2].astype(np.int8)
    watch_ms, duration_ms = np.ascontiguousarray(table[:, 4]), np.ascontiguousarray(table[:, 5])
    surfaces, autoplay = table[:, 6].astype(np.int8), table[:, 7].astype(np.int8)
    gift_values = np.ascontiguousarray(table[:, 8])
    known = (watch_ms >= 0) & (duration_ms > 0)
    share = np.where(known, np.minimum(watch_ms / np.maximum(duration_ms, 1), 1.0), np.nan)
    return Stream(
        name=name,
        users=table[:, 0].astype(np.int32),
        items=table[:, 1].astype(np.int32),
        types=types,
        ts_ms=np.ascontiguousarray(table[:, 3]),
        weight=interest_weights(
            DEFAULT_SIGNALS,
            types,
            watch_ms,
            duration_ms,
            surfaces,
            autoplay,
            gift_values,
        ),
        target=(types == WATCH) & (table[:, 9] == 0),
        watch_share=share.astype(np.float32),
        n_users=len(users),
        n_items=len(items),
    )


def stream_of_visits(name: str, users: Int64, items: Int64) -> Stream:
    """Columns of visits that have an order but no times: every one is a target of weight 1."""
    n = len(users)
    user_slots, item_slots = slots_of(users), slots_of(items)
    return Stream(
        name=name,
        users=user_slots.astype(np.int32),
        items=item_slots.astype(np.int32),
        types=np.full(n, WATCH, dtype=np.int8),
        ts_ms=np.arange(n, dtype=np.int64) * STEP_MS,
        weight=np.ones(n, dtype=np.float32),
        target=np.ones(n, dtype=np.bool_),
        watch_share=np.full(n, np.nan, dtype=np.float32),
        n_users=int(user_slots.max(initial=-1)) + 1,
        n_items=int(item_slots.max(initial=-1)) + 1,
    )


def slots_of(ids: Int64) -> Int64:
    """Slots from 0 in the order in which ids are first met."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    slots = np.empty(len(first), dtype=np.int64)
    slots[np.argsort(first)] = np.arange(len(first))
    return slots[inverse]
