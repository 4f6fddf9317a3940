"""`reelflow ranker`: user state of its partitions, lists from a model that another process learns.

Any number of rankers share one consumer group, and with it the partitions. Behind the learner
thread a keeper writes each partition's state (`streams.unit_keeper`), and a follower reads model
and catalogue (`streams.replica_follower`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NoReturn

import structlog
from faust.types import TP
from msgspec import Struct
from prometheus_client import CollectorRegistry

from schemas.errors import ConfigurationError
from schemas.settings import Settings
from schemas.topics import topic_names
from serving.metrics import WorkerMetrics
from serving.ordering import is_mixed

from .batch_topic import PartitionStart
from .checkpoint.epochs import Tenure
from .checkpoint.owners import Owner
from .checkpoint.store import open_store
from .context import confluent_config, state_url
from .faust_app import batch_options, build_app, group_id, run_app
from .ranker_answers import RankerAnswers
from .ranker_core import RankerCore
from .replica_follower import ReplicaFollower
from .role_service import ASSIGN_TIMEOUT_S, RoleService, check_topics_exist
from .sinks import KafkaSink
from .startup import packages_loading, prepare_kernels
from .topics import has_records
from .unit import RestoredUnit, read_unit
from .unit_keeper import UnitKeeper

log = structlog.get_logger(__name__)

ROLE = "ranker"
PARKED_S = 5.0
"""A partition that was taken away and not given back for so long is another ranker's."""


class _Opened(Struct, frozen=True):
    tenure: Tenure
    unit: RestoredUnit | None


class RankerService(RoleService):
    """The service of a ranker.

    Partitions that a rebalance takes away and gives back keep their state; those that another
    ranker gets are written once more and released, as soon as the new assignment is known.
    """

    def __init__(
        self,
        settings: Settings,
        core: RankerCore,
        keeper: UnitKeeper,
        follower: ReplicaFollower,
        **kwargs: Any,
    ) -> None:
        answers = RankerAnswers(core, lambda: (follower.lag_records, follower.n_refused))
        super().__init__(settings, core, answers, **kwargs)
        self.core = core
        self._keeper = keeper
        self._follower = follower
        self._settled: asyncio.Future[None] | None = None
        self._parked_s: float | None = None

    async def prepare(self) -> None:
        """Begin to follow the model; partitions come with the first assignment."""
        self._keeper.start()
        self._follower.start()

    async def on_stop(self) -> None:
        """Keeper and follower last."""
        await super().on_stop()
        self._follower.stop()
        await asyncio.to_thread(self.settle)

    def settle(self) -> None:
        """Wait until every partition's last state is written and released."""
        if not self._keeper.close():
            log.error("units_not_written")

    # -- partitions -----------------------------------------------------------------------------

    async def revoked(self, partitions: frozenset[TP]) -> None:
        """Publish nothing of them any more; state stays until it is known who has them."""
        numbers = _numbers(partitions)
        self._parked_s = time.monotonic()
        if self.thread.alive:
            with suppress(TimeoutError):  # it happens all the same, after the batch at hand
                await self.thread.ask(lambda: self.core.park(numbers))

    def claimed(self, partitions: frozenset[TP]) -> None:
        """The new assignment is known: let go what is no longer ours."""
        numbers = _numbers(partitions)
        self._parked_s = None
        self._settled = asyncio.ensure_future(
            self.thread.ask(lambda: self.core.kept(numbers), ASSIGN_TIMEOUT_S)
        )

    async def load(self, partitions: frozenset[TP]) -> Mapping[TP, int | None]:
        """Claim and read the state of partitions that are new here; positions of all."""
        if self._settled is not None:
            await self._settled
        return {tp: await self._load(tp) for tp in sorted(partitions)}

    async def _load(self, tp: TP) -> int | None:
        partition, core = tp.partition, self.core
        held = await self.thread.ask(lambda: core.holds(partition), ASSIGN_TIMEOUT_S)
        if not held:
            cancelled = threading.Event()
            opening: Future[_Opened] = Future()
            threading.Thread(
                target=_run_into, args=(opening, lambda: self._open(tp, cancelled)), daemon=True
            ).start()
            try:
                opened = await asyncio.wrap_future(opening)
            except asyncio.CancelledError:
                cancelled.set()
                opening.add_done_callback(_close)
                raise
            # Whole even when a rebalance cancels this: then it is dropped like any other.
            await asyncio.shield(self.thread.ask(lambda: self._install(partition, opened), ASSIGN_TIMEOUT_S))
        return await self.thread.ask(lambda: core.position(partition), ASSIGN_TIMEOUT_S)

    def _open(self, tp: TP, cancelled: threading.Event) -> _Opened:
        tenure = self._keeper.claim(tp.partition, cancelled)
        base = tenure.base
        try:
            unit = None
            if base is not None:
                unit = read_unit(base.meta, base.units, tp.topic, tp.partition, self._settings)
        except BaseException:
            tenure.close()
            raise
        log.info(
            "partition_claimed",
            partition=tp.partition,
            epoch=tenure.epoch,
            position=None if unit is None else unit.position,
        )
        return _Opened(tenure, unit)

    def _install(self, partition: int, opened: _Opened) -> None:
        self.core.install(partition, opened.unit)
        self._keeper.hold(partition, opened.tenure, -1 if opened.unit is None else opened.unit.position)

    async def assigned(self, starts: Mapping[TP, PartitionStart]) -> None:
        """Records come from here on."""

        def begin() -> int:
            n_lost = 0
            for tp, start in starts.items():
                n_lost += self.core.begin(
                    tp.partition, start=start.start, committed=start.committed, end=start.end
                )
            return n_lost

        n_lost = await self.thread.ask(begin, ASSIGN_TIMEOUT_S)
        if n_lost:
            log.error("events_lost", n_lost=n_lost)
            self.core.metrics.lost_events.inc(n_lost)
        log.info("partitions_assigned", n=len(starts))

    async def each_second(self) -> None:
        """Let go what was taken away in a rebalance that left this ranker without partitions."""
        since = self._parked_s
        if since is not None and time.monotonic() - since > PARKED_S:
            self.claimed(frozenset())


def _numbers(partitions: frozenset[TP]) -> frozenset[int]:
    return frozenset(tp.partition for tp in partitions)


def _run_into(future: Future[_Opened], work: Any) -> None:
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - whoever waits gets it
        future.set_exception(error)


def _close(opening: Future[_Opened]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().tenure.close()


def run_ranker(settings: Settings) -> NoReturn:
    """Check the topics, compile, and run until a signal; see `run_app` for how it ends.

    Raises
    ------
    TopicError
        Topics are missing, or of another size.
    ConfigurationError
        Lists are to be ordered by what a ranker does not know.
    """
    if is_mixed(settings.ranker.order_weights):
        raise ConfigurationError(
            "ranker.order_weights",
            "a separate ranker orders lists by the next item alone: probabilities stay with the learner",
        )
    if settings.ranker.variants:
        raise ConfigurationError(
            "ranker.variants",
            "a separate ranker makes lists in one way: what becomes of them is not seen here",
        )
    model_name = settings.ranker.follow_model or settings.worker.model_name
    with packages_loading(settings):
        check_topics_exist(settings, model_name)
        published_before = has_records(settings.kafka, topic_names(settings.kafka.prefix).recommendations)
    prepare_kernels(settings)
    metrics = WorkerMetrics(CollectorRegistry())
    sink = KafkaSink(confluent_config(settings.kafka), compression=settings.worker.compression)
    failures: list[RankerService] = []

    def fail(error: BaseException) -> None:
        failures[0].fail(error)

    folder = f"{settings.kafka.prefix}/{ROLE}/{group_id(settings, ROLE)}"
    keeper = UnitKeeper(
        open_store(state_url(settings)).sub(folder),
        owner=Owner.here(ROLE),
        interval_s=settings.worker.checkpoint_interval_s,
        kept=settings.worker.checkpoints_kept,
        metrics=metrics,
        on_failure=fail,
    )
    follower = ReplicaFollower(settings, model_name, fail)
    core = RankerCore(settings, sink, metrics, follower, keeper, published_before=published_before)
    service = RankerService(settings, core, keeper, follower)
    failures.append(service)
    app = build_app(settings, ROLE, services=[service])
    service.bind(app)
    options = batch_options(
        settings,
        load=service.load,
        on_claim=service.claimed,
        on_assigned=service.assigned,
        on_revoked=service.revoked,
    )
    service.read(core.names.behaviour, options)
    log.info("ranker_starting", model=model_name, group=app.conf.id)
    run_app(app)
