# ruff: noqa: SLF001 - reaching into aiokafka is what this module is for, and only this one
"""The consumer thread of the driver: everything that reaches into aiokafka's fetcher.

aiokafka hands out records one object at a time and leaves the group when nobody polls. This
thread takes what the fetcher holds as runs, waits for data or for room with one future, and
notices when a position has jumped. What it relies on is private to aiokafka:
tests/contract/test_faust_aiokafka.py holds every name of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from time import monotonic
from typing import Any, TypeVar

import aiokafka
import structlog
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, ensure_aiokafka_TP
from faust.types import TP

from .batch_topic import BatchTopic, PartitionStart
from .transport_link import InstanceTakenError, Link
from .transport_positions import LONGEST_COMMIT_S, commit_offsets, report_lost, start
from .transport_taking import RunTaker

log = structlog.get_logger(__name__)

T = TypeVar("T")

FETCH_MAX_WAIT_MS = 100
"""How long the broker holds an empty fetch. A partition that was held back or sought joins the
next fetch only, so this bounds what it waits; new data is answered at once anyhow."""

FETCH_MAX_BYTES = 16 << 20
"""Most bytes in one answer of a broker, but for one record batch."""

ISOLATION = "read_committed"


class Taken(dict[TP, list[Any]]):
    """Records by partition, and the epoch (see `RunThread.epoch`) in which they were taken."""

    epoch: int = 0


class RunThread(AIOKafkaConsumerThread):
    """Reads batch topics as runs and all others as Faust does.

    Attributes
    ----------
    epoch : int
        Counted up by the main loop whenever a rebalance begins or ends. A fetch never outlives
        its epoch: what it took before a seek must not arrive after it, and it must not take
        anything once nobody would believe it.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.epoch = 0
        self._taker = RunTaker(self._report_lost)
        self._waker: asyncio.Future[None] | None = None
        self._link: Link | None = None

    @property
    def batches(self) -> Mapping[str, BatchTopic]:
        """The batch topics of the current assignment."""
        return self._taker.batches

    def begin_assignment(self, batches: Mapping[str, BatchTopic]) -> None:
        """Read these topics in runs from now on; called before anything of them flows."""
        self._taker.begin(batches)

    def _report_lost(self, batch: BatchTopic, tp: TP, n_lost: int) -> None:
        self.parent_loop.call_soon_threadsafe(report_lost, batch, tp, n_lost)

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # The base fixes both of these; the fetcher that reads them is made in consumer.start().
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        consumer._isolation_level = ISOLATION
        consumer._fetch_max_bytes = FETCH_MAX_BYTES
        self._link = Link(
            consumer._client,
            instance_id=self.app.conf.consumer_group_instance_id or None,
            on_taken=self._end_app,
            on_fetched=self._taker.sets.keep,
        )
        return consumer

    def _end_app(self, cause: InstanceTakenError) -> None:
        self.parent_loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self.app.crash(cause)))

    def broker_silent_s(self) -> float:
        """Seconds since any broker answered; 0 before the consumer exists. From any thread."""
        return 0.0 if self._link is None else self._link.silent_s()

    async def run_in_thread(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on this thread's loop, beside the method queue that fetches occupy.

        Raises
        ------
        ConsumerStoppedError
            When the thread has ended, or ends meanwhile.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(work, self.thread_loop)
        except RuntimeError:
            work.close()
            raise ConsumerStoppedError from None
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ConsumerStoppedError from None  # the thread cancelled what it still had

    # -- waking and the poll timer ------------------------------------------------------------

    def wake(self) -> None:
        """Let a waiting fetch look again; from any thread."""
        if not self.thread_loop.is_closed():
            self.thread_loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)

    def touch_poll_timer(self) -> None:
        """Tell aiokafka that the application lives; from any thread."""
        if not self.thread_loop.is_closed():
            self.thread_loop.call_soon_threadsafe(self._touch_poll_timer)

    def _touch_poll_timer(self) -> None:
        if self._consumer is not None:
            with self._consumer._subscription.fetch_context():
                pass

    # -- fetching -----------------------------------------------------------------------------

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109 - the base's signature
        max_records: int | None = None,
    ) -> Taken:
        taken = Taken()
        taken.epoch = self.epoch
        if not self.consumer.flow_active:
            return taken
        fetcher = consumer._fetcher
        subscriptions = fetcher._subscriptions
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        deadline = monotonic() + (timeout or 0.0)
        with subscriptions.fetch_context():
            while True:
                if subscriptions.reassignment_in_progress:
                    await self._wait(subscriptions.wait_for_assignment(), deadline - monotonic())
                if fetcher._closed or self.epoch != taken.epoch or not self._flowing():
                    return taken
                if (rest_s := self._taker.rest_until - monotonic()) > 0:
                    await asyncio.sleep(rest_s)
                    continue
                taken.update(self._taker.take(fetcher, active_partitions, max_records, taken.epoch))
                self._fetch_after_rest(fetcher)
                left_s = deadline - monotonic()
                if taken or left_s <= 0:
                    return taken
                await self._wait(fetcher._create_fetch_waiter(), left_s)

    def _fetch_after_rest(self, fetcher: Any) -> None:
        """Have the next fetch go out when taking has rested: fetched at once, its records would only age."""
        if not self._taker.has_room:
            return
        rest_s = self._taker.rest_until - monotonic()
        if rest_s > 0:
            self.thread_loop.call_later(rest_s, self._taker.tell, fetcher)
        else:
            self._taker.tell(fetcher)

    def _flowing(self) -> bool:
        return self.consumer.flow_active

    async def _wait(self, waiter: asyncio.Future[None], timeout_s: float) -> None:
        self._waker = self.thread_loop.create_future()
        try:
            await asyncio.wait(
                (waiter, self._waker), timeout=max(0.0, timeout_s), return_when=asyncio.FIRST_COMPLETED
            )
            if waiter.done():
                waiter.result()  # authorization and coordination errors arrive here
        except KafkaError as error:
            if self._link is not None and self._link.taken is not None:
                raise self._link.taken from error  # aiokafka knows no better than "unknown error"
            raise
        finally:
            waiter.cancel()
            self._waker = None

    # -- positions ----------------------------------------------------------------------------

    async def seek_records(self, partitions: Iterable[TP]) -> dict[TP, int | None]:
        """Seek per-record partitions to their committed offsets, as Faust does."""
        wanted = [ensure_aiokafka_TP(tp) for tp in partitions]
        if not wanted:
            return {}
        found: dict[TP, int | None] = await self.call_thread(
            self._ensure_consumer().seek_to_committed, *wanted
        )
        return found

    async def start_batches(self, wanted: Mapping[TP, object]) -> dict[TP, PartitionStart]:
        """Seek batch partitions; see `streams.transport_positions.start`."""
        epoch = self.epoch

        async def seek() -> dict[TP, PartitionStart]:
            starts = await start(self._ensure_consumer(), wanted, still_wanted=lambda: self.epoch == epoch)
            for tp, begun in starts.items():
                self._taker.expect(tp, begun.start, begun.lost, epoch)
            self._wake()  # something may have been fetched already
            return starts

        return await self.run_in_thread(seek())

    async def hold(self, partitions: Iterable[TP]) -> None:
        """Keep assigned batch partitions out of every fetch until `release`."""
        wanted = [ensure_aiokafka_TP(tp) for tp in partitions]

        async def pause() -> None:
            consumer = self._ensure_consumer()
            for tp in wanted:
                # Any position will do, but one without would hold up the fetches of its broker.
                consumer.seek(tp, 0)
            consumer.pause(*wanted)

        await self.run_in_thread(pause())

    async def release(self, partitions: Iterable[TP]) -> None:
        """Let held partitions flow from where `start_batches` set them."""
        wanted = [ensure_aiokafka_TP(tp) for tp in partitions]

        async def resume() -> None:
            self._ensure_consumer().resume(*wanted)

        await self.run_in_thread(resume())

    async def commit_positions(self, offsets: Mapping[TP, int]) -> bool:
        """Commit offsets *next to read*; see `streams.transport.commit`."""
        try:
            async with asyncio.timeout(LONGEST_COMMIT_S):
                return await self.run_in_thread(commit_offsets(self._ensure_consumer(), offsets))
        except (ConsumerNotStarted, ConsumerStoppedError, TimeoutError) as error:
            log.warning("commit_failed", error=repr(error))
            return False
