"""How batch partitions start: held out until their state is there and their position set."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import structlog
from aiokafka.errors import ConsumerStoppedError, IllegalStateError
from faust.types import TP, AppT

from schemas.errors import StateError

from .batch_topic import BatchOptions, BatchTopic
from .transport_positions import COMMITTED, report_lost

if TYPE_CHECKING:
    from .transport_thread import RunThread

log = structlog.get_logger(__name__)


class Loading:
    """The starts under way, each of the partitions of one topic and assignment.

    One is cancelled, and waited for, inside the rebalance that takes its partitions away, so
    none ever meets the assignment after it. Its errors end the app.
    """

    def __init__(self, app: AppT, thread: RunThread) -> None:
        self._app = app
        self._thread = thread
        self._tasks: dict[asyncio.Task[None], frozenset[TP]] = {}

    async def begin(self, topic: BatchTopic, partitions: frozenset[TP], epoch: int) -> None:
        """Hold `partitions` out and start them in the background, unless `epoch` has passed."""
        if self._thread.epoch == epoch:
            try:
                await self._thread.hold(partitions)
            except IllegalStateError as error:
                log.info("start_overtaken_by_rebalance", error=repr(error))
                return
        if self._thread.epoch != epoch:
            return
        task = asyncio.create_task(self._start(topic, partitions), name=f"start {topic.topics}")
        self._tasks[task] = partitions
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def cancel(self, partitions: Iterable[TP] | None = None) -> None:
        """Cancel the loads of any of `partitions`, or all, and wait until they have ended."""
        wanted = None if partitions is None else set(partitions)
        going = [task for task, tps in self._tasks.items() if wanted is None or tps & wanted]
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    async def _start(self, topic: BatchTopic, partitions: frozenset[TP]) -> None:
        options = topic.options
        try:
            starts = await self._thread.start_batches(await _positions(options, partitions))
            for tp, start in starts.items():
                if start.lost:
                    report_lost(topic, tp, start.lost)
            if options.on_assigned is not None:
                await options.on_assigned(starts)
            await self._thread.release(partitions)
        except (IllegalStateError, ConsumerStoppedError) as error:
            # The partitions are going: the rebalance or the stop that took them cancels this task.
            log.info("start_overtaken_by_rebalance", error=repr(error))
        except Exception as error:  # noqa: BLE001 - whatever it was ends the app
            await self._app.crash(error)


async def _positions(options: BatchOptions, partitions: frozenset[TP]) -> Mapping[TP, object]:
    if options.load is None:
        position = options.position
        return {tp: COMMITTED if position is None else position(tp) for tp in partitions}
    loaded = await options.load(partitions)
    if missing := sorted(partitions - loaded.keys()):
        names = ", ".join(f"{tp.topic}[{tp.partition}]" for tp in missing)
        raise StateError(f"no position was loaded for {names}")
    return {tp: loaded[tp] for tp in partitions}
