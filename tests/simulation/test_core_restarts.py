"""The worker's core over an in-memory log, killed anywhere: nothing lost, nothing learned or told twice.

A crash loses the core and what its sink had not acknowledged; the log, the committed offsets and
the acknowledged messages stay. A restart reads the log from its beginning.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from schemas.codec import encode_event
from schemas.hashing import partition_of
from schemas.records import Event
from schemas.runs import RecordRun
from schemas.settings import KafkaSettings, LearnerSettings, RankerSettings, Settings, WorkerSettings
from serving.metrics import WorkerMetrics
from streams.core import WorkerCore
from streams.sinks import Delivered, Headers

PARTITIONS = 2
SETTINGS = Settings(
    kafka=KafkaSettings(partitions=PARTITIONS),
    worker=WorkerSettings(dedup_window=4_096, refresh_interval_ms=500),
    learner=LearnerSettings(embeddings=False, history=8, seen=8),
    ranker=RankerSettings(list_size=5),
)
START_MS = 1_700_000_000_000


class World:
    """What survives a crash: log, commits, acknowledged messages, time."""

    def __init__(self, seed: int, n_events: int) -> None:
        rng = np.random.default_rng(seed)
        self.now_ms = START_MS
        self.log: dict[int, list[tuple[bytes, bytes, int]]] = {p: [] for p in range(PARTITIONS)}
        for i in range(n_events):
            user = f"u{rng.integers(12)}"
            place = partition_of(user.encode(), PARTITIONS)
            if rng.random() < 0.1:
                value = b"not json"
            else:
                n = i - 1 if rng.random() < 0.1 else i  # some are sent twice
                event = Event(
                    event_id=f"e{n}-{user}", user_id=user, item_id=f"v{rng.integers(20)}", type="watch",
                    ts_ms=START_MS + n,
                )  # fmt: skip
                value = encode_event(event)
            self.log[place].append((user.encode(), value, START_MS + i))
        self.committed: dict[int, int | None] = dict.fromkeys(self.log)
        self.letters: list[tuple[str, str]] = []
        self.told: dict[str, list[tuple[int, str]]] = {}

    def clock(self) -> float:
        return self.now_ms / 1000


Sent = tuple[str, list[bytes | None], list[bytes | None], Sequence[Headers] | None, Delivered]


class SimulatedSink:
    """Acknowledges at `poll`, all or only the first of what waits; a crash drops the rest."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waiting: list[Sent] = []
        self.at_once = 1_000

    def send(
        self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None], delivered: Delivered,
        *, partition: int | None = None, headers: Sequence[Headers] | None = None,
    ) -> None:  # fmt: skip
        self.waiting.append((topic, list(keys), list(values), headers, delivered))

    def poll(self) -> None:
        ready, self.waiting = self.waiting[: self.at_once], self.waiting[self.at_once :]
        for topic, keys, values, headers, delivered in ready:
            if topic.endswith(".dlq"):
                assert headers is not None
                fields = dict(headers[0])
                self.world.letters.append(
                    (fields["reelflow_partition"].decode(), fields["reelflow_offset"].decode())
                )
            else:
                for key, value in zip(keys, values, strict=True):
                    assert key is not None
                    assert value is not None
                    snapshot = json.loads(value)
                    assert len(snapshot["items"]) <= SETTINGS.ranker.list_size
                    knows = snapshot["knows"]
                    self.world.told.setdefault(key.decode(), []).append((knows["offset"], knows["event_id"]))
            delivered(len(keys), 0)

    def flush(self, timeout_s: float) -> int:
        self.at_once = 1_000_000
        self.poll()
        return 0


class Incarnation:
    """One life of a worker."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sink = SimulatedSink(world)
        self.core = WorkerCore(SETTINGS, self.sink, WorkerMetrics(CollectorRegistry()), clock=world.clock)
        for place, log in world.log.items():
            self.core.assign(
                self.core.names.behaviour, place, start=0, committed=world.committed[place], end=len(log)
            )
        self.commit()

    def read(self, place: int, n: int) -> None:
        start = self.core.partitions[place].state.next_offset
        records = self.world.log[place][start : start + n]
        if records:
            offsets = np.arange(start, start + len(records), dtype=np.int64)
            run = RecordRun(
                topic=self.core.names.behaviour, partition=place, keys=[k for k, _, _ in records],
                values=[v for _, v, _ in records], offsets=offsets,
                timestamps_ms=np.array([ts for _, _, ts in records], dtype=np.int64),
                next_offset=start + len(records),
            )  # fmt: skip
            self.core.apply([run])

    def commit(self) -> None:
        for (_, place), offset in self.core.safe_positions().items():
            before = self.world.committed[place]
            assert before is None or offset >= before
            self.world.committed[place] = offset


def finish(life: Incarnation) -> None:
    for place in life.world.log:
        life.read(place, 1_000_000)
    life.core.close()
    life.commit()


def digests(core: WorkerCore) -> list[str]:
    return [part.state.digest(core.model.items.ids) for part in core.partitions.values()]


steps = st.lists(
    st.tuples(
        st.sampled_from(["read", "read", "tick", "tick", "crash", "commit", "slow"]),
        st.integers(0, PARTITIONS - 1),
        st.integers(1, 40),
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), steps)
def test_any_crash_leaves_what_an_undisturbed_run_leaves(
    seed: int, script: list[tuple[str, int, int]]
) -> None:
    world = World(seed, 150)
    life = Incarnation(world)
    for step, place, n in script:
        world.now_ms += 300
        if step == "read":
            life.read(place, n)
        elif step == "tick":
            life.core.tick()
        elif step == "commit":
            life.commit()
        elif step == "slow":
            life.sink.at_once = n % 3
        else:
            life = Incarnation(world)
    world.now_ms += 10_000
    life.sink.at_once = 1_000_000
    finish(life)
    undisturbed = World(seed, 150)
    other = Incarnation(undisturbed)
    undisturbed.now_ms = world.now_ms
    finish(other)
    assert digests(life.core) == digests(other.core)
    assert (life.core.n_learned, life.core.n_duplicates) == (other.core.n_learned, other.core.n_duplicates)
    assert set(world.letters) == set(undisturbed.letters)
    assert {user: told[-1] for user, told in world.told.items()} == {
        user: told[-1] for user, told in undisturbed.told.items()
    }
    for told in world.told.values():
        offsets = [offset for offset, _ in told]
        assert offsets == sorted(offsets)
    assert world.committed == {place: len(log) for place, log in world.log.items()}
