"""The worker without Kafka and threads: runs in, learned state, dead letters and snapshots out.

One object, touched by one thread. User state (by partition) and the model are kept apart: what
`PartitionState` holds is never read by a learner except through the columns of a batch.

Order of one batch: decode, dead-letter, fold user state, predict and score, learn, mark touched
users. Lists are made at the tick, from what was learned by then.

Restart (until checkpoints hold the state): the log is folded again from its beginning. Below the
committed offset of a partition nothing is dead-lettered or owed a snapshot again, and nothing is
published before the end of the log at start has been reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from learners.user_state import (
    ALREADY_APPLIED,
    DUPLICATE,
    FUTURE,
    LATE,
    WRONG_PARTITION,
    PartitionState,
)
from schemas.checks import decode_item, withdrawn_item_id
from schemas.deadletters import Reason, Rejected, Stage
from schemas.decoding import decode_events, rejected_at
from schemas.errors import ContractError, StateError, UnavailableError
from schemas.learner import Interactions
from schemas.runs import EventBatch, Int8, Int32, RecordRun
from schemas.settings import Settings
from schemas.topics import topic_names
from serving.metrics import WorkerMetrics

from .commits import CommitGate, Positions
from .latency import Rate
from .letters import LetterWriter
from .model import Model, concatenated
from .outbox import Outbox
from .partition import Partition, Readiness, Shelf
from .publisher import Publisher
from .sinks import Sink

COMMIT_EVERY_S = 1.0
CLOCK_ALLOWANCE_MS = 3_600_000
FOLD_REASONS: dict[int, tuple[Reason, str]] = {
    LATE: ("late", "behind the partition's watermark by more than worker.lateness_ms"),
    FUTURE: ("future", "ahead of the broker's clock by more than worker.future_skew_ms"),
    WRONG_PARTITION: (
        "wrong_partition",
        "murmur2 of the key names another partition; set the producer's partitioner",
    ),
}


class WorkerCore:
    """See the module's docstring.

    Parameters
    ----------
    settings : Settings
    sink : Sink
        Takes dead letters and snapshots.
    metrics : WorkerMetrics
    clock : Callable[[], float]
        Seconds since 1970; the broker's clock is compared with it.
    published_before : bool
        Whether there may be lists on the recommendations topic: then nothing is published before
        the log at start has been folded, for `knows.offset` must not fall.
    """

    def __init__(
        self,
        settings: Settings,
        sink: Sink,
        metrics: WorkerMetrics,
        *,
        clock: Callable[[], float] = time.time,
        published_before: bool = True,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.model = Model(settings.learner, settings.ranker)
        self.partitions: dict[int, Partition] = {}
        self.shelves: dict[int, Shelf] = {}
        self.names = topic_names(settings.kafka.prefix)
        self.rate = Rate()
        self.n_learned = self.n_duplicates = 0
        self.n_committed = 0  # sum of committed offsets, as last acknowledged
        self.n_dead: dict[str, int] = {}
        self._sink = sink
        self._clock = clock
        self._published_before = published_before
        self._hash_key = int(settings.worker.hash_key, 16)
        self._sequence = 0
        self.readiness = Readiness()
        self._gate = CommitGate()
        self._letters = LetterWriter(sink, self._gate)
        self.publisher = Publisher(settings, self.model, self.partitions, sink, self._gate, metrics, clock)
        self._safe: Positions = {}
        self._next_capture_s = 0.0
        self._applied_s = 0.0

    # -- assignment -----------------------------------------------------------------------------

    def assign(self, topic: str, partition: int, *, start: int, committed: int | None, end: int) -> int:
        """Take a partition, or go on with one; its records come from `start` on.

        Returns
        -------
        int
            Events that retention removed before this process could fold them.

        Raises
        ------
        StateError
            Committed is what this worker never read: another one wrote meanwhile, or the topic
            was created anew.
        """
        is_catalogue = topic == self.names.catalogue
        held: Partition | Shelf | None = (self.shelves if is_catalogue else self.partitions).get(partition)
        if committed is not None and committed > end:
            raise StateError(
                f"{topic}[{partition}] ends at offset {end} but {committed} is committed: the topic was"
                " created anew; choose another worker.group_id or delete the old group's offsets"
            )
        if held is not None:
            position = held.next_offset
            if committed is not None and committed > position:
                raise StateError(
                    f"{topic}[{partition}] was committed up to {committed} by another worker of this group;"
                    f" this one has read up to {position} and ends"
                )
            return 0
        if committed is None:
            self._safe.setdefault((topic, partition), start)
        if is_catalogue:
            # Lists wait for the catalogue however new it is: it says what was withdrawn.
            self.shelves[partition] = Shelf(
                next_offset=start, live_from=committed or 0, end_at_start=end, end_seen=end
            )
            return 0  # a compacted log keeps every key
        self.partitions[partition] = Partition(
            state=self._new_state(partition, start),
            outbox=Outbox(),
            model_users=np.full(1024, -1, dtype=np.int32),
            live_from=committed or 0,
            end_at_start=start if committed is None and not self._published_before else end,
            end_seen=end,
            first_offset=start,
        )
        return max(0, start - committed) if committed is not None else 0

    def position(self, topic: str, partition: int) -> int | None:
        """Offset next to read, None before the partition was ever held."""
        if topic == self.names.catalogue:
            shelf = self.shelves.get(partition)
            return None if shelf is None else shelf.next_offset
        part = self.partitions.get(partition)
        return None if part is None else part.next_offset

    def see_end(self, topic: str, partition: int, end: int) -> None:
        """Note the log end that the consumer knows."""
        held = (self.shelves if topic == self.names.catalogue else self.partitions).get(partition)
        if held is not None:
            held.end_seen = max(held.end_seen, end)

    def _new_state(self, partition: int, start: int) -> PartitionState:
        worker, learner, n = self.settings.worker, self.settings.learner, self.settings.kafka.partitions
        return PartitionState(
            partition,
            n_partitions=n,
            history=learner.history,
            seen=learner.seen,
            dedup_window=worker.dedup_window,
            lateness_ms=worker.lateness_ms,
            future_skew_ms=worker.future_skew_ms,
            session_gap_ms=worker.session_gap_ms,
            max_users=max(1, learner.max_users // n),
            next_offset=start,
        )

    @property
    def ready(self) -> bool:
        """Whether every assigned partition, of both topics, was folded up to its end at start."""
        return (
            bool(self.partitions)
            and all(part.caught_up for part in self.partitions.values())
            and all(shelf.next_offset >= shelf.end_at_start for shelf in self.shelves.values())
        )

    def recovered_ratio(self) -> float:
        """Share of the log at start that has been folded; 1 when caught up."""
        parts = self.partitions.values()
        total = sum(max(0, part.end_at_start - part.first_offset) for part in parts)
        left = sum(max(0, part.end_at_start - part.next_offset) for part in parts)
        return 1.0 - left / total if total else 1.0

    def lag_records(self) -> int:
        """Log end as last seen minus position next to read, all partitions."""
        return sum(part.lag for part in self.partitions.values())

    def lag_seconds(self) -> float:
        """Age of the newest applied event of the partition that is furthest behind; 0 without lag."""
        waiting = [part.last_broker_ts_ms for part in self.partitions.values() if part.lag]
        oldest = min((ts for ts in waiting if ts), default=0)
        return max(0.0, self._clock() - oldest / 1000) if oldest else 0.0

    def n_pending(self) -> int:
        """Users that owe a snapshot, and sends that the broker has not acknowledged."""
        return self.publisher.n_pending + self._gate.n_in_flight

    def now_s(self) -> float:
        """The clock's time."""
        return self._clock()

    def safe_positions(self) -> Positions:
        """Positions whose dead letters and snapshots the broker has; what may be committed."""
        return dict(self._safe)

    # -- input ----------------------------------------------------------------------------------

    def apply(self, runs: list[RecordRun]) -> None:
        """Learn from what arrived; catalogue first."""
        started = time.perf_counter()
        self._sequence += 1
        events = []
        for run in runs:
            if run.topic == self.names.catalogue:
                self._shelve(run)
            else:
                events.append(run)
        folded = [interactions for run in events if (interactions := self._fold(run)) is not None]
        if folded:
            self._learn(folded)
        self.publisher.sync_items()
        self._applied_s += time.perf_counter() - started

    def _fold(self, run: RecordRun) -> Interactions | None:
        part = self.partitions.get(run.partition)
        if part is None:  # revoked while the run waited: its next owner reads it again
            return None
        with self.metrics.stage("decode"):
            batch = decode_events(
                run, users=part.state.users, items=self.model.items, hash_key=self._hash_key
            )
        for rejected in batch.rejected:
            self._bury_event(part, run, rejected, "decode")
        with self.metrics.stage("fold"):
            folded = part.state.fold(batch)
        n_applied = len(folded.rows)
        self.n_learned += n_applied
        self.metrics.applied.inc(n_applied)
        self.rate.add(self._clock(), n_applied)
        if n_applied < len(batch):
            self._account(part, run, batch, folded.status)
        if not n_applied:
            return None
        part.last_broker_ts_ms = int(run.timestamps_ms[-1])
        interactions = folded.interactions
        rows = folded.rows
        live = batch.offsets[rows] >= part.live_from
        users = interactions.users
        part.outbox.touch(users[live], batch.broker_ts_ms[rows][live], self._sequence)
        interactions.users = self._model_users(part, users)
        return interactions

    def _model_users(self, part: Partition, users: Int32) -> Int32:
        """Model user slots of local `users`; a user's row is named at their first event."""
        n = len(part.state.users)
        if n > len(part.model_users):
            grown = np.full(max(n, 2 * len(part.model_users)), -1, dtype=np.int32)
            grown[: len(part.model_users)] = part.model_users
            part.model_users = grown
        slots = part.model_users[users]
        for local in np.unique(users[slots < 0]):
            part.model_users[local] = self.model.users.get(part.state.users.id_of(int(local)))
        return part.model_users[users]

    def _learn(self, folded: list[Interactions]) -> None:
        batch = concatenated(folded)
        # One client with a wrong clock, or an event of today amid a replay, must not make all else old.
        batch.ts_ms = np.minimum(batch.ts_ms, self._stream_time_ms() + CLOCK_ALLOWANCE_MS)
        with self.metrics.stage("learn"):
            learned = self.model.learn(batch, self.model.catalogue.unavailable(int(batch.ts_ms.max())))
        self.metrics.scored_events.inc(learned.scored)
        self.metrics.stepped_events.inc(learned.stepped)
        self.metrics.drifts.inc(learned.drifts)
        self.metrics.skipped_steps.inc(learned.discarded_steps)

    def _stream_time_ms(self) -> int:
        """Event time that a quarter of the partitions with events have reached (upper quartile)."""
        watermarks = sorted(
            part.state.watermark_ms for part in self.partitions.values() if part.state.watermark_ms >= 0
        )
        return watermarks[3 * (len(watermarks) - 1) // 4]

    def _shelve(self, run: RecordRun) -> None:
        """Take in a run of the catalogue, message by message: there are few, and each is its own."""
        shelf = self.shelves.get(run.partition)
        if shelf is None:
            return
        outcomes = self.metrics.catalogue_items
        for index, (key, value) in enumerate(zip(run.keys, run.values, strict=True)):
            offset = int(run.offsets[index])
            if offset < shelf.next_offset:
                continue
            try:
                if value is None:
                    self.model.catalogue.withdraw(withdrawn_item_id(key))
                    outcomes.labels("withdrawn").inc()
                else:
                    self.model.put_item(decode_item(value, key))
                    outcomes.labels("taken").inc()
            except ContractError as error:
                outcomes.labels("dead_letter").inc()
                if offset >= shelf.live_from:
                    self.metrics.dead_letters.labels("catalogue", error.reason).inc()
                    self._letters.send(run, rejected_at(index, error), "decode", self._sequence)
        shelf.next_offset = max(shelf.next_offset, run.next_offset)

    # -- dead letters ---------------------------------------------------------------------------

    def _account(self, part: Partition, run: RecordRun, batch: EventBatch, status: Int8) -> None:
        """Count what was not applied, and bury what has a reason."""
        n_duplicates = int(np.count_nonzero(status == DUPLICATE))
        self.n_duplicates += n_duplicates
        self.metrics.events.labels("duplicate").inc(n_duplicates)
        self.metrics.events.labels("already_applied").inc(int(np.count_nonzero(status == ALREADY_APPLIED)))
        for code, (reason, message) in FOLD_REASONS.items():
            for place in np.flatnonzero(status == code):
                field = None if reason == "wrong_partition" else "ts_ms"
                rejected = Rejected(index=int(batch.rows[place]), reason=reason, field=field, message=message)
                self._bury_event(part, run, rejected, "fold")

    def _bury_event(self, part: Partition, run: RecordRun, rejected: Rejected, stage: Stage) -> None:
        offset = int(run.offsets[rejected.index])
        if offset < max(part.live_from, part.next_offset if stage == "decode" else 0):
            return
        self.n_dead[rejected.reason] = self.n_dead.get(rejected.reason, 0) + 1
        self.metrics.events.labels("dead_letter").inc()
        self.metrics.dead_letters.labels("behaviour", rejected.reason).inc()
        self._letters.send(run, rejected, stage, self._sequence)

    # -- output ---------------------------------------------------------------------------------

    def tick(self) -> None:
        """Publish what is due, let deliveries report, move the safe positions on.

        Learning and publishing share the thread: a tick goes on while users are due and it has
        taken less time than learning did since the last one (at least one chunk, 20 ms).
        """
        budget_s = max(0.02, self._applied_s)
        self._applied_s = 0.0
        self.readiness = Readiness(
            ready=self.ready, partitions=len(self.partitions), recovered=self.recovered_ratio()
        )
        if self.readiness.ready:
            deadline = time.perf_counter() + budget_s
            while self.publisher.publish_chunk(self._sequence) and time.perf_counter() < deadline:
                pass
        with self.metrics.stage("deliver"):
            self._sink.poll()
        now_s = self._clock()
        if now_s >= self._next_capture_s:
            self._next_capture_s = now_s + COMMIT_EVERY_S
            self._advance_safe()

    def close(self) -> None:
        """Publish what is pending, interval or not, and wait for the broker."""
        if self.ready:
            while self.publisher.publish_chunk(self._sequence, interval_ms=0):
                pass
        left = self._sink.flush(10.0)
        if left:
            raise UnavailableError(f"{left} messages were not delivered at shutdown; they will be made again")
        self._advance_safe()
        self._advance_safe()

    def unavailable(self) -> NDArray[np.bool_]:
        """Mask of items that may not be recommended now."""
        return self.model.catalogue.unavailable(int(self._clock() * 1000))

    def _advance_safe(self) -> None:
        behaviour, catalogue = self.names.behaviour, self.names.catalogue
        # While the log is folded again, a position below the committed one would undo a commit.
        positions = {
            (behaviour, index): part.next_offset
            for index, part in self.partitions.items()
            if part.next_offset >= part.live_from
        } | {
            (catalogue, index): shelf.next_offset
            for index, shelf in self.shelves.items()
            if shelf.next_offset >= shelf.live_from
        }
        self._safe.update(self._gate.advance(self._sequence, positions, self.publisher.oldest_sequence()))
