"""Runs every kernel once on made-up events, so that none is compiled while partitions are held.

The first start on a machine compiles for up to a minute; later starts load the cache.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry

from schemas.codec import encode_event, encode_item
from schemas.hashing import partition_of
from schemas.learner import Interactions
from schemas.records import EVENT_TYPES, Event, Item, Surface
from schemas.runs import RecordRun
from schemas.settings import Settings
from serving.metrics import WorkerMetrics

from .core import WorkerCore
from .record_opening import compile_reader
from .sinks import Delivered, Headers

N_USERS = 40
N_ITEMS = 60
N_EVENTS = 600


class NullSink:
    """Takes everything and acknowledges it at once."""

    def send(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        delivered: Delivered,
        *,
        partition: int | None = None,
        headers: Sequence[Headers] | None = None,
    ) -> None:
        """Acknowledge the batch."""
        delivered(len(keys), 0)

    def poll(self) -> None:
        """Nothing waits."""

    def flush(self, timeout_s: float) -> int:
        """Nothing is in flight."""
        return 0


def warm_up(settings: Settings) -> float:
    """Fold, learn, rank and publish on a scratch core; returns seconds. The caller's state is untouched."""
    started = time.perf_counter()
    compile_reader()
    scratch = msgspec.structs.replace(
        settings,
        kafka=msgspec.structs.replace(settings.kafka, partitions=1),
        worker=msgspec.structs.replace(settings.worker, refresh_interval_ms=0, dedup_window=1_024),
    )
    core = WorkerCore(scratch, NullSink(), WorkerMetrics(CollectorRegistry()))
    core.assign(core.names.catalogue, 0, start=0, committed=None, end=0)
    core.assign(core.names.behaviour, 0, start=0, committed=None, end=0)
    now_ms = int(time.time() * 1000)
    surfaces: tuple[Surface, ...] = ("live", "tv", "short_video")
    items = [
        Item(item_id=f"v{i}", tags=[f"t{i % 5}"], surface=surfaces[min(i // 4, 2)]) for i in range(N_ITEMS)
    ]
    core.apply([_run(core.names.catalogue, [(item.item_id, encode_item(item)) for item in items], 0, now_ms)])
    offset = 0
    for size in (1, N_EVENTS, 7):  # one alone, many, few: the shapes that kernels see
        records = []
        for i in range(offset, offset + size):
            event = Event(
                event_id=f"e{i}",
                user_id=f"u{i % N_USERS}",
                item_id=f"v{(i * i) % N_ITEMS}",
                type=EVENT_TYPES[i % 5] if i % 3 else "watch",
                ts_ms=now_ms + i,
                watch_ms=9_000,
                duration_ms=10_000,
            )
            records.append((event.user_id, encode_event(event)))
        records.append(("u0", b"not json"))
        core.apply([_run(core.names.behaviour, records, offset, now_ms)])
        core.tick()
        core.capture(reuse=True)
        offset += len(records)
    if core.model.embeddings is not None:
        _refit()
    core.model.ranker.similar_items(0, 10)
    core.model.popular(10, core.unavailable())
    if core.model.probability is not None:
        core.model.probability.scores(np.zeros(2, dtype=np.int32), np.zeros(2, dtype=np.int32), now_ms)
    partition_of(b"u0", 1)
    core.close()
    return time.perf_counter() - started


def _refit() -> None:
    """A refit of EASE from beginning to end; the events above are too few for one."""
    from learners.ease import FIRST_FIT, Ease

    n = FIRST_FIT
    zeros = np.zeros(n, dtype=np.int64)
    items = (np.arange(n) % N_ITEMS).astype(np.int32)
    Ease().learn_many(
        Interactions(
            users=zeros.astype(np.int32),
            items=items,
            types=zeros.astype(np.int8),
            ts_ms=zeros,
            weight=np.ones(n, dtype=np.float32),
            history=np.roll(items, 1)[:, None].copy(),
            fresh=np.ones(n, dtype=np.bool_),
            gap_ms=zeros,
        )
    )


def _run(topic: str, records: list[tuple[str, bytes]], offset: int, now_ms: int) -> RecordRun:
    n = len(records)
    return RecordRun(
        topic=topic,
        partition=0,
        keys=[key.encode() for key, _ in records],
        values=[value for _, value in records],
        offsets=np.arange(offset, offset + n, dtype=np.int64),
        timestamps_ms=np.full(n, now_ms, dtype=np.int64),
        next_offset=offset + n,
    )
