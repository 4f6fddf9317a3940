"""A world in memory for the commit protocol: a log with gaps, a broker that acknowledges late, a disk
that forgets what was not synced, and lives of a worker that end anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from schemas.codec import encode_event, encode_item
from schemas.errors import StateError, StoreError
from schemas.hashing import partition_of
from schemas.records import Event, Item
from schemas.runs import RecordRun
from schemas.settings import KafkaSettings, LearnerSettings, RankerSettings, Settings, WorkerSettings
from schemas.topics import topic_names
from serving.metrics import WorkerMetrics
from serving.reader_view import SnapshotView
from streams.audit import Digests, audit, digests_of, scratch_core
from streams.checkpoint.epochs import Tenure, claim
from streams.checkpoint.history import History
from streams.checkpoint.journal import JournalEntry, JournalRun
from streams.checkpoint.owners import Owner
from streams.core import WorkerCore
from streams.cut import Captured, capture, restore
from streams.keeper import Keeper
from streams.log_reader import Place
from streams.recovery import refold, starts_of
from streams.sinks import Delivered, Headers
from tests.stores import FaultyStore

PARTITIONS = 2
N_RECORDS = 90
START_MS = 1_700_000_000_000
OVER, WITHDRAWN = "v6", "v7"
OVER_MS = START_MS + 100_000_000
"""Items that end: one by its time, when everybody has had a list, one by the last record of its partition."""
SETTINGS = Settings(
    kafka=KafkaSettings(partitions=PARTITIONS),
    worker=WorkerSettings(dedup_window=1_024, refresh_interval_ms=500),
    learner=LearnerSettings(embeddings=False, history=8, seen=8, transition_width=4),
    ranker=RankerSettings(list_size=5),
)
NAMES = topic_names(SETTINGS.kafka.prefix)
METRICS = WorkerMetrics(CollectorRegistry())  # nobody reads them; making them takes a tenth of a schedule
Record = tuple[int, bytes | None, bytes | None]
Log = dict[Place, list[Record]]


class Crash(BaseException):
    """The process is gone; nothing after this line ran."""


@cache
def log_of(number: int) -> tuple[Log, dict[Place, int]]:
    """Records (offset, key, value) by partition, with gaps as of compaction and transactions; and the ends.

    Some events are sent twice, some messages are broken, and every log ends in a gap.
    """
    rng = np.random.default_rng(number)
    log: Log = {(NAMES.behaviour, p): [] for p in range(PARTITIONS)}
    log |= {(NAMES.catalogue, p): [] for p in range(PARTITIONS)}
    ends = dict.fromkeys(log, 0)

    def add(place: Place, key: bytes, value: bytes | None) -> None:
        offset = ends[place] + (int(rng.integers(1, 4)) if rng.random() < 0.1 else 0)
        log[place].append((offset, key, value))
        ends[place] = offset + 1

    for i in range(8):
        item = Item(item_id=f"v{i}", tags=[f"t{i % 3}"], expires_ts_ms=OVER_MS if f"v{i}" == OVER else None)
        place = (NAMES.catalogue, partition_of(item.item_id.encode(), PARTITIONS))
        add(place, item.item_id.encode(), None if i == 5 else encode_item(item))
    add((NAMES.catalogue, partition_of(WITHDRAWN.encode(), PARTITIONS)), WITHDRAWN.encode(), None)
    for i in range(N_RECORDS):
        user = f"u{rng.integers(9)}"
        place = (NAMES.behaviour, partition_of(user.encode(), PARTITIONS))
        n = i - int(rng.integers(1, 5)) if rng.random() < 0.15 else i
        event = Event(
            event_id=f"e{n}", user_id=user, item_id=f"v{rng.integers(12)}", type="watch", ts_ms=START_MS + n
        )
        add(place, user.encode(), b"not json" if rng.random() < 0.1 else encode_event(event))
    return log, {place: end + 2 for place, end in ends.items()}


class MemoryLog:
    """The log as `streams.log_reader.LogReader`."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def start(self, positions: Mapping[Place, int]) -> None:
        """Nothing to prepare."""

    def begins(self, topic: str, partition: int) -> int:
        """Nothing was removed."""
        return 0

    def read(self, topic: str, partition: int, first: int, next_offset: int) -> RecordRun:
        """The records of a range."""
        place = (topic, partition)
        return run_of_records(
            place, [r for r in self._log[place] if first <= r[0] < next_offset], next_offset
        )


def run_of_records(place: Place, records: Sequence[Record], next_offset: int) -> RecordRun:
    """A run as the transport hands it over."""
    return RecordRun(
        topic=place[0],
        partition=place[1],
        keys=[key for _, key, _ in records],
        values=[value for _, _, value in records],
        offsets=np.array([offset for offset, _, _ in records], dtype=np.int64),
        timestamps_ms=np.array([START_MS + offset for offset, _, _ in records], dtype=np.int64),
        next_offset=next_offset,
    )


class Inline(Executor):
    """Runs at once, on the caller's thread."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run now; a crash is not caught."""
        future: Future[Any] = Future()
        future.set_result(function(*args, **kwargs))
        return future


class Broker:
    """What the broker has: letters, lists as a reader sees them, committed offsets; outlives every life."""

    def __init__(self) -> None:
        self.letters: set[tuple[str, int, int]] = set()
        self.reader = SnapshotView(max_users=1_000)
        self.forgotten = False
        """Whether damage took entries that no heartbeat tells of: lists may fall back once."""
        self.n_lives = 0
        self.newest_model = (0, 0)  # of the lists handed to any life's producer
        self.committed: dict[Place, int] = {}
        self.late_lists: set[bytes] = set()  # keys whose last list a life sent after its end
        self.problems: list[str] = []


class LateSink:
    """Acknowledges at `poll`, all or the first few; a crash drops the rest, or loses only their reports.

    A producer sends what it has queued without asking anybody, so a life that was stopped may send after
    another has followed it: readers drop what knows less than they have seen. But nothing may be handed to
    the producer any more.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        broker.n_lives += 1
        self._life = broker.n_lives
        self._waiting: list[tuple[str, list[Any], list[Any], Sequence[Headers] | None, Delivered]] = []
        self.at_once = 1_000_000

    def send(
        self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None], delivered: Delivered,
        *, partition: int | None = None, headers: Sequence[Headers] | None = None,
    ) -> None:  # fmt: skip
        """Wait for the next poll."""
        if topic == NAMES.recommendations:
            self._judge(values)
        self._waiting.append((topic, list(keys), list(values), headers, delivered))

    def poll(self) -> None:
        """Deliver the first few."""
        for keys, delivered in self._arrive(self.at_once):
            delivered(len(keys), 0)

    def break_off(self, n: int) -> None:
        """The process is gone: of what waits, the first `n` batches were on their way."""
        self._arrive(n)
        self._waiting.clear()

    @property
    def n_waiting(self) -> int:
        """Batches that are not acknowledged."""
        return len(self._waiting)

    def _judge(self, values: Sequence[bytes | None]) -> None:
        problems = self._broker.problems
        if self._life < self._broker.n_lives:
            problems.append(
                f"{len(values)} lists of life {self._life} after life {self._broker.n_lives} began"
            )
        for value in values:
            assert value is not None
            model = json.loads(value)["model"]
            made_by = (model["epoch"], model["sequence"])
            if made_by < self._broker.newest_model:
                problems.append(f"a list of model {made_by} after {self._broker.newest_model}")
            self._broker.newest_model = max(self._broker.newest_model, made_by)

    def _arrive(self, n: int) -> list[tuple[list[Any], Delivered]]:
        ready, self._waiting = self._waiting[:n], self._waiting[n:]
        for topic, keys, values, headers, _ in ready:
            if topic.endswith(".dlq"):
                assert headers is not None
                fields = {name: value.decode() for name, value in headers[0]}
                self._broker.letters.add(
                    (
                        fields["reelflow_topic"],
                        int(fields["reelflow_partition"]),
                        int(fields["reelflow_offset"]),
                    )
                )
            else:
                for key, value in zip(keys, values, strict=True):
                    self._list(key, value)
        return [(keys, delivered) for _, keys, _, _, delivered in ready]

    def _list(self, key: bytes, value: bytes) -> None:
        reader = self._broker.reader
        n_dropped = reader.dropped_older
        reader.apply(key, value)
        late = self._life < self._broker.n_lives
        if reader.dropped_older == n_dropped:
            (self._broker.late_lists.add if late else self._broker.late_lists.discard)(key)
        if reader.dropped_older > n_dropped and not late and not self._broker.forgotten:
            self._broker.problems.append(f"{key.decode()}: knows.offset fell")

    def flush(self, timeout_s: float) -> int:
        """Deliver everything."""
        self.at_once = 1_000_000
        self.poll()
        return 0


class World:
    """Log, broker, store and time."""

    def __init__(self, number: int, store: FaultyStore) -> None:
        self.log, self.ends = log_of(number)
        self.reader = MemoryLog(self.log)
        self.store = store
        self.broker = Broker()
        self.now_s = float(START_MS // 1000)

    def clock(self) -> float:
        """Seconds since 1970; also the monotonic clock."""
        return self.now_s


class Life:
    """One life of a worker, from claim to crash."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        owner = Owner(host=f"host-{number}", pid=number, started="", role="worker")
        self.tenure: Tenure = claim(world.store, owner=owner, take_over=True, now_s=world.clock)
        self.sink = LateSink(world.broker)
        self.core = WorkerCore(SETTINGS, self.sink, METRICS, clock=world.clock)
        base = self.tenure.base
        if base is not None:
            restore(self.core, base.sequence, base.meta, base.units)
        entries = list(self.tenure.tail())
        world.reader.start(starts_of(entries))
        refold(self.core, entries, world.reader)
        for part in self.core.partitions.values():
            part.end_at_start = part.next_offset
        self.failed: list[BaseException] = []
        self.keeper = Keeper(
            self.tenure,
            interval_s=2.0,
            kept=2,
            metrics=METRICS,
            on_failure=self.failed.append,
            monotonic=world.clock,
            writer=Inline(),
        )
        self.core.keep(self.keeper, self.tenure.epoch)
        self._check_cuts()
        self._beat_s = world.now_s
        if self.core.sequence < world.broker.newest_model[1] and not world.broker.forgotten:
            world.broker.problems.append(
                f"lists of model {world.broker.newest_model} were published; recovered {self.core.sequence}"
            )
        for place in world.log:
            position = self.core.position(*place)
            self.core.assign(
                *place,
                start=0 if position is None else position,
                committed=world.broker.committed.get(place),
                end=world.ends[place],
            )

    def _check_cuts(self) -> None:
        """Compare every cut, of which most was copied before, with what the core holds at that moment."""
        take = self.core.capture

        def checked(*, reuse: bool = False) -> Captured:
            captured = take(reuse=reuse)
            held = capture(self.core).cut().units
            for unit, arrays in captured.cut().units.items():
                for name, array in arrays.items():
                    if not np.array_equal(array, held[unit][name]):
                        self.world.broker.problems.append(f"{name} of {unit} in a cut is not what was held")
            return captured

        # Of this core alone: the next life's is not asked for by a patch of the class.
        self.core.capture = checked  # type: ignore[method-assign]

    def run(self, place: Place, n: int, back: int = 0) -> RecordRun | None:
        """The next `n` records of a partition, and `back` ones that were read before."""
        position = self.core.position(*place)
        assert position is not None
        records = self.world.log[place]
        first = next((i for i, (offset, _, _) in enumerate(records) if offset >= position), len(records))
        chosen = records[max(0, first - back) : first + n]
        at_end = first + n >= len(records)
        next_offset = self.world.ends[place] if at_end else records[first + n][0]
        return run_of_records(place, chosen, next_offset) if next_offset > position else None

    def beat(self) -> None:
        """As the worker does every second, whatever its store says."""
        if self.world.now_s - self._beat_s >= 1.0:
            self._beat_s = self.world.now_s
            with suppress(StoreError):
                self.tenure.beat()

    def commit(self) -> None:
        """As the worker does every second."""
        for place, offset in self.core.safe_positions().items():
            if offset < self.world.broker.committed.get(place, 0):
                self.world.broker.problems.append(f"committed offset of {place} fell")
            self.world.broker.committed[place] = offset

    def finish(self) -> None:
        """Read everything and drain."""
        self.sink.at_once = 1_000_000
        for place in self.world.log:
            if (run := self.run(place, 1_000_000)) is not None:
                self.core.apply([run])
        self.world.now_s += 10.0
        self.core.tick()
        self.core.close()
        self.commit()


@cache
def reference(number: int) -> Digests:
    """What an undisturbed fold of the log gives; its model depends on the order, so only the rest counts."""
    log, ends = log_of(number)
    core = scratch_core(SETTINGS)
    for sequence, place in enumerate(sorted(log), 1):
        noted = JournalRun(topic=place[0], partition=place[1], first=0, next=ends[place])
        core.refold(
            JournalEntry(sequence=sequence, runs=[noted]), [run_of_records(place, log[place], ends[place])]
        )
    return digests_of(core)


def verdict(world: World, number: int, life: Life) -> list[str]:
    """Everything that is wrong once a life has finished."""
    problems = list(world.broker.problems)
    wanted, found = reference(number), digests_of(life.core)
    if found.users != wanted.users:
        problems.append("user state differs from the undisturbed run's")
    if found.counts != wanted.counts:
        problems.append(f"counts are {found.counts}, not {wanted.counts}")
    last: dict[bytes, int] = {}
    letters = set()
    for (topic, partition), records in world.log.items():
        for offset, key, value in records:
            if value == b"not json":
                letters.add((topic, partition, offset))
            elif topic == NAMES.behaviour and key is not None:
                last[key] = partition
    if world.broker.letters != letters:
        problems.append(f"letters {sorted(world.broker.letters ^ letters)} are missing or too many")
    for key, partition in last.items():
        user = key.decode()
        told = world.broker.reader.get(user)
        state = life.core.partitions[partition].state
        offset = int(state.last_offset[state.users.find(user)])
        if told is None or told.knows.offset != offset:
            problems.append(f"{user} was told {told and told.knows}, the last event is {offset}")
    if world.broker.committed != world.ends:
        problems.append(f"committed {world.broker.committed}, not {world.ends}")
    return problems + audited(world) + still_listed(world, [key.decode() for key in last])


def still_listed(world: World, users: list[str]) -> list[str]:
    """Users whose list names what has ended; one life has told them all, the next one sees the end."""
    life = Life(world, world.broker.n_lives + 1)
    world.now_s = OVER_MS / 1000
    life.core.tick()
    life.sink.flush(0.0)
    told = {user: world.broker.reader.get(user) for user in users}
    return [
        f"{user} still has {item}"
        for user, found in told.items()
        if found is not None and user.encode() not in world.broker.late_lists
        for item in sorted({place.item_id for place in found.items} & {OVER, WITHDRAWN})
    ]


def audited(world: World) -> list[str]:
    """What an audit finds in the store as it is."""
    report = audit(History(world.store), SETTINGS, world.reader)
    return [f"audit: {problem}" for problem in report.problems]


__all__ = ["Crash", "Life", "StateError", "World", "audited", "reference", "verdict"]
