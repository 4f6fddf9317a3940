"""Any order of fetches, takes, deliveries and rebalances: every record once, in order, no gap.

The taker runs on aiokafka's own results, records and subscription state; the broker, the thread
between taking and delivering, and the agent are modelled. A take that was under way when a
rebalance began arrives after it and must be dropped, as the consumer does by its epoch; state that
comes back with an older position must drop what it has applied, and cut what straddles.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.runs import RecordRun
from streams.batch_topic import BatchOptions
from streams.transport_taking import RunTaker
from streams.transport_thread import RunThread
from tests.message_sets import Batch, aborted, encode, message_set

TOPIC = "t"
PARTITIONS = (TP(TOPIC, 0), TP(TOPIC, 1))
Row = tuple[int, bytes | None]


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    producer = draw(st.integers(0, 1))
    if draw(st.integers(0, 3)) == 0:
        marker = draw(st.sampled_from(["abort", "commit"]))
        return Batch(size=1, kept=[], producer=producer, marker=marker)
    size = draw(st.integers(1, 6))
    survives: list[bool] = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    kept: list[tuple[int, bytes | None, bytes | None]] = [
        (place, b"k", b"%d" % place) for place in range(size) if survives[place]
    ]
    transactional: bool = draw(st.booleans())
    compressed: bool = draw(st.booleans())
    return Batch(
        size=size,
        kept=kept,
        codec="lz4" if kept and compressed else "none",
        producer=producer if transactional else -1,
        transactional=transactional,
    )


class Log:
    """A partition as its broker holds it."""

    def __init__(self, drawn: list[Batch]) -> None:
        self.batches = drawn
        self.starts: list[int] = []
        self.end = 0
        for batch in drawn:
            self.starts.append(self.end)
            self.end += batch.size

    def readable(self) -> list[Row]:
        records: Any = records_of(message_set(self.batches)[0], 0, aborted(self.batches))
        return [(record.offset, record.value) for record in records]

    def fetch(self, position: int, n_batches: int, cut: int) -> bytes:
        """From the batch that holds `position` on; the last one may be cut off."""
        first = max(i for i, start in enumerate(self.starts) if start <= position)
        chosen = range(first, min(first + n_batches, len(self.batches)))
        data = [encode(self.batches[i], self.starts[i]) for i in chosen]
        if len(data) > 1 and cut:
            data[-1] = data[-1][: -min(cut, len(data[-1]))]
        return b"".join(data)


def records_of(data: bytes, position: int, aborts: list[tuple[int, int]]) -> Any:
    tp: Any = TopicPartition(TOPIC, 0)
    return PartitionRecords(tp, MemoryRecords(data), aborts, position, None, None, True, READ_COMMITTED)


class World:
    """Broker, fetcher, taker and agent of one group member."""

    def __init__(self, logs: dict[TP, Log], options: BatchOptions) -> None:
        self.logs = logs
        self.room = 0
        batch: Any = SimpleNamespace(options=options, queue=self)  # the taker asks its queue for room
        self.taker = RunTaker(lambda *_: None)
        self.batches = {TOPIC: batch}
        self.subscriptions: Any = SubscriptionState()
        self.subscriptions.subscribe({TOPIC})
        self.fetcher = SimpleNamespace(
            _records=OrderedDict(),
            _subscriptions=self.subscriptions,
            _notify=lambda _: None,
            _wait_consume_future=None,
        )
        self.epoch = 0
        self.flying: list[tuple[int, dict[TP, list[Any]]]] = []
        self.buffer: list[RecordRun] = []
        self.position: dict[TP, int] = {}
        self.starts: dict[TP, int] = {}
        self.applied = dict.fromkeys(logs, 0)
        self.rows: dict[TP, list[Row]] = {tp: [] for tp in logs}
        self.rebalance(list(logs), 0)

    def rebalance(self, owned: list[TP], behind: int, late: bool = False) -> None:
        """Another assignment, which starts up to `behind` offsets before what is applied.

        When it is `late`, what aiokafka fetches by itself from where the group has committed flows until
        `start`: Faust may let it, on behalf of the rebalance before.
        """
        self.epoch += 1
        self.buffer.clear()
        self.subscriptions.begin_reassignment()
        self.fetcher._records.clear()
        self.subscriptions.assign_from_subscribed({TopicPartition(*tp) for tp in owned})
        self.taker.begin(self.batches)
        self.starts = {tp: max(0, self.applied[tp] - behind) for tp in owned}
        for tp in owned:
            self.seek(tp, max(0, self.starts[tp] - 2))
        if not late:
            self.start()

    def seek(self, tp: TP, position: int) -> None:
        self.subscriptions.subscription.assignment.state_value(TopicPartition(*tp)).seek(position)

    def start(self) -> None:
        """Set the partitions of the newest assignment that were not yet."""
        for tp, start in self.starts.items():
            self.seek(tp, start)
            self.taker.expect(tp, start, 0, self.epoch)
            self.position[tp] = start
        self.starts = {}

    def owned(self) -> list[TP]:
        return sorted(TP(*tp) for tp in self.subscriptions.assigned_partitions())

    def fetch(self, tp: TP, n_batches: int, cut: int, known: bool) -> None:
        """One answer of the broker, as aiokafka's fetcher handles it; `known`: seen by the link."""
        if tp not in self.owned() or tp in self.fetcher._records:
            return
        assignment = self.subscriptions.subscription.assignment
        log, position = self.logs[tp], assignment.state_value(TopicPartition(*tp)).position
        if position >= log.end:
            return
        data = log.fetch(position, n_batches, cut)
        if known:
            request = SimpleNamespace(topics=[(TOPIC, [(tp.partition, position, 1)])])
            answer = SimpleNamespace(topics=[(TOPIC, [(tp.partition, 0, log.end, log.end, data)])])
            self.taker.sets.keep(request, answer)
        self.fetcher._records[tp] = FetchResult(
            TopicPartition(*tp),
            assignment=assignment,
            partition_records=records_of(data, position, aborted(log.batches, position=position)),
            backoff=0,
        )

    def take(self, room: int) -> None:
        self.room = room
        taken = self.taker.take(self.fetcher, set(self.owned()), 500, self.epoch)
        assert not taken.keys() & self.starts.keys(), "nothing is taken before the start"
        assert sum(map(len, taken.values())) <= room
        for tp, (run,) in taken.items():
            assert run.next_offset > self.position[tp] == run.first
            assert not len(run) or self.position[tp] <= run.offsets[0] <= run.offsets[-1] < run.next_offset
            self.position[tp] = run.next_offset
        if taken:
            self.flying.append((self.epoch, taken))

    def deliver(self) -> None:
        """What was taken first gets to the agent's buffer, unless a rebalance came between."""
        if self.flying:
            epoch, taken = self.flying.pop(0)
            if epoch == self.epoch:
                self.buffer += [run for (run,) in taken.values()]

    def apply(self) -> None:
        """The agent takes a run and applies what is behind its position."""
        if not self.buffer:
            return
        run = self.buffer.pop(0)
        tp = TP(run.topic, run.partition)
        assert run.first <= self.applied[tp], "nothing lies between what is applied and the run"
        rows = zip(run.offsets.tolist(), run.values, strict=True)
        self.rows[tp] += [(offset, value) for offset, value in rows if offset >= self.applied[tp]]
        self.applied[tp] = max(self.applied[tp], run.next_offset)

    def check(self) -> None:
        for tp, log in self.logs.items():
            expected = [row for row in log.readable() if row[0] < self.applied[tp]]
            assert self.rows[tp] == expected


steps = st.one_of(
    st.tuples(
        st.just("fetch"),
        st.sampled_from(PARTITIONS),
        st.integers(1, 4),
        st.sampled_from([0, 1, 70]),
        st.booleans(),
    ),
    st.tuples(st.just("take"), st.integers(1, 2)),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("apply")),
    st.tuples(
        st.just("rebalance"),
        st.lists(st.sampled_from(PARTITIONS), unique=True),
        st.sampled_from([0, 0, 3, 9]),
        st.booleans(),
    ),
    st.tuples(st.just("start")),
)


@settings(deadline=None, max_examples=300)
@given(
    st.tuples(*(st.lists(batches(), min_size=1, max_size=6) for _ in PARTITIONS)),
    st.lists(steps, min_size=10, max_size=40),
    st.integers(1, 8),
    st.sampled_from([1, 60, 1 << 20]),
)
def test_every_record_once_and_in_order(
    drawn: tuple[list[Batch], ...], schedule: list[tuple[Any, ...]], max_records: int, max_bytes: int
) -> None:
    async def main() -> None:  # aiokafka's subscription state wants a running loop
        logs = {tp: Log(log) for tp, log in zip(PARTITIONS, drawn, strict=True)}
        world = World(logs, BatchOptions(max_records=max_records, max_bytes=max_bytes, max_wait_s=0.0))
        for name, *arguments in schedule:
            getattr(world, name)(*arguments)
            world.check()
        world.rebalance(list(PARTITIONS), 0)
        for _ in range(400):
            for tp in PARTITIONS:
                world.fetch(tp, 2, 0, True)
            world.take(2)
            world.deliver()
            while world.buffer:
                world.apply()
            if all(world.applied[tp] == logs[tp].end for tp in PARTITIONS):
                break
        world.check()
        assert world.applied == {tp: log.end for tp, log in logs.items()}, "the reader arrives at the end"

    asyncio.run(main())


@pytest.mark.parametrize("known", [True, False])
def test_what_was_read_is_let_go_without_a_collection(known: bool) -> None:
    """The collector runs rarely, and each message set may be a mebibyte."""
    tp = PARTITIONS[0]

    async def main() -> None:
        world = World(
            {tp: Log([Batch(size=3, kept=[(place, b"k", b"v") for place in range(3)])])}, BatchOptions()
        )
        world.fetch(tp, 1, 0, known)
        held = weakref.ref(world.fetcher._records[tp]._partition_records)
        gc.disable()
        try:
            world.take(8)
            assert tp not in world.fetcher._records
            assert held() is None
        finally:
            gc.enable()

    asyncio.run(main())


@pytest.mark.parametrize(("n_records", "rests"), [(3, True), (600, False)])
def test_the_next_fetch_goes_out_when_taking_has_rested(n_records: int, rests: bool) -> None:
    """What is fetched while taking rests would only age; full runs do not rest."""
    tp = PARTITIONS[0]

    async def main() -> None:
        kept: list[tuple[int, bytes | None, bytes | None]] = [
            (place, b"k", b"v") for place in range(n_records)
        ]
        log = Log([Batch(size=n_records, kept=kept), Batch(size=1, kept=[(0, b"k", b"v")])])
        world = World({tp: log}, BatchOptions())
        told: list[object] = []
        later: list[tuple[float, Any]] = []
        world.fetcher._notify = told.append
        loop = SimpleNamespace(call_later=lambda delay_s, *call: later.append((delay_s, call)))
        thread: Any = SimpleNamespace(_taker=world.taker, thread_loop=loop)
        world.fetch(tp, 1, 0, True)
        world.take(1)
        assert world.taker.has_room
        assert not told
        RunThread._fetch_after_rest(thread, world.fetcher)
        if rests:
            assert not told
            ((delay_s, (tell, *arguments)),) = later
            assert 0.0 < delay_s <= BatchOptions().max_wait_s
            tell(*arguments)
        assert len(told) == 1
        assert not world.taker.has_room
        RunThread._fetch_after_rest(thread, world.fetcher)  # nothing was taken since
        assert len(told) == 1

    asyncio.run(main())
