"""Publishes a model to its topics: what changed, once a sync interval, one transaction at a time.

1. On the learner thread, `sync`: drain the touched keys, choose as many as the budget of bytes
   allows, copy their values (`streams.model_export`).
2. On the publisher's thread: wait until the journal is durable up to that state (a replica must
   never know what a restarted learner would not), encode, write all as one transaction, the head
   last. A transaction that did not come about puts its keys back.

After a start everything counts as changed, so the topics become what the restored model is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
import structlog
from msgspec import Struct

from schemas.errors import StateError, UnavailableError
from schemas.model_values import HeadPosition, HeadValue
from schemas.settings import Settings
from schemas.topics import ModelTopics, model_topics

from .commits import Positions
from .model_export import Exported, ModelRecord, Parts, Stamp, export_model, records_of, shape_of
from .pending_keys import PendingKeys

log = structlog.get_logger(__name__)

CLOSE_S: Final = 30.0
FIRST_BYTES: Final = 1_500.0
"""Of a record, until some were written."""


class Transactions(Protocol):
    """Where transactions are written; see `streams.model_transactions`."""

    def write(self, records: Sequence[ModelRecord]) -> None:
        """Write all or nothing.

        Raises
        ------
        UnavailableError
            Nothing was written; the next call may succeed.
        FencedError
            Another learner of this name has begun.
        """


class _Job(Struct):
    exported: Exported
    head: HeadValue
    n_named: int  # item slots that were named before


class ModelPublisher:
    """Publishes one model; `sync` and `close` belong to the learner thread.

    Parameters
    ----------
    model : Parts
    transactions : Transactions
    settings : Settings
    epoch : int
    lineage : str
    previous : HeadValue or None
        The newest head in the topic: slots it names need not be named first again.
    wait_durable : Callable[[int], None]
        Returns when what was applied up to a sequence will survive; called on the publisher's thread.
    clock : Callable[[], float]
        Seconds since 1970.

    Raises
    ------
    StateError
        The topics hold another model of the same or a later epoch.
    """

    def __init__(
        self,
        model: Parts,
        transactions: Transactions,
        settings: Settings,
        *,
        epoch: int,
        lineage: str,
        previous: HeadValue | None = None,
        wait_durable: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_previous(previous, epoch, lineage, settings)
        self._model = model
        self._transactions = transactions
        self._epoch, self._lineage = epoch, lineage
        self._name = settings.worker.model_name
        self._topics: ModelTopics = model_topics(settings.kafka.prefix, self._name)
        self._shape = shape_of(settings.learner)
        self._interval_s = settings.learner.sync_interval_s
        self._bytes_per_s = settings.learner.sync_bytes_per_s
        self._wait_durable = wait_durable
        self._clock = clock
        self._items, self._users = PendingKeys(), PendingKeys()
        same = previous is not None and previous.lineage == lineage
        self._n_named = previous.n_items if previous is not None and same else 0
        self._n_known = 0  # item slots that were added to what waits
        self._record_bytes = FIRST_BYTES
        self._tokens = float(self._bytes_per_s) * self._interval_s
        self._synced_s = clock() - self._interval_s
        self._cond = threading.Condition()
        self._job: _Job | None = None
        self._busy = False
        self._ended = False
        self._failed: list[_Job] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="model-topics", daemon=True)
        self.n_records = 0
        self.n_bytes = 0
        self.n_transactions = 0
        if model.embeddings is not None:
            self._users.add(np.arange(len(model.users), dtype=np.int32), clock())

    @property
    def n_waiting(self) -> int:
        """Changed keys that no transaction has carried yet."""
        return len(self._items) + len(self._users)

    def oldest_s(self) -> float:
        """How long the longest waiting key has waited."""
        now_s = self._clock()
        return max(self._items.oldest_s(now_s), self._users.oldest_s(now_s))

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def sync(self, sequence: int, positions: Positions, events_learned: int, *, last: bool = False) -> bool:
        """Hand over what changed, if the interval has passed and nothing is being written.

        Parameters
        ----------
        sequence : int
            Batches applied.
        positions : Positions
            Next to read, by topic and partition.
        events_learned : int
        last : bool
            Whether to wait for whatever is being written, and to leave interval and budget aside.

        Raises
        ------
        FencedError
            Another learner of this name has begun.
        """
        now_s = self._clock()
        if last:
            self.wait(CLOSE_S)
        with self._cond:
            if self._error is not None:
                raise self._error
            if self._busy or not (last or now_s - self._synced_s >= self._interval_s):
                return False
            failed, self._failed = self._failed, []
        for job in failed:
            self._items.add(job.exported.items, now_s)
            self._users.add(job.exported.users, now_s)
            self._n_named = min(self._n_named, job.n_named)
        self._drain(now_s)
        job = self._chosen(sequence, positions, events_learned, now_s, last=last)
        with self._cond:
            self._job, self._busy = job, True
            self._cond.notify_all()
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until nothing is being written; whether that was so in time."""
        with self._cond:
            return self._cond.wait_for(lambda: not self._busy, timeout_s)

    def close(self, sequence: int, positions: Positions, events_learned: int) -> None:
        """Publish all that waits, and end the thread."""
        if self._thread.is_alive():
            self.sync(sequence, positions, events_learned, last=True)
        self.stop()

    def stop(self) -> None:
        """End the thread after what it writes now."""
        with self._cond:
            self._ended = True
            self._cond.notify_all()
        if self._thread.is_alive():
            self._thread.join(60.0)

    def _drain(self, now_s: float) -> None:
        model = self._model
        for learner in (
            model.transitions,
            model.popularity,
            model.heat,
            model.embeddings,
            model.cooccurrence,
            model.ease,
        ):
            if learner is not None:
                keys = learner.touched()
                self._items.add(keys.items, now_s)
                self._users.add(keys.users, now_s)
        n = len(model.items)
        if n > self._n_known:
            self._items.add(np.arange(self._n_known, n, dtype=np.int32), now_s)
            self._n_known = n

    def _chosen(
        self, sequence: int, positions: Positions, events_learned: int, now_s: float, *, last: bool
    ) -> _Job:
        elapsed = now_s - self._synced_s
        self._synced_s = now_s
        most = self._bytes_per_s * max(self._interval_s, 1.0)
        self._tokens = min(most, self._tokens + elapsed * self._bytes_per_s)
        room = self.n_waiting if last else int(self._tokens / self._record_bytes)
        n_items = room * len(self._items) // max(self.n_waiting, 1) if room < self.n_waiting else room
        items = self._items.take(n_items, now_s, first=self._n_named)
        users = self._users.take(max(room - len(items), 0), now_s)
        n_named = self._n_named
        # New slots are taken in their order: below the highest one all are named.
        self._n_named = max(n_named, int(items.max(initial=-1)) + 1)
        stamp = Stamp(epoch=self._epoch, sequence=sequence, lineage=self._lineage)
        head = HeadValue(
            epoch=self._epoch,
            sequence=sequence,
            lineage=self._lineage,
            model=self._name,
            published_at_ms=int(now_s * 1000),
            events_learned=events_learned,
            n_items=self._n_named,
            n_waiting=self.n_waiting,
            positions=[
                HeadPosition(topic=topic, partition=partition, next_offset=offset)
                for (topic, partition), offset in sorted(positions.items())
            ],
            shape=self._shape,
        )
        exported = export_model(self._model, items, users, stamp)
        return _Job(exported=exported, head=head, n_named=n_named)

    # -- the publisher's thread -----------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._cond:
                self._cond.wait_for(lambda: self._job is not None or self._ended)
                job, self._job = self._job, None
            if job is None:
                return
            try:
                self._write(job)
            except UnavailableError as error:
                log.warning("model_transaction_failed", error=str(error))
                self._failed.append(job)
            except BaseException as error:
                log.exception("model_publisher_died")
                with self._cond:
                    self._error = error
            with self._cond:
                self._busy = False
                self._cond.notify_all()

    def _write(self, job: _Job) -> None:
        self._wait_durable(job.head.sequence)
        records = list(records_of(job.exported, job.head, self._topics))
        self._transactions.write(records)
        n_bytes = sum(len(record.key) + len(record.value) for record in records)
        self._tokens -= n_bytes
        self.n_records += len(records)
        self.n_bytes += n_bytes
        self.n_transactions += 1
        n_keys = len(job.exported.items) + len(job.exported.users)
        if n_keys >= 64:  # few records are mostly dense parameters
            self._record_bytes += 0.5 * (n_bytes / n_keys - self._record_bytes)


def check_previous(previous: HeadValue | None, epoch: int, lineage: str, settings: Settings) -> None:
    """Refuse to publish over another model of the same or a later epoch: replicas would not follow.

    Raises
    ------
    StateError
        As said, with what to do.
    """
    if previous is None or previous.epoch < epoch:
        return
    if previous.lineage == lineage and previous.epoch == epoch:
        return
    name = settings.worker.model_name
    raise StateError(
        f"the topics of model {name!r} hold epoch {previous.epoch}, and this learner's state is of epoch"
        f" {epoch}: it is not the state that they were made from. Give worker.model_name another value,"
        " bring the state back, or delete the model's topics and create them anew"
    )
