"""What every role runs beside Faust: the learner thread, the HTTP port, commits, the watchdog, the drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import structlog
from faust.types import TP, StreamT
from mode import Service
from prometheus_client import Gauge

from schemas.errors import StateError, TopicError
from schemas.runs import RecordRun
from schemas.settings import Settings
from schemas.topics import TopicNames, model_topics

from .batch_topic import BatchOptions, batch_topic
from .commits import Positions
from .context import collect_rarely
from .faust_app import ReelflowApp
from .learner_thread import Core, LearnerThread
from .memory_ahead import MemoryAhead
from .topics import partition_counts
from .transport import Consumer, commit
from .worker_port import Telling, WorkerPort

log = structlog.get_logger(__name__)

COMMIT_EVERY_S = 1.0
WATCH_EVERY_S = 1.0
BROKER_AWAY_S = 5.0
DRAIN_S = 20.0
ASSIGN_TIMEOUT_S = 60.0
ANSWERING_S = 1.0
EXIT_S = 5.0


def end_within(seconds: float, code: int) -> None:
    """End the process with `code` if it is still there after `seconds`.

    For when everything is stored and sent: a consumer whose broker is gone takes minutes to close.
    """

    def end() -> None:
        log.warning("exit_not_waited_for", seconds=seconds)
        logging.shutdown()
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


class RoleMetrics(Protocol):
    """What the service measures itself."""

    @property
    def queue_runs(self) -> Gauge:
        """Runs that wait for the thread."""


class RoleHoldings(Protocol):
    """What the service tells and asks of the partitions held."""

    def see_end(self, topic: str, partition: int, end: int) -> None:
        """Note the log end that the consumer knows."""


class RoleCore(Core, Protocol):
    """What the service asks of a role's core."""

    names: TopicNames
    n_committed: int
    not_ready_because: str

    @property
    def metrics(self) -> RoleMetrics:
        """The role's metrics."""

    @property
    def held(self) -> RoleHoldings:
        """The partitions held."""

    @property
    def n_done(self) -> int:
        """Records dealt with, for the log."""

    def safe_positions(self) -> Positions:
        """What may be committed."""


class RoleService(Service):
    """Base of the roles' services.

    Parameters
    ----------
    settings : Settings
    core : RoleCore
        Touched by the learner thread only.
    answers : Telling
        What the HTTP port serves.
    """

    def __init__(self, settings: Settings, core: RoleCore, answers: Telling, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings = settings
        self._role = core
        self._app: ReelflowApp | None = None
        self._memory = MemoryAhead()
        self.thread = LearnerThread(
            core,
            queue_runs=settings.worker.queue_runs,
            tick_s=settings.worker.tick_ms / 1000,
            on_failure=self.fail,
        )
        self._port = WorkerPort(answers, self.thread, host=settings.worker.host, port=settings.worker.port)
        self._committed: dict[tuple[str, int], int] = {}

    def bind(self, app: ReelflowApp) -> None:
        """The app that reads for us; its shutdown begins with our drain."""
        self._app = app
        app.on_before_shutdown.connect(self._drain, weak=False)

    async def on_start(self) -> None:
        """The port, then the state, then the thread; only then does the consumer start.

        Everything alive by then is left out of collections.
        """
        await self._port.start()
        await self.prepare()
        self.thread.start()
        self._memory.start()
        gc.collect()
        gc.freeze()
        gc.enable()
        collect_rarely()

    async def prepare(self) -> None:
        """Bring state to where it was; before anything is read."""

    async def on_stop(self) -> None:
        """Close the port; the drain has been before."""
        await self._port.stop()
        self._memory.stop()

    def fail(self, error: BaseException) -> None:
        """End the process with `error`; from any thread."""
        if self._app is not None:
            self._app.crash_from_thread(error)

    def read(self, topic: str, options: BatchOptions) -> None:
        """An agent that hands the runs of `topic` to the learner thread."""
        if self._app is None:
            raise StateError("a service reads only for an app that it is bound to")
        thread, app = self.thread, self._app

        async def agent(stream: StreamT[RecordRun]) -> None:
            async for run in stream:
                await self.room()
                # What waits for a place while a rebalance passes would come after the state that it
                # does not follow on; the new assignment reads it again.
                await thread.submit(run, partial(_is_epoch, app, _epoch(app)))

        self._app.agent(batch_topic(self._app, topic, options), name=topic)(agent)

    async def room(self) -> None:
        """Wait until more may be read, for roles whose work goes on behind the thread."""

    # -- tasks ----------------------------------------------------------------------------------

    @Service.task
    async def _commit_and_watch_lag(self) -> None:
        while not self.should_stop:
            await self.sleep(COMMIT_EVERY_S)
            self._role.metrics.queue_runs.set(self.thread.waiting)
            self._watch_broker()
            if self.thread.alive:
                await self.each_second()
                await self._commit()

    async def each_second(self) -> None:
        """What a role does now and then, before it commits."""

    @Service.task
    async def _watchdog(self) -> None:
        limit = self._settings.worker.stuck_after_s
        while not self.should_stop:
            await self.sleep(WATCH_EVERY_S)
            if self.thread.busy_s() > limit:
                await self.crash(
                    StateError(
                        f"the learner thread has been busy for more than {limit} s (worker.stuck_after_s)"
                    )
                )

    def _watch_broker(self) -> None:
        """Not ready while no broker answers; nothing else changes, and it passes by itself."""
        consumer = None if self._app is None else self._app.consumer
        if not isinstance(consumer, Consumer) or not self.thread.alive:
            return
        silent_s = consumer.broker_silent_s()
        away = silent_s > BROKER_AWAY_S
        if away != bool(self._role.not_ready_because):
            log.warning("broker_away" if away else "broker_back", silent_s=round(silent_s, 1))
        self._role.not_ready_because = "no broker answers" if away else ""

    async def _commit(self) -> None:
        app = self._app
        if app is None:
            return
        ends = {tp: end for tp in app.consumer.assignment() if (end := app.consumer.highwater(tp))}

        def read() -> Positions:
            for tp, end in ends.items():
                self._role.held.see_end(tp.topic, tp.partition, end)
            return self._role.safe_positions()

        try:
            safe = await self.thread.look(read)
        except TimeoutError:
            return  # a long batch; the next round covers it
        new = {
            tp: offset
            for tp, offset in _assigned(app, safe)
            if self._committed.get((tp.topic, tp.partition)) != offset
        }
        if new and await commit(app, new):
            self._committed |= {(tp.topic, tp.partition): offset for tp, offset in new.items()}
            self._role.n_committed = sum(
                offset
                for (topic, _), offset in self._committed.items()
                if topic == self._role.names.behaviour
            )

    async def _drain(self, *_: Any, **__: Any) -> None:
        """Learn what waits, publish what is owed, commit: before the consumer goes."""
        if not self.thread.alive:
            return
        if self.thread.busy_s() > self._settings.worker.stuck_after_s:
            end_within(EXIT_S, 1)
            return  # it will not come back; what it held is made again from the journal
        if not await self.thread.stop(DRAIN_S):
            log.error("drain_incomplete", seconds=DRAIN_S)
            end_within(EXIT_S, 1)
            return
        await asyncio.to_thread(self.settle)
        app = self._app
        if app is not None and not app.crashed:
            safe = dict(_assigned(app, self._role.safe_positions()))
            answering = isinstance(app.consumer, Consumer) and app.consumer.broker_silent_s() < ANSWERING_S
            if safe and answering:  # recovery does not need it
                await commit(app, safe)
        log.info("drained", records_done=self._role.n_done)
        end_within(EXIT_S, 1 if app is not None and app.crashed else 0)

    def settle(self) -> None:
        """Wait for what the drained core left to other threads."""


def _epoch(app: ReelflowApp) -> int:
    consumer = app.consumer
    return consumer.epoch if isinstance(consumer, Consumer) else 0


def _is_epoch(app: ReelflowApp, epoch: int) -> bool:
    return _epoch(app) == epoch


def _assigned(app: ReelflowApp, positions: Positions) -> Iterator[tuple[TP, int]]:
    assigned = app.consumer.assignment()
    for (topic, partition), offset in positions.items():
        if TP(topic, partition) in assigned:
            yield TP(topic, partition), offset


def check_topics_exist(settings: Settings, model: str | None = None) -> None:
    """Refuse to start on topics that are not there, or of another size; with `model` on its topics too.

    Raises
    ------
    TopicError
        Names each.
    """
    wanted = settings.kafka.partitions
    single = None if model is None else model_topics(settings.kafka.prefix, model).dense
    problems = [
        f"{name} has {n} partitions, kafka.partitions says {wanted}" if n else f"{name} does not exist"
        for name, n in partition_counts(settings.kafka, model=model).items()
        if n != (1 if name == single else wanted)
    ]
    if problems:
        raise TopicError("; ".join(problems) + "; create topics with `reelflow topics create`")
