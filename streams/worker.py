"""`reelflow worker`: learner and ranker in one process, put together.

Event loop: Faust (transport, agents), the worker's HTTP port, commits, the watchdog.
Learner thread: everything that learns, ranks and produces.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec
import structlog
from faust.types import TP
from prometheus_client import CollectorRegistry

from schemas.errors import ReelflowError
from schemas.settings import Settings
from schemas.topics import topic_names
from serving.metrics import WorkerMetrics

from .answers import Answers
from .batch_topic import PartitionStart
from .checkpoint.epochs import Tenure, claim
from .checkpoint.owners import Owner
from .checkpoint.store import open_store
from .context import confluent_config, state_folder, state_url
from .core import WorkerCore
from .faust_app import ReelflowApp, batch_options, build_app, run_app
from .keeper import Keeper
from .recovery import recover
from .role_service import ASSIGN_TIMEOUT_S, RoleService, check_topics_exist
from .sinks import KafkaSink
from .startup import packages_loading, prepare_kernels
from .topics import has_records

log = structlog.get_logger(__name__)


class NotAloneError(ReelflowError):
    """Another worker of the same group holds partitions.

    A worker is the single writer of its model. Operator action: stop the other one, or give this
    one another worker.model_name (and worker.group_id, if that is set).
    """


class WorkerService(RoleService):
    """The service of a process that learns: worker or learner."""

    def __init__(self, settings: Settings, core: WorkerCore, tenure: Tenure, **kwargs: Any) -> None:
        super().__init__(settings, core, Answers(core), **kwargs)
        self.core = core
        self._tenure = tenure
        self._keeper: Keeper | None = None
        self._held: set[int] = set()
        self._was_alone = False

    async def prepare(self) -> None:
        """Begin to keep the claim, then bring the state to where it was."""
        keeper = Keeper(
            self._tenure,
            interval_s=self._settings.worker.checkpoint_interval_s,
            kept=self._settings.worker.checkpoints_kept,
            metrics=self.core.metrics,
            on_failure=self.fail,
        )
        keeper.start()  # a long recovery must not look like a dead owner
        self._keeper = keeper
        recovered = await asyncio.to_thread(recover, self.core, self._tenure, self._settings.kafka)
        if recovered.n_lost:
            log.error("events_lost", n_lost=recovered.n_lost)
            self.core.metrics.lost_events.inc(recovered.n_lost)
        log.info("recovered", epoch=self._tenure.epoch, **msgspec.structs.asdict(recovered))
        self.core.keep(keeper, self._tenure.epoch)

    async def on_stop(self) -> None:
        """Close the port and end the tenure; the drain has been before."""
        await super().on_stop()
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


def run_worker(settings: Settings, *, take_over: bool = False) -> NoReturn:
    """Check the topics, claim the state, compile, and run until a signal; see `run_app` for how it ends.

    Raises
    ------
    TopicError
        Topics are missing, or have another number of partitions than kafka.partitions.
    StateError
        Another process is the writer of this model.
    """
    with packages_loading(settings):
        check_topics_exist(settings)
        published_before = has_records(settings.kafka, topic_names(settings.kafka.prefix).recommendations)
        tenure = claim_state(settings, "worker", take_over=take_over)
    prepare_kernels(settings)
    registry = CollectorRegistry()
    sink = KafkaSink(confluent_config(settings.kafka), compression=settings.worker.compression)
    core = WorkerCore(settings, sink, WorkerMetrics(registry), published_before=published_before)
    service = WorkerService(settings, core, tenure)
    app = build_app(settings, services=[service], consumer_group_instance_id=instance_id(settings))
    read_all(app, service, settings)
    log.info("worker_starting", model=settings.worker.model_name, device=core.model.device, group=app.conf.id)
    run_app(app)


def read_all(app: ReelflowApp, service: WorkerService, settings: Settings) -> None:
    """Read behaviour, catalogue and (learner.content) what was made of it, all partitions, for a service."""
    service.bind(app)
    options = batch_options(
        settings,
        position=service.position,
        on_assigned=service.assigned,
        on_revoked=service.revoked,
        on_lost=service.lost,
    )
    for topic in (service.core.names.behaviour, *service.core.held.shelved):
        service.read(topic, options)


def instance_id(settings: Settings, role: str = "worker") -> str:
    """Static member of the group: one started again on the same state goes on at once.

    One with another state directory is another member, and finds out that it is not alone.
    """
    place = f"{state_url(settings)}\n{state_folder(settings, role)}"
    return settings.worker.instance_id or f"reelflow-{hashlib.sha256(place.encode()).hexdigest()[:16]}"


def claim_state(settings: Settings, role: str, *, take_over: bool) -> Tenure:
    """Become the writer of this role's state."""
    store = open_store(state_url(settings)).sub(state_folder(settings, role))
    tenure = claim(store, owner=Owner.here(role), take_over=take_over, now_s=time.time)
    log.info("state_claimed", epoch=tenure.epoch, store=state_url(settings))
    return tenure
