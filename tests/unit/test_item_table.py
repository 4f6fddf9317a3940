"""A table of items that fills is told of, and a larger one takes over its state."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from schemas.codec import encode_event
from schemas.records import Event
from schemas.runs import RecordRun
from schemas.settings import KafkaSettings, LearnerSettings, RankerSettings, Settings
from schemas.topics import topic_names
from serving.metrics import WorkerMetrics
from streams.answers import Answers
from streams.audit import digests_of
from streams.core import WorkerCore
from streams.cut import restore
from streams.item_table import ItemTable
from streams.warm_up import NullSink

START_MS = 1_700_000_000_000
TOPIC = topic_names().behaviour


def _core(max_items: int, *, embeddings: bool = False) -> WorkerCore:
    settings = Settings(
        kafka=KafkaSettings(partitions=1),
        learner=LearnerSettings(embeddings=embeddings, dim=8, history=8, device="cpu", max_items=max_items),
        ranker=RankerSettings(list_size=5),
    )
    return WorkerCore(settings, NullSink(), WorkerMetrics(CollectorRegistry()), clock=lambda: START_MS / 1000)


def _run(items: range) -> RecordRun:
    """An event on each of `items`, at offsets of their own."""
    users = [f"u{item % 7}" for item in items]
    return RecordRun(
        topic=TOPIC, partition=0, keys=[user.encode() for user in users],
        values=[
            encode_event(
                Event(
                    event_id=f"e{item}", user_id=user, item_id=f"v{item}", type="watch", ts_ms=START_MS + item
                )
            )
            for item, user in zip(items, users, strict=True)
        ],
        offsets=np.arange(items.start, items.stop, dtype=np.int64),
        timestamps_ms=np.full(len(items), START_MS, dtype=np.int64),
        next_offset=items.stop,
    )  # fmt: skip


def test_each_level_is_told_once() -> None:
    table = ItemTable(50)
    told = []
    with capture_logs() as logs:
        for n_items in (10, 39, 40, 41, 44, 48, 49, 50, 50):
            table.tell(n_items)
            told.append(len(logs))
    assert told == [0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert [entry["level"] for entry in logs] == [0.8, 0.95, 1.0]
    assert [entry["log_level"] for entry in logs] == ["warning", "warning", "error"]


@pytest.mark.parametrize("embeddings", [False, True])
def test_a_larger_table_takes_over_the_state_of_a_full_one(embeddings: bool) -> None:
    """What an operator does: the setting raised, a restart, and the lost events sent again."""
    full = _core(50, embeddings=embeddings)
    full.assign(TOPIC, 0, start=0, committed=None, end=0)
    with capture_logs() as logs:
        full.apply([_run(range(80))])
    assert [entry["level"] for entry in logs if entry["event"] == "item_table_filling"] == [1.0]
    assert full.held.counts().dead == {"capacity": 30}
    Answers(full).refresh_gauges()
    assert full.metrics.item_slots._value.get() == 1.0
    cut = full.capture().cut()
    larger = _core(500, embeddings=embeddings)
    restore(larger, cut.sequence, cut.meta, cut.units)
    assert digests_of(larger) == digests_of(full)
    again = _run(range(50, 80))
    again.offsets += 30
    again.next_offset += 30
    larger.apply([again])
    assert larger.held.counts().applied == 80
    assert larger.held.counts().dead == {"capacity": 30}
    assert larger.model.popularity.n_learned == 80
    assert len(larger.model.items) == 80
    assert (larger.model.popularity.shares(0) > 0).all()
    larger.tick()
