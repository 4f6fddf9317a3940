"""Faust driver ``reelflow://host:port``: aiokafka's, with batch topics read in runs.

Faust finds it through the entry-point group ``faust.transports``. Batch topics
(`streams.batch_topic`) bring one message per fetched run; every other topic of the same app,
replies, producing and tables behave as with ``kafka://``. docs/transport.md says what it reaches
into.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, cast

from faust.exceptions import ImproperlyConfigured
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, AppT, ConsumerMessage
from mode import Service
from mode.supervisors import SupervisorStrategy

from schemas.runs import RecordRun

from .batch_topic import BatchTopic
from .transport_loading import Loading
from .transport_thread import RunThread, Taken

POLL_TOUCHES_PER_INTERVAL = 4
LONGEST_TOUCH_INTERVAL_S = 5.0


class ReadOffsets(defaultdict[TP, "int | None"]):
    """Up to where Faust has delivered each partition; nothing of batch topics.

    Faust forgets a partition when it is revoked, but notes a delivery that was under way then
    afterwards, and drops without a word whatever the next assignment delivers below it. Positions
    of batch topics are the taker's.
    """

    def __init__(self, ignored: Callable[[str], bool]) -> None:
        super().__init__(lambda: None)
        self._ignored = ignored

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        if not self._ignored(tp.topic):
            super().__setitem__(tp, offset)


class Consumer(driver.Consumer):
    """Consumer whose batch topics start where their position provider says."""

    _thread: RunThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._to_start: frozenset[TP] = frozenset()
        self._starting = asyncio.Lock()
        self._revoked = False  # and not assigned yet
        super().__init__(*args, **kwargs)
        self._read_offset = ReadOffsets(lambda topic: topic in self._thread.batches)
        self._loading = Loading(self.app, self._thread)

    async def on_stop(self) -> None:
        """Cancel the loads, then stop as Faust does."""
        await self._loading.cancel()
        await super().on_stop()

    def _new_consumer_thread(self) -> RunThread:
        return RunThread(self, loop=self.loop, beacon=self.beacon)

    # -- delivery -----------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Another number after each beginning and end of a rebalance."""
        return self._thread.epoch

    def wake(self) -> None:
        """Let a waiting fetch look again: there is room."""
        self._thread.wake()

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 - the base's signature
        records = await super()._getmany(active_partitions, timeout)
        # Taken before a rebalance, arriving after its seek: delivering it would skip what lies
        # between the new position and this run.
        stale = self._revoked or (isinstance(records, Taken) and records.epoch != self._thread.epoch)
        return {} if stale else records

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if not isinstance(record, RecordRun):
            return super()._to_message(tp, record)
        empty = not len(record)
        return ConsumerMessage(
            record.topic,
            record.partition,
            record.next_offset - 1 if empty else int(record.offsets[0]),
            0.0 if empty else float(record.timestamps_ms[-1]) / 1000.0,
            1,
            [],
            None,
            cast("Any", record),  # the interface says bytes; only our own schema sees it
            None,
            None,
            None,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    def on_buffer_full(self, tp: TP) -> None:
        """Hold per-record partitions out; batch topics are bounded by their room alone."""
        if tp.topic not in self._thread.batches:
            super().on_buffer_full(tp)

    def on_buffer_drop(self, tp: TP) -> None:
        """Let a per-record partition in again, at once."""
        if tp.topic not in self._thread.batches:
            super().on_buffer_drop(tp)
            self.wake()

    # -- rebalance ----------------------------------------------------------------------------

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Claim, then let Faust go on; aiokafka would only log an error from here."""
        self._begin_epoch(revoked=False)
        try:
            batches = self._find_batches()
            self._thread.begin_assignment(batches)
            self._to_start = frozenset(tp for tp in assigned if tp.topic in batches)
            for topic, partitions in self._by_topic(self._to_start):
                if topic.options.on_claim is not None:
                    topic.options.on_claim(partitions)
            await super().on_partitions_assigned(assigned, generation_id)
        except Exception as exc:
            await self.app.crash(exc)
            raise

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let Faust drop its buffers, then tell the owners of batch topics."""
        self._begin_epoch(revoked=True)
        try:
            await self._loading.cancel(revoked)
            await super().on_partitions_revoked(revoked)
            for topic, partitions in self._by_topic(revoked):
                if topic.options.on_revoked is not None:
                    await topic.options.on_revoked(partitions)
        except Exception as exc:
            await self.app.crash(exc)
            raise

    def _begin_epoch(self, *, revoked: bool) -> None:
        """Whatever was taken and has not reached an agent is read again after the assignment."""
        self._thread.epoch += 1
        self._revoked = revoked
        self._to_start = frozenset()
        for topic in self._thread.batches.values():
            topic.queue.clear()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Set every position; Faust calls it after a rebalance, before anything is fetched."""
        async with self._starting:
            batches = self._thread.batches
            records = [tp for tp in self.assignment() if tp.topic not in batches]
            found: dict[TP, Any] = dict(await self._thread.seek_records(records))
            # A rebalance may overtake this call, and cancels only what is begun by then: what began
            # later would load the same partitions once more beside the next assignment's start.
            to_start, self._to_start, epoch = self._to_start, frozenset(), self._thread.epoch
            # In the background: Faust gives up on this call when the brokers are away for long.
            for topic, partitions in self._by_topic(to_start):
                await self._loading.begin(topic, partitions, epoch)
            return found

    def _find_batches(self) -> dict[str, BatchTopic]:
        channels: defaultdict[str, list[Any]] = defaultdict(list)
        for channel in self.app.topics:
            for name in channel.topics:
                channels[name].append(channel)
        batches = {}
        for name, readers in channels.items():
            found = [reader for reader in readers if isinstance(reader, BatchTopic)]
            if found and len(readers) > 1:
                raise ImproperlyConfigured(f"batch topic {name} must have exactly one agent")
            if found:
                batches[name] = found[0]
        return batches

    def _by_topic(self, partitions: Iterable[TP]) -> list[tuple[BatchTopic, frozenset[TP]]]:
        grouped: defaultdict[str, set[TP]] = defaultdict(set)
        for tp in partitions:
            if tp.topic in self._thread.batches:
                grouped[tp.topic].add(tp)
        return [(self._thread.batches[name], frozenset(tps)) for name, tps in sorted(grouped.items())]

    # -- commit, health, errors ---------------------------------------------------------------

    async def commit_positions(self, offsets: Mapping[TP, int]) -> bool:
        """Commit offsets *next to read*; see `commit`."""
        return await self._thread.commit_positions(offsets)

    def broker_silent_s(self) -> float:
        """Seconds since any broker answered anything.

        An idle topic answers a fetch every 100 ms, and the group's coordinator a heartbeat every
        2 s, so more than a few seconds mean that no broker is there. Reading goes on by itself
        when one is back.
        """
        return self._thread.broker_silent_s()

    @Service.task
    async def _keep_poll_timer(self) -> None:
        # From this loop, not from the thread's: an application whose loop is stuck for longer
        # than max_poll_interval should lose its partitions.
        interval_s = min(
            self.app.conf.broker_max_poll_interval / POLL_TOUCHES_PER_INTERVAL, LONGEST_TOUCH_INTERVAL_S
        )
        while not self.should_stop:
            self._thread.touch_poll_timer()
            await self.sleep(interval_s)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Look for stalls of per-record topics; the worker watches the learner itself."""
        if tp.topic not in self._thread.batches:
            super().verify_event_path(now, tp)

    async def on_task_error(self, exc: BaseException) -> None:
        """End the app: going on would leave a gap behind the failed run."""
        await self.app.crash(exc)


class Transport(driver.Transport):
    """The driver."""

    Consumer: ClassVar[type[Consumer]] = Consumer
    driver_version = f"reelflow, {driver.Transport.driver_version}"


class CrashingSupervisor(SupervisorStrategy):
    """An agent that fails ends the app with its cause; it is never restarted.

    mode's own class of this name takes the cancellation of agents at shutdown for a crash.
    """

    async def restart_services(self, services: list[Any]) -> None:
        """Crash with the first cause that is an error."""
        for service in services:
            reason = service.crash_reason
            if reason is not None and not isinstance(reason, asyncio.CancelledError):
                await self.crash(reason)


async def commit(app: AppT, offsets: Mapping[TP, int]) -> bool:
    """Commit positions (offsets *next to read*) of partitions that this process holds.

    Goes through the consumer thread and never raises: a failure is logged and retried a few
    times, and the next commit covers it in any case.

    Returns
    -------
    bool
        Whether every given partition was committed; False also after a partition was lost.
    """
    consumer = app.consumer
    if not isinstance(consumer, Consumer):
        raise ImproperlyConfigured("the app's broker must have the scheme reelflow://")
    return await consumer.commit_positions(offsets)
