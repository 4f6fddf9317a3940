"""The worker's core over an in-memory log without a keeper: starts, odd clocks, odd letters, fairness.

Crashes are in test_protocol.py.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from schemas.codec import encode_event
from schemas.errors import StateError
from schemas.hashing import partition_of
from schemas.records import Event
from schemas.runs import RecordRun
from schemas.settings import KafkaSettings, LearnerSettings, RankerSettings, Settings, WorkerSettings
from schemas.topics import MAX_LETTER_BYTES
from serving.metrics import WorkerMetrics
from streams.checkpoint.journal import JournalEntry
from streams.commits import Positions
from streams.core import WorkerCore
from streams.cut import Captured
from streams.share import BEHIND, CAUGHT_UP, LIVE_RECORDS, PublishShare, Shares
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

    def __init__(self, seed: int, n_events: int, first: int = 0) -> None:
        self.first = first  # retention removed what was below
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
            end = world.first + len(log)
            lost = self.core.assign(
                self.core.names.behaviour,
                place,
                start=world.first,
                committed=world.committed[place],
                end=end,
            )
            assert lost == 0
            assert self.core.position(self.core.names.behaviour, place) == world.first

    def read(self, place: int, n: int) -> None:
        start = self.core.partitions[place].next_offset
        first = self.world.first
        records = self.world.log[place][start - first : start - first + n]
        if records:
            offsets = np.arange(start, start + len(records), dtype=np.int64)
            run = RecordRun(
                topic=self.core.names.behaviour, partition=place, keys=[k for k, _, _ in records],
                values=[v for _, v, _ in records], offsets=offsets,
                timestamps_ms=np.array([ts for _, _, ts in records], dtype=np.int64),
                next_offset=start + len(records),
            )  # fmt: skip
            self.core.apply([run])


def test_an_idle_partition_emptied_by_retention_is_ready_at_once() -> None:
    world = World(0, 0, first=5_000)
    world.committed = dict.fromkeys(world.log, 5_000)
    life = Incarnation(world)
    life.core.not_ready_because = ""
    life.core.tick()
    assert life.core.ready
    assert life.core.lag_records() == 0
    assert life.core.recovered_ratio() == 1
    assert life.core.safe_positions() == {}


class RestingKeeper:
    """Everything is durable at once, and it is never time for a checkpoint."""

    def append(self, entry: JournalEntry) -> None:
        pass

    def wait_durable(self, sequence: int, timeout_s: float | None = None) -> bool:
        return True

    def wants_cut(self) -> bool:
        return False

    def take(self, captured: Captured) -> None:
        raise AssertionError("no cut was wanted")

    def close(self, captured: Captured) -> None:
        raise AssertionError("no cut was wanted")

    def positions(self) -> Positions:
        return {}


def test_room_for_the_first_checkpoint_is_made_before_it_is_time() -> None:
    """Its copies take hundreds of MiB that nobody touched; finding them is not for the thread that learns."""
    world = World(3, 100)
    life = Incarnation(world)
    life.core.keep(RestingKeeper(), 1)
    for place in world.log:
        life.read(place, 100)
    assert not any(part.copied_bytes for part in life.core.partitions.values())
    life.core.tick()
    for part in life.core.partitions.values():
        made = dict(part.state.copies.arrays)
        assert len(made["numbers"]) >= len(part.state.users)
        part.state.snapshot(reuse=True)
        assert all(array is made[name] for name, array in part.state.copies.arrays.items())


def test_batches_are_small_and_lists_come_first_once_the_log_has_been_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(5, 600)
    life = Incarnation(world)
    core, most = life.core, SETTINGS.worker.max_run_records
    shares: list[Shares] = []
    begin = PublishShare.begin

    def noted(self: PublishShare, now_s: float, learned_s: float, wait_s: float, of: Shares) -> float:
        shares.append(of)
        return begin(self, now_s, learned_s, wait_s, of)

    monkeypatch.setattr(PublishShare, "begin", noted)
    assert core.is_behind
    assert core.batch_records == most
    for place in world.log:
        life.read(place, 1_000)
    core.tick()
    assert not core.is_behind
    assert core.batch_records == LIVE_RECORDS < most
    for place, log in world.log.items():
        core.held.see_end(core.names.behaviour, place, len(log) + 1)
    world.now_ms = core.partitions[0].last_broker_ts_ms + 900
    assert not core.is_behind  # more has come, but just now
    world.now_ms += 1_100
    assert core.is_behind
    assert core.batch_records == most
    core.tick()
    assert shares == [CAUGHT_UP, BEHIND]


@pytest.mark.parametrize(
    ("embeddings", "tells", "small"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_batches_are_small_only_where_lists_are_made_without_gradient_steps(
    embeddings: bool, tells: bool, small: bool
) -> None:
    settings = Settings(kafka=SETTINGS.kafka, learner=LearnerSettings(embeddings=embeddings))
    core = WorkerCore(settings, SimulatedSink(World(0, 0)), WorkerMetrics(CollectorRegistry()), tells=tells)
    assert core.assign(core.names.behaviour, 0, start=0, committed=None, end=0) == 0
    assert not core.is_behind
    assert core.batch_records == (LIVE_RECORDS if small else settings.worker.max_run_records)


def test_what_retention_took_while_the_worker_was_down_is_told() -> None:
    core = WorkerCore(SETTINGS, SimulatedSink(World(0, 0)), WorkerMetrics(CollectorRegistry()))
    assert core.assign(core.names.behaviour, 0, start=500, committed=420, end=900) == 80


def test_offsets_that_another_worker_committed_end_this_one() -> None:
    world = World(3, 100)
    life = Incarnation(world)
    life.read(0, 10)
    with pytest.raises(StateError, match="another worker"):
        life.core.assign(life.core.names.behaviour, 0, start=10, committed=40, end=50)
    with pytest.raises(StateError, match="created anew"):
        life.core.assign(life.core.names.behaviour, 1, start=0, committed=400, end=50)


def test_no_partition_starves_and_positions_move_on_under_load() -> None:
    """A tick that has time for one chunk only, and users that are due again at once."""
    world = World(0, 0)
    life = Incarnation(world)
    n = 1_536
    users: dict[int, list[str]] = {0: [], 1: []}
    for i in itertools.count():
        place = partition_of(f"x{i}".encode(), PARTITIONS)
        if len(users[place]) < n:
            users[place].append(f"x{i}")
        if min(map(len, users.values())) == n:
            break
    for turn in range(12):
        for place, names in users.items():
            world.log[place] += [
                (
                    name.encode(),
                    encode_event(
                        Event(
                            event_id=f"{turn}{name}", user_id=name, item_id="v1", type="watch", ts_ms=START_MS
                        )
                    ),
                    START_MS,
                )
                for name in names
            ]
            life.read(place, n)
        world.now_ms += 600
        life.core.publisher.publish_chunk(turn)
    life.sink.poll()
    told = {place: sum(name in world.told for name in names) for place, names in users.items()}
    assert told == {0: n, 1: n}


def test_of_many_who_are_due_each_partition_gets_its_part() -> None:
    """Whoever comes last in turn would else be cut short chunk after chunk, and wait longest."""
    world = World(3, 0)
    life = Incarnation(world)
    for i in range(2_400):
        key = f"x{i}"
        event = Event(event_id=key, user_id=key, item_id="v1", type="watch", ts_ms=START_MS)
        world.log[partition_of(key.encode(), PARTITIONS)].append(
            (key.encode(), encode_event(event), START_MS)
        )
    for place in world.log:
        life.read(place, 2_400)
    owing = [part.outbox.n_pending for part in life.core.partitions.values()]
    assert len(owing) > 1
    for turn in range(3):
        life.core.publisher.publish_chunk(turn)
    left = [part.outbox.n_pending for part in life.core.partitions.values()]
    assert 0 < sum(left) < sum(owing)
    shares = [now / before for now, before in zip(left, owing, strict=True)]
    assert max(shares) - min(shares) < 0.05


def test_an_event_of_today_amid_old_ones_does_not_make_the_rest_old() -> None:
    world = World(0, 0)
    life = Incarnation(world)
    place = partition_of(b"alice", PARTITIONS)
    stray = next(f"u{i}" for i in range(100) if partition_of(f"u{i}".encode(), PARTITIONS) != place)

    def old(i: int) -> tuple[bytes, bytes, int]:
        event = Event(
            event_id=f"a{i}", user_id="alice", item_id=f"v{i % 7}", type="watch", ts_ms=START_MS - i
        )
        return b"alice", encode_event(event), START_MS

    world.log[place] = [old(i) for i in range(70)]
    life.read(place, 35)
    years_ahead = START_MS + 2 * 365 * 86_400_000
    event = Event(event_id="today", user_id=stray, item_id="v0", type="watch", ts_ms=years_ahead)
    world.log[1 - place] = [(stray.encode(), encode_event(event), years_ahead)]
    life.read(1 - place, 1)
    life.read(place, 35)
    shares = life.core.model.popularity.shares(0)
    assert (shares > 0.01).sum() == 7


def test_letters_of_any_size_are_buried() -> None:
    world = World(0, 0)
    life = Incarnation(world)
    huge = b" " * (MAX_LETTER_BYTES // 2 + 1)
    place = partition_of(b"u", PARTITIONS)
    world.log[place] = [(b"u", huge, START_MS), (b"u", b" " * 2_000_000, START_MS)]
    life.read(place, 2)
    letters = [(values[0], dict(headers[0])) for _, _, values, headers, _ in life.sink.waiting if headers]
    assert [value for value, _ in letters] == [None, b" " * 2_000_000]
    assert letters[0][1]["reelflow_original_bytes"] == str(len(huge)).encode()
    assert letters[0][1]["reelflow_original_sha256"] == hashlib.sha256(huge).hexdigest().encode()
    assert {headers["reelflow_reason"] for _, headers in letters} == {b"message_too_large"}
