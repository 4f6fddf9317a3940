"""`reelflow learner`: the model alone, for rankers in other processes.

As a worker, with journal and checkpoints, but it makes no lists and writes no dead letters (it
counts them): rankers do. What changed in the model goes to the model's topics once a sync interval.

Two learners of one name cannot both write: the state's epoch is claimed, and the transactional id
of the model topics. The second one refuses while the first one lives, or (``--take-over``) ends it.
One of another name on the same log is a challenger; rankers follow it when they are told to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, NoReturn
from uuid import uuid4

import structlog
from prometheus_client import CollectorRegistry

from schemas.errors import OwnedError
from schemas.model_values import HeadValue
from schemas.settings import Settings
from serving.metrics import WorkerMetrics

from .checkpoint.epochs import Tenure
from .context import confluent_config
from .core import WorkerCore
from .faust_app import build_app, run_app
from .model_topics import ModelPublisher, check_previous
from .model_transactions import KafkaTransactions, read_head
from .role_service import check_topics_exist
from .sinks import KafkaSink
from .startup import packages_loading, prepare_kernels
from .worker import WorkerService, claim_state, instance_id, read_all

log = structlog.get_logger(__name__)

ROLE = "learner"
LOOK_S: Final = 0.5
LIVES_S: Final = 2.0


class LearnerService(WorkerService):
    """A worker's service whose core publishes its model once the state is what it was."""

    def __init__(
        self,
        settings: Settings,
        core: WorkerCore,
        tenure: Tenure,
        transactions: KafkaTransactions,
        **kwargs: Any,
    ) -> None:
        super().__init__(settings, core, tenure, **kwargs)
        self._transactions = transactions
        self._publisher: ModelPublisher | None = None

    async def prepare(self) -> None:
        """Bring the state to where it was, then begin to publish all of it."""
        await super().prepare()
        tenure, previous = self._tenure, read_head(self._settings)
        self.core.model.lineage = lineage_after(previous, self.core.model.lineage, self.core.sequence)

        def wait_durable(sequence: int) -> None:
            tenure.journal.wait_durable(sequence)
            tenure.check()

        self._publisher = ModelPublisher(
            self.core.model,
            self._transactions,
            self._settings,
            epoch=tenure.epoch,
            lineage=self.core.model.lineage,
            previous=previous,
            wait_durable=wait_durable,
        )
        self._publisher.start()
        self.core.syncs = self._publisher

    async def on_stop(self) -> None:
        """The publisher first: it waits for the journal."""
        if self._publisher is not None:
            self._publisher.stop()
        await super().on_stop()


def lineage_after(previous: HeadValue | None, lineage: str, sequence: int) -> str:
    """The lineage to publish under: a new one where the topics are ahead of the state.

    Then an older checkpoint was restored, and slots given out since may come to name other items.
    Replicas start anew with a new lineage.
    """
    if previous is None or previous.lineage != lineage or previous.sequence <= sequence:
        return lineage
    log.warning("model_lineage_renewed", sequence=sequence, published=previous.sequence)
    return uuid4().hex


def refuse_a_second(settings: Settings, lineage: str, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Refuse to start while a learner with another state publishes under this name.

    The claim of the state sees only who shares its store; this looks whether the head moves on.
    Waits a few sync intervals if the topics hold another model, and not at all otherwise.

    Raises
    ------
    OwnedError
        Somebody publishes.
    """
    head = read_head(settings)
    if head is None or head.lineage == lineage:
        return
    waited_s, longest_s = 0.0, LIVES_S + 3 * settings.learner.sync_interval_s
    while waited_s < longest_s:
        sleep(LOOK_S)
        waited_s += LOOK_S
        newer = read_head(settings)
        if newer is not None and newer.published_at_ms > head.published_at_ms:
            raise OwnedError(
                f"another learner publishes model {settings.worker.model_name!r} (epoch {newer.epoch}), with"
                " a state that is not in this store: stop it, or start with --take-over to end it; a"
                " challenger needs another worker.model_name"
            )


def run_learner(settings: Settings, *, take_over: bool = False) -> NoReturn:
    """Check the topics, claim state and model topics, compile, and run until a signal; see `run_app`.

    Raises
    ------
    TopicError
        Topics are missing, or of another size.
    StateError
        Another process is the writer of this model.
    """
    with packages_loading(settings):
        check_topics_exist(settings, settings.worker.model_name)
        tenure = claim_state(settings, ROLE, take_over=take_over)
        lineage = "" if tenure.base is None else str(tenure.base.meta["lineage"])
        # Before the claim: it would end a learner whose state is elsewhere.
        check_previous(read_head(settings), tenure.epoch, lineage, settings)
        if not take_over:
            refuse_a_second(settings, lineage)
        transactions = KafkaTransactions(settings)
        transactions.claim()
    prepare_kernels(settings)
    sink = KafkaSink(confluent_config(settings.kafka), compression=settings.worker.compression)
    core = WorkerCore(settings, sink, WorkerMetrics(CollectorRegistry()), published_before=False, tells=False)
    service = LearnerService(settings, core, tenure, transactions)
    app = build_app(
        settings, ROLE, services=[service], consumer_group_instance_id=instance_id(settings, ROLE)
    )
    read_all(app, service, settings)
    log.info(
        "learner_starting", model=settings.worker.model_name, device=core.model.device, group=app.conf.id
    )
    run_app(app)
