"""`reelflow worker`: learner and ranker in one process, put together.

Event loop: Faust (transport, agents), the worker's HTTP port, commits, the watchdog.
Learner thread: everything that learns, ranks and produces.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec
import structlog
from faust.types import TP, StreamT
from mode import Service
from prometheus_client import CollectorRegistry

from schemas.errors import ReelflowError, StateError, TopicError
from schemas.runs import RecordRun
from schemas.settings import Settings
from schemas.topics import topic_names
from serving.metrics import WorkerMetrics

from .answers import Answers
from .batch_topic import BatchOptions, PartitionStart, batch_topic
from .checkpoint.epochs import Tenure, claim
from .checkpoint.owners import Owner
from .checkpoint.store import open_store
from .context import confluent_config, state_folder, state_url
from .core import WorkerCore
from .device import use_half_the_cores
from .faust_app import ReelflowApp, build_app, run_app
from .keeper import Keeper
from .learner_thread import LearnerThread
from .recovery import recover
from .sinks import KafkaSink
from .topics import has_records, partition_counts
from .transport import Consumer, commit
from .warm_up import warm_up
from .worker_port import WorkerPort

log = structlog.get_logger(__name__)

COMMIT_EVERY_S = 1.0
WATCH_EVERY_S = 1.0
BROKER_AWAY_S = 5.0
DRAIN_S = 20.0
ASSIGN_TIMEOUT_S = 60.0


class NotAloneError(ReelflowError):
    """Another worker of the same group holds partitions.

    A worker is the single writer of its model. Operator action: stop the other one, or give this
    one another worker.model_name (and worker.group_id, if that is set).
    """


class WorkerService(Service):
    """Runs the learner thread, the HTTP port, commits and the watchdog beside Faust."""

    def __init__(self, settings: Settings, core: WorkerCore, tenure: Tenure, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.core = core
        self._settings = settings
        self._tenure = tenure
        self._keeper: Keeper | None = None
        self._app: ReelflowApp | None = None
        self._held: set[int] = set()
        self._was_alone = False
        self.thread = LearnerThread(
            core,
            queue_runs=settings.worker.queue_runs,
            tick_s=settings.worker.tick_ms / 1000,
            on_failure=self._on_thread_failure,
        )
        self._port = WorkerPort(
            Answers(core), self.thread, host=settings.worker.host, port=settings.worker.port
        )
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
        keeper = Keeper(
            self._tenure,
            interval_s=self._settings.worker.checkpoint_interval_s,
            kept=self._settings.worker.checkpoints_kept,
            metrics=self.core.metrics,
            on_failure=self._on_thread_failure,
        )
        keeper.start()  # a long recovery must not look like a dead owner
        self._keeper = keeper
        recovered = await asyncio.to_thread(recover, self.core, self._tenure, self._settings.kafka)
        if recovered.n_lost:
            log.error("events_lost", n_lost=recovered.n_lost)
            self.core.metrics.lost_events.inc(recovered.n_lost)
        log.info("recovered", epoch=self._tenure.epoch, **msgspec.structs.asdict(recovered))
        self.core.keep(keeper, self._tenure.epoch)
        self.thread.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)

    async def on_stop(self) -> None:
        """Close the port; the drain has been before."""
        await self._port.stop()
        if self._keeper is not None:
            await asyncio.to_thread(self._keeper.end)

    # -- partitions -----------------------------------------------------------------------------

    def position(self, partition: TP) -> int | None:
        """Where to read on."""
        return self.core.position(partition.topic, partition.partition)

    async def assigned(self, starts: Mapping[TP, PartitionStart]) -> None:
        """Take partitions over; a worker that never held all of them is not alone and ends."""
        behaviour = self.core.names.behaviour
        self._held |= {tp.partition for tp in starts if tp.topic == behaviour}
        n_expected = self._settings.kafka.partitions
        if any(tp.topic == behaviour for tp in starts):
            if len(self._held) == n_expected:
                self._was_alone = True
            elif self._was_alone:
                log.warning("another_worker_joined", partitions_held=len(self._held), of=n_expected)
            else:
                raise NotAloneError(
                    f"another worker of this group holds {n_expected - len(self._held)} of {n_expected}"
                    " partitions; a worker must be the only one of its worker.model_name"
                )

        def take() -> float:
            for tp, start in starts.items():
                lost = self.core.assign(
                    tp.topic, tp.partition, start=start.start, committed=start.committed, end=start.end
                )
                if lost:
                    log.error("events_lost", topic=tp.topic, partition=tp.partition, n_lost=lost)
                    self.core.metrics.lost_events.inc(lost)
            return self.core.recovered_ratio()

        ratio = await self.thread.ask(take, ASSIGN_TIMEOUT_S)
        log.info("partitions_assigned", n=len(starts), recovered_ratio=round(ratio, 4))

    async def revoked(self, partitions: frozenset[TP]) -> None:
        """Partitions may go; their state stays, for they come back."""
        self._held -= {tp.partition for tp in partitions if tp.topic == self.core.names.behaviour}

    def lost(self, partition: TP, n: int) -> None:
        """Retention removed events before they were read."""
        if n > 0 and self.core.position(partition.topic, partition.partition) is not None:
            self.core.metrics.lost_events.inc(n)

    # -- tasks ----------------------------------------------------------------------------------

    @Service.task
    async def _commit_and_watch_lag(self) -> None:
        while not self.should_stop:
            await self.sleep(COMMIT_EVERY_S)
            self.core.metrics.queue_runs.set(self.thread.waiting)
            self._watch_broker()
            if self.thread.alive:
                await self._commit()

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
        if away != bool(self.core.not_ready_because):
            log.warning("broker_away" if away else "broker_back", silent_s=round(silent_s, 1))
        self.core.not_ready_because = "no broker answers" if away else ""

    async def _commit(self) -> None:
        app = self._app
        if app is None:
            return
        ends = {tp: end for tp in app.consumer.assignment() if (end := app.consumer.highwater(tp))}

        def read() -> dict[tuple[str, int], int]:
            for tp, end in ends.items():
                self.core.held.see_end(tp.topic, tp.partition, end)
            return self.core.safe_positions()

        try:
            safe = await self.thread.ask(read)
        except TimeoutError:
            return  # a long batch; the next round covers it
        assigned = app.consumer.assignment()
        new = {
            TP(topic, partition): offset
            for (topic, partition), offset in safe.items()
            if self._committed.get((topic, partition)) != offset and TP(topic, partition) in assigned
        }
        if new and await commit(app, new):
            self._committed |= {(tp.topic, tp.partition): offset for tp, offset in new.items()}
            self.core.n_committed = sum(
                offset for (topic, _), offset in self._committed.items() if topic == self.core.names.behaviour
            )

    async def _drain(self, *_: Any, **__: Any) -> None:
        """Learn what waits, publish what is owed, commit: before the consumer goes."""
        if not self.thread.alive:
            return
        if not await self.thread.stop(DRAIN_S):
            log.error("drain_incomplete", seconds=DRAIN_S)
            return
        app = self._app
        if app is not None and not app.crashed:
            assigned = app.consumer.assignment()
            safe = {
                TP(topic, partition): offset
                for (topic, partition), offset in self.core.safe_positions().items()
                if TP(topic, partition) in assigned
            }
            if safe:
                await commit(app, safe)
        log.info(
            "drained",
            events_learned=self.core.held.counts().applied,
            snapshots=self.core.publisher.n_snapshots,
        )

    def _on_thread_failure(self, error: BaseException) -> None:
        if self._app is not None:
            self._app.crash_from_thread(error)


def run_worker(settings: Settings, *, take_over: bool = False) -> NoReturn:
    """Check the topics, claim the state, compile, and run until a signal; see `run_app` for how it ends.

    Raises
    ------
    TopicError
        Topics are missing, or have another number of partitions than kafka.partitions.
    StateError
        Another process is the writer of this model.
    """
    _check_topics(settings)
    published_before = has_records(settings.kafka, topic_names(settings.kafka.prefix).recommendations)
    tenure = claim_state(settings, "worker", take_over=take_over)
    if settings.learner.embeddings:
        use_half_the_cores()
    log.info("warming_up")
    log.info("warmed_up", seconds=round(warm_up(settings), 2))
    registry = CollectorRegistry()
    sink = KafkaSink(confluent_config(settings.kafka), compression=settings.worker.compression)
    core = WorkerCore(settings, sink, WorkerMetrics(registry), published_before=published_before)
    service = WorkerService(settings, core, tenure)
    app = build_app(settings, services=[service], consumer_group_instance_id=instance_id(settings))
    service.bind(app)
    options = BatchOptions(
        max_records=settings.worker.max_run_records,
        buffer_runs=settings.worker.queue_runs,
        position=service.position,
        on_assigned=service.assigned,
        on_revoked=service.revoked,
        on_lost=service.lost,
    )
    _read(app, core.names.behaviour, options, service.thread)
    _read(app, core.names.catalogue, options, service.thread)
    log.info("worker_starting", model=settings.worker.model_name, device=core.model.device, group=app.conf.id)
    run_app(app)


def instance_id(settings: Settings) -> str:
    """Static member of the group: a worker started again on the same state goes on at once.

    One with another state directory is another member, and finds out that it is not alone.
    """
    place = f"{state_url(settings)}\n{state_folder(settings, 'worker')}"
    return settings.worker.instance_id or f"reelflow-{hashlib.sha256(place.encode()).hexdigest()[:16]}"


def claim_state(settings: Settings, role: str, *, take_over: bool) -> Tenure:
    """Become the writer of this role's state."""
    store = open_store(state_url(settings)).sub(state_folder(settings, role))
    tenure = claim(store, owner=Owner.here(role), take_over=take_over, now_s=time.time)
    log.info("state_claimed", epoch=tenure.epoch, store=state_url(settings))
    return tenure


def _read(app: ReelflowApp, topic: str, options: BatchOptions, thread: LearnerThread) -> None:
    """An agent that hands the runs of `topic` to the learner thread."""

    async def agent(stream: StreamT[RecordRun]) -> None:
        async for run in stream:
            await thread.submit(run)

    app.agent(batch_topic(app, topic, options), name=topic)(agent)


def _check_topics(settings: Settings) -> None:
    wanted = settings.kafka.partitions
    problems = [
        f"{name} has {n} partitions, kafka.partitions says {wanted}" if n else f"{name} does not exist"
        for name, n in partition_counts(settings.kafka).items()
        if n != wanted
    ]
    if problems:
        raise TopicError("; ".join(problems) + "; create topics with `reelflow topics create`")
