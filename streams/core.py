"""A role without Kafka, disk and threads: runs in, learned state, dead letters and snapshots out.

One object, touched by one thread. User state (by partition) and the model are kept apart: what
`PartitionState` holds is never read by a learner except through the columns of a batch.

The protocol of one batch of input, with what an abort between two steps leaves:

1. Cut each run at the position of its partition: what was applied before is dropped.
2. Append (sequence, ranges) to the journal; not yet durable.
3. Decode, dead-letter, fold user state, predict and score, learn.
   Viewers who turn away from their lists are a reason to adapt (`streams.drift_watch`): an entry of
   its own, since lists are not made again when the log is folded again.
4. At the tick: rank and encode; send as soon as the journal is durable up to the sequence.
5. Every few seconds: copy state and positions as one *cut*; once the broker has every dead letter
   of it, write it as a checkpoint (another thread); then its positions may be committed.

State that is lost with the process is made again from the checkpoint and the journalled tail, in
the journal's order (`streams.recovery`). So whatever was published follows from what will be
there again, and every event is in the state exactly once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from schemas.errors import StateError, UnavailableError
from schemas.learner import Interactions
from schemas.runs import RecordRun
from schemas.settings import Settings
from schemas.topics import topic_names
from serving.metrics import WorkerMetrics

from .checkpoint.journal import JournalEntry, JournalRun
from .commits import CommitGate, Positions
from .cut import Captured, capture, settings_of_fold, settings_of_state
from .cutting import Cutting
from .device import fork_join_of
from .drift_watch import DriftWatch
from .heavy import HeavyWatch
from .intake import Intake
from .item_table import ItemTable
from .latency import Rate
from .letters import LetterWriter
from .list_views import Asks, ListViews
from .model import Model, concatenated
from .partition import Holdings, Partition, Readiness, Shelf
from .publisher import Publisher
from .share import BEHIND, BEHIND_S, CAUGHT_UP, HASTY, LIVE_RECORDS, PublishShare
from .sinks import Sink
from .ways import ways_of

if TYPE_CHECKING:
    from .variants import VariantChoice

log = structlog.get_logger(__name__)

CLOCK_ALLOWANCE_MS = 3_600_000


class Keeper(Protocol):
    """Who makes a core's work durable; see `streams.keeper`."""

    def append(self, entry: JournalEntry) -> None:
        """Note a batch in the journal; must not wait for the disk."""

    def wait_durable(self, sequence: int, timeout_s: float | None = None) -> bool:
        """Whether the journal is durable up to `sequence`, in time; raises when it never will be."""

    def wants_cut(self) -> bool:
        """Whether it is time for a checkpoint, and there is someone to write it."""

    def take(self, captured: Captured) -> None:
        """Write a cut as a checkpoint, on another thread."""

    def close(self, captured: Captured) -> None:
        """Write the last cut, and wait for it."""

    def positions(self) -> Positions:
        """Positions of the newest durable checkpoint."""


class Syncs(Protocol):
    """Who publishes the model for other processes; see `streams.model_topics`."""

    def sync(self, sequence: int, positions: Positions, events_learned: int) -> bool:
        """Hand over what changed, if it is time."""

    def close(self, sequence: int, positions: Positions, events_learned: int) -> None:
        """Publish what waits."""


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
        Whether there may be lists on the recommendations topic: then a partition without state
        publishes nothing before its log at start has been folded, for `knows.offset` must not fall.
    tells : bool
        Whether dead letters and snapshots are written; a separate learner only counts.
    """

    def __init__(
        self,
        settings: Settings,
        sink: Sink,
        metrics: WorkerMetrics,
        *,
        clock: Callable[[], float] = time.time,
        published_before: bool = True,
        tells: bool = True,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.names = topic_names(settings.kafka.prefix)
        fork_join = fork_join_of(settings.worker.threads)
        self.model = Model(settings.learner, settings.ranker, fork_join)
        self.held = Holdings(settings, published_before=published_before)
        self.rate = Rate()
        self.sequence = 0
        """Batches applied so far, over all lives of the state."""
        self.epoch = 0
        self.n_committed = 0  # sum of committed offsets, as last acknowledged
        self.not_ready_because = "recovering"
        """Set by the role from outside: recovery, a broker that is away; empty when there is nothing."""
        self.readiness = Readiness()
        self._tells = tells
        self._sink = sink
        self._clock = clock
        self._letters_gate = CommitGate()
        self._snapshots_gate = CommitGate()
        letters = LetterWriter(sink, self._letters_gate) if tells else None
        self.drifted = ""
        """Surface on which viewers turned away last, in this process or the journal it went on from."""
        self.watch = DriftWatch(settings.learner.drift_delta) if settings.learner.drift_delta else None
        self.heavy = HeavyWatch(settings.worker.heavy_user_share, self.held.partitions, self.model.items)
        self.variants = _variants_of(settings, metrics) if tells else None
        """Who chooses between the ways to make lists, where there are several."""
        asking: list[Asks] = [asks for asks in (self.watch, self.variants) if asks is not None]
        self._intake = Intake(
            settings, self.model, self.held, letters, metrics, ListViews(*asking) if asking else None,
            fork_join, self.heavy,
        )  # fmt: skip
        self.publisher = Publisher(
            settings, self.model, self.held.partitions, sink, self._snapshots_gate, metrics, clock,
            self.variants,
        )  # fmt: skip
        self.publisher.before_send = self._before_send
        self.syncs: Syncs | None = None
        """Set by a role that publishes its model."""
        self._keeper: Keeper | None = None
        self.item_table = ItemTable(settings.learner.max_items)
        self.noted_settings = {"settings": settings_of_state(settings), "fold": settings_of_fold(settings)}
        """What every cut says of them; made once, for it takes a millisecond."""
        self._cutting = Cutting(
            self.model, self.held.partitions, self._letters_gate, lambda: self.capture(reuse=True)
        )
        self._applied_s = 0.0
        self._share = PublishShare()

    def keep(self, keeper: Keeper, epoch: int) -> None:
        """Make what follows durable with `keeper`, as the writer of `epoch`."""
        self._keeper = keeper
        self.epoch = self.publisher.epoch = epoch
        self.not_ready_because = ""

    # -- what is held ---------------------------------------------------------------------------

    @property
    def partitions(self) -> Mapping[int, Partition]:
        """Behaviour partitions."""
        return self.held.partitions

    @property
    def shelves(self) -> Mapping[int, Shelf]:
        """Catalogue partitions."""
        return self.held.shelves

    def assign(self, topic: str, partition: int, *, start: int, committed: int | None, end: int) -> int:
        """See `Holdings.assign`."""
        return self.held.assign(topic, partition, start=start, committed=committed, end=end)

    def position(self, topic: str, partition: int) -> int | None:
        """Offset next to read, None before the partition was ever held."""
        return self.held.position(topic, partition)

    @property
    def ready(self) -> bool:
        """Whether lists are being published."""
        return self.held.caught_up and not self.not_ready_because

    @property
    def n_done(self) -> int:
        """Events applied."""
        return self.held.counts().applied

    def recovered_ratio(self) -> float:
        """Share of the log at start that has been folded; 1 when caught up."""
        return self.held.recovered_ratio()

    def lag_records(self) -> int:
        """Log end as last seen minus position next to read, all partitions."""
        return sum(part.lag for part in self.partitions.values())

    def lag_seconds(self) -> float:
        """Age of the newest applied event of the partition that is furthest behind; 0 without lag."""
        waiting = [part.last_broker_ts_ms for part in self.partitions.values() if part.lag]
        oldest = min((ts for ts in waiting if ts), default=0)
        return max(0.0, self._clock() - oldest / 1000) if oldest else 0.0

    @property
    def is_behind(self) -> bool:
        """Whether events of more than a second ago are still to be read."""
        return not self.held.caught_up or self.lag_seconds() > BEHIND_S

    @property
    def batch_records(self) -> int:
        """Records of the next batch, about.

        As many as there may be where no lists are made, and with embeddings: the more, the fewer of them
        take gradient steps (`streams.overload`), which is what keeps the worker from falling behind.
        """
        most = self.settings.worker.max_run_records
        if not self._tells or self.model.embeddings is not None or self.is_behind:
            return most
        return min(most, LIVE_RECORDS)

    def n_pending(self) -> int:
        """Users that owe a snapshot, and sends that the broker has not acknowledged."""
        return self.publisher.n_pending + self._letters_gate.n_in_flight + self._snapshots_gate.n_in_flight

    def now_s(self) -> float:
        """The clock's time."""
        return self._clock()

    def unavailable(self) -> NDArray[np.bool_]:
        """Mask of items that may not be recommended now."""
        return self.model.catalogue.unavailable(int(self._clock() * 1000))

    # -- input ----------------------------------------------------------------------------------

    def apply(self, runs: list[RecordRun]) -> None:
        """Learn from what arrived; catalogue first."""
        self.deliver()  # lists of the tick before need not wait for the next one
        started = time.perf_counter()
        positions = self.held.positions()
        kept = [run for one in runs if (run := _cut_at_position(one, positions)) is not None]
        if kept:
            sequence = self.sequence + 1
            if self._keeper is not None:
                self._keeper.append(self._entry(sequence, kept))
            self._ingest(kept, sequence)
            self._adapt()
        self._applied_s += time.perf_counter() - started

    def refold(self, entry: JournalEntry, runs: list[RecordRun]) -> None:
        """Apply a journalled entry again; `runs` are the records of its ranges."""
        if entry.kind == "cut":
            self.sequence = entry.sequence
            self.settle()
            return
        if entry.kind == "drift":
            self.sequence, self.drifted = entry.sequence, entry.surface
            self.model.adapt()
            return
        for noted in entry.runs:
            shelves = self.held.shelved.get(noted.topic)
            if shelves is not None:
                shelves.setdefault(noted.partition, Shelf(next_offset=noted.first))
            elif noted.topic == self.names.behaviour and noted.partition not in self.held.partitions:
                self.held.begin(noted.partition, noted.first)
        # Content that was read before learner.content was turned off is not learned any more.
        known = {*self.held.shelved, self.names.behaviour}
        self._ingest([run for run in runs if run.topic in known], entry.sequence, reports=False)

    def settle(self) -> None:
        """Forget what ranking caches: what follows a cut depends on nothing that is not in it."""
        self.model.ranker.settle()

    def _adapt(self) -> None:
        """Begin to adapt where viewers turned away from their lists, unless the model does already."""
        for surface in [] if self.watch is None else self.watch.found():
            self.metrics.drifts.labels(surface).inc()
            if self.model.adaptation.is_on or not self.settings.learner.adapt_to_drift:
                continue
            self.sequence += 1
            if self._keeper is not None:
                self._keeper.append(
                    JournalEntry(sequence=self.sequence, runs=[], kind="drift", surface=surface)
                )
            self.drifted = surface
            self.model.adapt()
            log.warning("adapting", surface=surface, until_ms=self.model.adaptation.until_ms)

    def _entry(self, sequence: int, runs: list[RecordRun]) -> JournalEntry:
        positions: dict[tuple[str, int], int] = {}
        noted = []
        for run in runs:
            place = (run.topic, run.partition)
            first = positions.get(place, self.position(*place) or 0)
            positions[place] = run.next_offset
            by_value = run.topic in self.held.shelved  # compaction may remove what was read
            noted.append(
                JournalRun(
                    topic=run.topic,
                    partition=run.partition,
                    first=first,
                    next=run.next_offset,
                    keys=list(run.keys) if by_value else None,
                    values=list(run.values) if by_value else None,
                    offsets=run.offsets.tolist() if by_value else None,
                    timestamps=run.timestamps_ms.tolist() if by_value else None,
                )
            )
        return JournalEntry(sequence=sequence, runs=noted)

    def _ingest(self, runs: list[RecordRun], sequence: int, *, reports: bool = True) -> None:
        self.sequence = sequence
        shelved = self.held.shelved
        for run in runs:
            if run.topic in shelved:
                self._intake.shelve(run, sequence)
        behaviour = [run for run in runs if run.topic not in shelved]
        folded = self._intake.fold_many(behaviour, sequence, reports=reports)
        if folded:
            self._learn(folded, reports=reports)
        self.publisher.sync_items()
        self.item_table.tell(len(self.model.items))

    def _learn(self, folded: list[Interactions], *, reports: bool) -> None:
        batch = concatenated(folded)
        self.rate.add(self._clock(), len(batch))
        # One client with a wrong clock, or an event of today amid a replay, must not make all else old.
        batch.ts_ms = np.minimum(batch.ts_ms, self._stream_time_ms() + CLOCK_ALLOWANCE_MS)
        with self.metrics.stage("learn"):
            withdrawn = self.model.catalogue.unavailable(int(batch.ts_ms.max()))
            learned = self.model.learn(batch, withdrawn, reports=reports)
        self.metrics.scored_events.inc(learned.scored)
        self.metrics.scoring_seconds.inc(learned.scoring_s)
        self.metrics.stepped_events.inc(learned.stepped)
        self.metrics.taught_events.inc(learned.taught)
        self.metrics.exposures.inc(learned.exposures)
        self.metrics.hit_changes.inc(learned.drifts)
        self.metrics.skipped_steps.inc(learned.discarded_steps)

    def _stream_time_ms(self) -> int:
        """Event time that a quarter of the partitions with events have reached (upper quartile)."""
        watermarks = sorted(self.held.watermarks())
        return watermarks[3 * (len(watermarks) - 1) // 4]

    # -- output ---------------------------------------------------------------------------------

    def tick(self) -> None:
        """Publish what is due, let deliveries report, begin a checkpoint when it is time.

        Learning and publishing share the thread, see `streams.share`: a tick goes on while users are
        due and it has time (at least one chunk).
        """
        self.readiness = Readiness(
            ready=self.ready,
            partitions=len(self.partitions),
            recovered=self.recovered_ratio(),
            reason=self.not_ready_because or ("" if self.held.caught_up else "reading the log"),
        )
        if self.held.caught_up and self._tells:
            began_s = time.perf_counter()
            shares = BEHIND if self.is_behind else CAUGHT_UP
            shares = HASTY if self.model.ranker.hasty else shares
            until_s = self._share.begin(began_s, self._applied_s, self.publisher.adapt(began_s), shares)
            self.publisher.retract()
            self.deliver()
            while self.publisher.publish_chunk(self.sequence) and time.perf_counter() < until_s:
                pass
            self._share.end(began_s, time.perf_counter())
        self._applied_s = 0.0
        self.deliver()
        if self.syncs is not None:
            self.syncs.sync(self.sequence, self.held.positions(), self.held.counts().applied)
        if self._keeper is not None:
            self._cutting.advance(self._keeper)

    def close(self) -> None:
        """Publish what is pending, interval or not, wait for the broker, write the last checkpoint."""
        if self.held.caught_up and self._tells:
            while self.publisher.publish_chunk(self.sequence, interval_ms=0):
                pass
        self.publisher.send_waiting(timeout_s=None)
        left = self._sink.flush(10.0)
        if left:
            raise UnavailableError(f"{left} messages were not delivered at shutdown; they will be made again")
        if self.syncs is not None:
            self.syncs.close(self.sequence, self.held.positions(), self.held.counts().applied)
        if self._keeper is not None:
            self._keeper.close(self.capture())

    def capture(self, *, reuse: bool = False) -> Captured:
        """Copy state and positions as one cut; what is learned after it starts from settled caches.

        With `reuse` the last such cut is written over: it must have been stored.
        """
        self.sequence += 1
        if self._keeper is not None:
            self._keeper.append(JournalEntry(sequence=self.sequence, runs=[], kind="cut"))
        with self.metrics.stage("cut"):
            self.settle()
            return capture(self, reuse=reuse)

    def safe_positions(self) -> Positions:
        """What may be committed: positions of the newest durable checkpoint."""
        return {} if self._keeper is None else self._keeper.positions()

    def deliver(self) -> None:
        """Send lists that have become durable, and hear what the broker has acknowledged."""
        self.publisher.send_waiting()
        with self.metrics.stage("deliver"):
            self._sink.poll()

    def _before_send(self, sequence: int, timeout_s: float | None) -> bool:
        return self._keeper is None or self._keeper.wait_durable(sequence, timeout_s)


def _variants_of(settings: Settings, metrics: WorkerMetrics) -> VariantChoice | None:
    if not settings.ranker.variants:
        return None
    from .variants import VariantChoice  # scipy loads here: seconds, and only if wanted

    return VariantChoice(settings, ways_of(settings.learner, settings.ranker), metrics)


def _cut_at_position(run: RecordRun, positions: Positions) -> RecordRun | None:
    """What of a run is to be applied; moves its partition's position."""
    position = positions.get((run.topic, run.partition))
    if position is None or run.next_offset <= position:
        return None  # revoked while it waited, or applied before
    positions[run.topic, run.partition] = run.next_offset
    return run_from(run, position)


def run_from(run: RecordRun, position: int) -> RecordRun:
    """The part of a run at and after `position`; itself when that is all of it.

    Raises
    ------
    StateError
        The run follows on a later position: records between the two were never applied, and going
        on would lose them for good.
    """
    if run.first > position:
        raise StateError(
            f"{run.topic}[{run.partition}] is applied up to offset {position}, and what came next follows"
            f" on {run.first}: the transport has skipped records; start again from the checkpoint"
        )
    first = int(np.searchsorted(run.offsets, position))
    if not first:
        return run
    return RecordRun(
        topic=run.topic,
        partition=run.partition,
        keys=run.keys[first:],
        values=run.values[first:],
        offsets=run.offsets[first:],
        timestamps_ms=run.timestamps_ms[first:],
        next_offset=run.next_offset,
    )
