"""Runs in, interactions out: decode, dead-letter, fold user state, mark who is owed a list."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

import numpy as np
import structlog

from learners.user_state import ALREADY_APPLIED, DUPLICATE, FUTURE, LATE, WRONG_PARTITION, Folded
from schemas.checks import decode_item, withdrawn_item_id
from schemas.content import TAGS, ItemContent, ItemTags, decode_content
from schemas.deadletters import Reason, Rejected, Stage
from schemas.decoding import Scanned, decode_events, rejected_at, scan_run
from schemas.decoding_together import decode_together
from schemas.errors import ContractError
from schemas.fork_join import ALONE, ForkJoin
from schemas.interning import Interner
from schemas.learner import Interactions
from schemas.records import Item
from schemas.runs import EventBatch, Int8, Int32, RecordRun
from schemas.settings import Settings
from schemas.topics import topic_names
from serving.metrics import WorkerMetrics

from .heavy import HeavyWatch
from .letters import LetterWriter
from .list_views import ListViews
from .partition import Holdings, Partition, Shelf

log = structlog.get_logger(__name__)

FOLD_REASONS: Final[dict[int, tuple[Reason, str]]] = {
    LATE: ("late", "behind the partition's watermark by more than worker.lateness_ms"),
    FUTURE: ("future", "ahead of the broker's clock by more than worker.future_skew_ms"),
    WRONG_PARTITION: (
        "wrong_partition",
        "murmur2 of the key names another partition; set the producer's partitioner",
    ),
}

LEAST_SHARED: Final = 8_192
"""Events of a batch from which on two threads decode and fold: only a backlog has so many. With fewer,
all runs are decoded together."""


class Names(Protocol):
    """What intake needs of a model: its names, and a place for catalogue facts."""

    @property
    def items(self) -> Interner:
        """Item slots."""

    @property
    def users(self) -> Interner:
        """Model user slots."""

    @property
    def has_user_rows(self) -> bool:
        """Whether any learner has something of its own for a user."""

    def put_item(self, item: Item) -> None:
        """Take in catalogue facts."""

    def withdraw(self, item_id: str) -> None:
        """Withdraw an item."""

    def put_content(self, content: ItemContent) -> None:
        """Take in an item's vectors."""

    def put_tags(self, found: ItemTags) -> None:
        """Take in the tags found in an item."""

    def drop_content(self, item_id: str) -> None:
        """An item has neither any more."""


class Intake:
    """Folds runs into what is held.

    Parameters
    ----------
    settings : Settings
    model : Names
    held : Holdings
    letters : LetterWriter or None
        None only counts what another role buries.
    metrics : WorkerMetrics
    views : ListViews, optional
        Is shown what became of listed items.
    fork_join : ForkJoin
        Threads to decode and fold with.
    heavy : HeavyWatch, optional
        Is shown what arrived.
    """

    def __init__(
        self,
        settings: Settings,
        model: Names,
        held: Holdings,
        letters: LetterWriter | None,
        metrics: WorkerMetrics,
        views: ListViews | None = None,
        fork_join: ForkJoin = ALONE,
        heavy: HeavyWatch | None = None,
    ) -> None:
        self._fork_join = fork_join
        self._heavy = heavy
        self._views = views
        self._model = model
        self._held = held
        self._letters = letters
        self._metrics = metrics
        self._hash_key = int(settings.worker.hash_key, 16)
        self._names = topic_names(settings.kafka.prefix)
        self._sequence = 0

    def fold(self, run: RecordRun, sequence: int, *, reports: bool = True) -> Interactions | None:
        """As `fold_many`, of one run; None when nothing was applied."""
        return next(iter(self.fold_many([run], sequence, reports=reports)), None)

    def fold_many(
        self, runs: Sequence[RecordRun], sequence: int, *, reports: bool = True
    ) -> list[Interactions]:
        """Apply runs of behaviour events as part of batch `sequence`; what each gave, where it gave anything.

        What needs one run alone, or one partition alone, two threads do where there is much of it. Names
        are given in the order of the runs, whoever does what.

        Without `reports` nobody is shown what arrived and what became of listed items.
        """
        self._sequence = sequence
        batches = self._decoded(runs)
        if reports and self._heavy is not None:
            self._heavy.take(batches)
        folded = self._folded(batches)
        found = []
        for run, batch, one in zip(runs, batches, folded, strict=True):
            interactions = self._taken(run, batch, one, reports=reports)
            if interactions is not None:
                found.append(interactions)
        if reports and self._views is not None:
            self._views.tell()
        return found

    def _decoded(self, runs: Sequence[RecordRun]) -> list[EventBatch]:
        with self._metrics.stage("decode"):
            if len(runs) > 1 and sum(map(len, runs)) < LEAST_SHARED:
                tables = [self._held.partitions[run.partition].state.users for run in runs]
                together = decode_together(
                    runs, users=tables, items=self._model.items, hash_key=self._hash_key
                )
                if together is not None:
                    return together
            batches = []
            scanned: list[Scanned] = self._fork_join.each(
                [partial(scan_run, run) for run in runs], list(map(len, runs)), LEAST_SHARED
            )
            for run, found in zip(runs, scanned, strict=True):
                users = self._held.partitions[run.partition].state.users
                batches.append(
                    decode_events(
                        run, users=users, items=self._model.items, hash_key=self._hash_key, scanned=found
                    )
                )
        return batches

    def _folded(self, batches: Sequence[EventBatch]) -> list[Folded]:
        """Each batch folded into its partition, batches of a partition in their order."""
        places: dict[int, list[int]] = {}
        for place, batch in enumerate(batches):
            places.setdefault(batch.partition, []).append(place)

        def fold(partition: int) -> list[Folded]:
            state = self._held.partitions[partition].state
            return [state.fold(batches[place]) for place in places[partition]]

        with self._metrics.stage("fold"):
            sizes = [sum(len(batches[place]) for place in of_one) for of_one in places.values()]
            done = self._fork_join.each(
                [partial(fold, partition) for partition in places], sizes, LEAST_SHARED
            )
        folded: dict[int, Folded] = {}
        for of_one, results in zip(places.values(), done, strict=True):
            folded.update(zip(of_one, results, strict=True))
        return [folded[place] for place in range(len(batches))]

    def _taken(
        self, run: RecordRun, batch: EventBatch, folded: Folded, *, reports: bool
    ) -> Interactions | None:
        """Bury, count, mark who is owed a list; None when nothing was applied."""
        part = self._held.partitions[run.partition]
        for rejected in batch.rejected:
            self._bury(part, run, rejected, "decode")
        n_applied = len(folded.rows)
        part.counts.applied += n_applied
        self._metrics.applied.inc(n_applied)
        if n_applied < len(batch):
            self._account(part, run, batch, folded.status)
        if not n_applied:
            return None
        part.last_broker_ts_ms = int(run.timestamps_ms[-1])
        interactions = folded.interactions
        if reports and self._views is not None:
            self._views.take(run.partition, interactions, batch.surfaces[folded.rows], part.listed)
        if self._letters is not None:
            rows, users = folded.rows, interactions.users
            live = batch.offsets[rows] >= part.live_from
            part.outbox.touch(users[live], batch.broker_ts_ms[rows][live])
        interactions.users = self._model_users(part, interactions.users)
        return interactions

    def _model_users(self, part: Partition, users: Int32) -> Int32:
        """Model user slots of local `users`; a user's row is named at their first event.

        -1 for all where no learner has user rows.
        """
        part.grow()
        if not self._model.has_user_rows:
            return part.model_users[users]
        slots = part.model_users[users]
        new = np.unique(users[slots < 0])
        if len(new):
            part.model_users[new] = self._model.users.intern_texts(part.state.users.texts_at(new))
        return part.model_users[users]

    def shelve(self, run: RecordRun, sequence: int) -> None:
        """Take in a run of the catalogue or of what was made of it, message by message: there are few."""
        shelf = self._held.shelved[run.topic][run.partition]
        if run.topic == self._names.catalogue:
            self._shelve_items(run, shelf, sequence)
        else:
            self._shelve_content(run)
        shelf.next_offset = max(shelf.next_offset, run.next_offset)

    def _shelve_content(self, run: RecordRun) -> None:
        """Vectors and tags; what breaks the contract is counted: nobody but us writes these topics."""
        outcomes = self._metrics.content_records
        with_vectors = run.topic == self._names.item_content
        for key, value in zip(run.keys, run.values, strict=True):
            try:
                if value is None:
                    if with_vectors:
                        self._model.drop_content(withdrawn_item_id(key))
                    outcomes.labels("withdrawn").inc()
                    continue
                if with_vectors:
                    self._model.put_content(decode_content(value, key))
                else:
                    self._model.put_tags(TAGS.decode_keyed(value, key))
                outcomes.labels("taken").inc()
            except ContractError as error:
                outcomes.labels("refused").inc()
                log.warning("content_record_refused", topic=run.topic, cause=str(error)[:200])

    def _shelve_items(self, run: RecordRun, shelf: Shelf, sequence: int) -> None:
        outcomes = self._metrics.catalogue_items
        for index, (key, value) in enumerate(zip(run.keys, run.values, strict=True)):
            try:
                if value is None:
                    self._model.withdraw(withdrawn_item_id(key))
                    outcomes.labels("withdrawn").inc()
                else:
                    self._model.put_item(decode_item(value, key))
                    outcomes.labels("taken").inc()
            except ContractError as error:
                outcomes.labels("dead_letter").inc()
                if self._letters is not None and int(run.offsets[index]) >= shelf.live_from:
                    self._metrics.dead_letters.labels("catalogue", error.reason).inc()
                    self._letters.send(run, rejected_at(index, error), "decode", sequence)

    def _account(self, part: Partition, run: RecordRun, batch: EventBatch, status: Int8) -> None:
        """Count what was not applied, and bury what has a reason."""
        n_duplicates = int(np.count_nonzero(status == DUPLICATE))
        part.counts.duplicates += n_duplicates
        self._metrics.events.labels("duplicate").inc(n_duplicates)
        self._metrics.events.labels("already_applied").inc(int(np.count_nonzero(status == ALREADY_APPLIED)))
        for code, (reason, message) in FOLD_REASONS.items():
            for place in np.flatnonzero(status == code):
                field = None if reason == "wrong_partition" else "ts_ms"
                rejected = Rejected(index=int(batch.rows[place]), reason=reason, field=field, message=message)
                self._bury(part, run, rejected, "fold")

    def _bury(self, part: Partition, run: RecordRun, rejected: Rejected, stage: Stage) -> None:
        part.counts.bury(rejected.reason)
        self._metrics.events.labels("dead_letter").inc()
        if self._letters is None or int(run.offsets[rejected.index]) < part.live_from:
            return
        self._metrics.dead_letters.labels("behaviour", rejected.reason).inc()
        self._letters.send(run, rejected, stage, self._sequence)
