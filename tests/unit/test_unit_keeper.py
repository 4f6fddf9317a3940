"""A ranker's partitions on a store: written, handed over, and refused to whoever lost them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from schemas.codec import encode_event
from schemas.errors import FencedError, OwnedError, StateError, StoreError
from schemas.hashing import partition_of
from schemas.interning import Interner
from schemas.records import Event
from schemas.settings import KafkaSettings, LearnerSettings, Settings, WorkerSettings
from schemas.topics import topic_names
from serving.metrics import WorkerMetrics
from streams.checkpoint.owners import Owner
from streams.intake import Intake
from streams.partition import Holdings
from streams.ranker_model import LocalNames
from streams.unit import CapturedUnit, capture_unit, read_unit, restore_unit
from streams.unit_keeper import UnitKeeper
from tests.simulation.test_rankers import START_MS, run_of
from tests.stores import FaultyStore

SETTINGS = Settings(
    kafka=KafkaSettings(partitions=2),
    worker=WorkerSettings(dedup_window=4_096),
    learner=LearnerSettings(embeddings=False, history=8, seen=8),
)
TOPIC = topic_names().behaviour
PARTITION = partition_of(b"u0", 2)


class Process:
    """A ranker's keeper, with what it holds of one partition."""

    def __init__(self, store: FaultyStore, pid: int) -> None:
        self.errors: list[BaseException] = []
        self.metrics = WorkerMetrics(CollectorRegistry())
        owner = Owner(host="elsewhere", pid=pid, started="", role="ranker")
        self.now_s, self.step_s = 0.0, 0.001
        self.keeper = UnitKeeper(
            store, owner=owner, interval_s=1.0, kept=2, metrics=self.metrics,
            on_failure=self.errors.append, monotonic=self.monotonic,
        )  # fmt: skip
        self.items = Interner([f"other{pid}"])  # item slots differ between processes
        self.held = Holdings(SETTINGS)

    def monotonic(self) -> float:
        self.now_s += self.step_s
        return self.now_s

    def take(self) -> None:
        tenure = self.keeper.claim(PARTITION, threading.Event())
        part = self.held.begin(PARTITION, 0)
        position = -1
        if tenure.base is not None:
            unit = read_unit(tenure.base.meta, tenure.base.units, TOPIC, PARTITION, SETTINGS)
            restore_unit(unit, self.items.get_many(unit.item_ids), part)
            part.counts = unit.counts
            position = unit.position
        self.keeper.hold(PARTITION, tenure, position)

    def fold(self, n: int) -> None:
        part = self.held.partitions[PARTITION]
        start = part.next_offset
        records = [
            (
                b"u0",
                encode_event(
                    Event(event_id=f"e{i}", user_id="u0", item_id=f"v{i % 5}", type="watch", ts_ms=START_MS)
                ),
                START_MS,
            )
            for i in range(start, start + n)
        ]
        names = LocalNames(self.items, Interner(), has_user_rows=False)
        Intake(SETTINGS, names, self.held, None, self.metrics).fold(run_of(PARTITION, start, records), 1)

    def capture(self) -> CapturedUnit:
        part = self.held.partitions[PARTITION]
        return capture_unit(
            part, part.outbox.owed(), self.items.ids, topic=TOPIC, catalogue_position=3, settings=SETTINGS
        )

    def digest(self) -> str:
        return self.held.partitions[PARTITION].state.digest(self.items.ids)

    def drain(self) -> None:
        """Let the keeper's thread do what waits."""
        self.keeper._jobs.put(None)
        self.keeper._run()


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def start(store: FaultyStore) -> Callable[[int], Process]:
    return lambda pid: Process(store, pid)


def test_a_released_partition_goes_on_elsewhere_as_it_was(start: Callable[[int], Process]) -> None:
    one, other = start(1), start(2)
    one.take()
    one.fold(7)
    one.keeper.take(one.capture())
    one.drain()
    assert one.keeper.positions() == {PARTITION: 7}
    one.fold(4)
    one.keeper.release(PARTITION, one.capture())
    one.drain()
    began_s = other.now_s
    other.take()
    assert other.now_s - began_s < 1  # nobody had to be waited for
    assert other.keeper.positions() == {PARTITION: 11}
    assert other.digest() == one.digest()
    assert other.held.counts() == one.held.counts()
    one.fold(3)
    other.fold(3)
    assert other.digest() == one.digest()
    assert not one.errors


def test_an_owner_that_does_not_yield_is_fenced(start: Callable[[int], Process]) -> None:
    one, other = start(1), start(2)
    one.take()
    one.fold(7)
    one.keeper.take(one.capture())
    one.drain()
    cancelled = threading.Event()
    cancelled.set()  # a rebalance took the partition from the other one before it was yielded
    with pytest.raises(OwnedError):
        other.keeper.claim(PARTITION, cancelled)
    one.now_s += 10
    one.keeper.before_send(0, None)
    other.step_s = 10.0  # waited for too long
    other.keeper.hold(PARTITION, other.keeper.claim(PARTITION, threading.Event()), 7)
    one.fold(2)
    one.keeper.take(one.capture())
    one.drain()
    assert [type(error) for error in one.errors] == [FencedError]
    with pytest.raises(FencedError):
        one.keeper.before_send(0, None)  # it drains, and tells nothing
    one.keeper.release(PARTITION, one.capture())
    one.drain()
    assert len(one.errors) == 1  # what it let go may be another's


def test_a_process_that_was_stopped_looks_before_it_tells(start: Callable[[int], Process]) -> None:
    one, other = start(1), start(2)
    one.take()
    one.keeper.before_send(0, None)
    other.step_s = 10.0  # waited for too long
    other.keeper.claim(PARTITION, threading.Event())
    one.now_s += 10
    with pytest.raises(FencedError):
        one.keeper.before_send(0, None)


def test_a_store_that_fails_costs_nothing_but_time(
    start: Callable[[int], Process], store: FaultyStore
) -> None:
    one = start(1)
    one.take()
    one.fold(7)
    one.now_s += 5
    assert one.keeper.due() == [PARTITION]
    one.keeper.take(one.capture())
    assert one.keeper.due() == []
    store.fail(at=store.n_calls + 1, error=StoreError)
    one.drain()
    assert one.keeper.positions() == {}
    assert one.keeper.due() == []
    one.now_s += 5
    assert one.keeper.due() == [PARTITION]
    one.keeper.take(one.capture())
    one.drain()
    assert one.keeper.positions() == {PARTITION: 7}
    assert not one.errors


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"kafka": KafkaSettings(partitions=4)}, "kafka.partitions"),
        ({"learner": LearnerSettings(embeddings=False, history=9, seen=8)}, "learner.history"),
    ],
)
def test_state_of_other_settings_is_refused_by_name(
    start: Callable[[int], Process], changed: dict[str, Any], named: str
) -> None:
    one = start(1)
    one.take()
    one.fold(3)
    cut = one.capture().cut(1)
    read_unit(cut.meta, cut.units, TOPIC, PARTITION, SETTINGS)
    other = Settings(
        worker=SETTINGS.worker, **({"kafka": SETTINGS.kafka, "learner": SETTINGS.learner} | changed)
    )
    with pytest.raises(StateError, match=named):
        read_unit(cut.meta, cut.units, TOPIC, PARTITION, other)
    with pytest.raises(StateError, match="no state of"):
        read_unit(cut.meta, cut.units, TOPIC, 1 - PARTITION, SETTINGS)


def test_a_unit_names_only_items_it_holds(start: Callable[[int], Process]) -> None:
    one = start(1)
    one.take()
    one.fold(3)
    cut = one.capture().cut(1)
    unit = read_unit(cut.meta, cut.units, TOPIC, PARTITION, SETTINGS)
    assert sorted(unit.item_ids) == ["v0", "v1", "v2"]
    unit.item_ids.pop()
    with pytest.raises(StateError, match="an item that the state does not hold"):
        restore_unit(unit, np.arange(2, dtype=np.int32), one.held.begin(PARTITION, 0))
