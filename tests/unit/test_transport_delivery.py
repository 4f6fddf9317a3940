"""What the driver changes of Faust's delivery, so that a rebalance loses no run on its way to an agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from faust.types import TP

from schemas.runs import RecordRun
from streams.transport import Consumer
from tests.transport_rig import Reader, make_app

TOPIC = "behaviour"
PLACE = TP(TOPIC, 0)


def run_of(first: int, next_offset: int) -> RecordRun:
    n = next_offset - first
    return RecordRun(
        topic=TOPIC, partition=0, keys=[b"k"] * n, values=[b"v"] * n,
        offsets=np.arange(first, next_offset, dtype=np.int64), timestamps_ms=np.zeros(n, dtype=np.int64),
        next_offset=next_offset, first=first,
    )  # fmt: skip


@asynccontextmanager
async def consumer_of() -> AsyncIterator[tuple[Consumer, Any]]:
    """A consumer without a broker, whose assignment reads one batch topic."""
    app = make_app("localhost:1")
    reader = Reader(app, TOPIC)
    consumer = app.consumer
    assert isinstance(consumer, Consumer)
    consumer._thread.begin_assignment({TOPIC: reader.topic})

    async def nothing(*_: Any, **__: Any) -> None:
        """Stands for what the app does in a rebalance."""

    consumer._on_partitions_revoked = nothing
    try:
        yield consumer, reader.topic
    finally:
        consumer._thread.thread_loop.close()


def test_a_delivery_that_a_rebalance_overtakes_stands_in_the_way_of_no_later_one() -> None:
    """The partition comes back at an older position than the one under way when it was taken."""

    async def main() -> None:
        delivered: list[int] = []

        async def deliver(message: Any) -> None:
            delivered.append(message.offset)
            if message.offset == 300:
                await consumer.on_partitions_revoked({PLACE})

        rounds = [[run_of(300, 340)], [run_of(200, 322), run_of(322, 360)]]

        async def getmany(timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - the base's
            for run in rounds.pop(0):
                yield PLACE, consumer._to_message(PLACE, run)

        ended = SimpleNamespace(_stopped=SimpleNamespace(is_set=lambda: not rounds))
        async with consumer_of() as (consumer, _):
            consumer.callback = deliver
            consumer.getmany = getmany  # type: ignore[method-assign]
            await asyncio.wait_for(consumer._drain_messages(ended), 10)  # type: ignore[arg-type]
        assert delivered == [300, 200, 322]

    asyncio.run(main())


def test_runs_on_their_way_are_dropped_at_a_rebalance_and_at_no_other_time() -> None:
    """Flow resumes once more when a rebalance has overtaken the one before it."""

    async def main() -> None:
        async with consumer_of() as (consumer, topic):
            consumer.app.flow_control.resume()
            topic.queue.put_nowait(run_of(0, 10))
            consumer.app.flow_control.resume()
            assert topic.queue.qsize() == 1
            await consumer.on_partitions_revoked({PLACE})
            assert topic.queue.empty()

    asyncio.run(main())


def test_a_start_that_a_rebalance_overtakes_never_runs_beside_the_next_one() -> None:
    """Two at once would each load the same partition: the later one puts back what was applied."""

    async def main() -> None:
        async with consumer_of() as (consumer, topic):
            holding = asyncio.Queue[asyncio.Future[None]]()
            started, going = list[int](), asyncio.Event()

            async def hold(_: Any) -> None:
                held = asyncio.get_running_loop().create_future()
                holding.put_nowait(held)
                await held

            async def start_batches(_: Any) -> dict[TP, Any]:
                started.append(consumer.epoch)
                await going.wait()
                return {}

            async def seek_records(_: Any) -> dict[TP, Any]:
                return {}

            async def release(_: Any) -> None:
                """Nothing to release."""

            thread: Any = consumer._thread
            thread.hold, thread.start_batches, thread.seek_records = hold, start_batches, seek_records
            thread.release = release
            consumer.assignment = lambda: {PLACE}  # type: ignore[method-assign]
            consumer._find_batches = lambda: {TOPIC: topic}  # type: ignore[method-assign]
            consumer._on_partitions_assigned = consumer._on_partitions_revoked
            await consumer.on_partitions_assigned({PLACE})
            overtaken = asyncio.ensure_future(consumer.seek_to_committed())
            first = await holding.get()
            await consumer.on_partitions_revoked({PLACE})
            await consumer.on_partitions_assigned({PLACE})
            following = asyncio.ensure_future(consumer.seek_to_committed())
            first.set_result(None)
            (await holding.get()).set_result(None)
            await asyncio.gather(overtaken, following)
            await asyncio.sleep(0)
            assert started == [consumer.epoch]
            going.set()
            await consumer._loading.cancel()

    asyncio.run(main())
