"""A ranker without Kafka, disk and threads: runs and model values in, dead letters and lists out.

One object, touched by one thread. It folds the user state of the partitions it holds, and ranks
with a replica of the model, which it never changes but by what the model topics say.

A partition's life:

1. `install`: its state as last stored, or none; it is quiet.
2. `begin`: records come from here on. It stays quiet until what was in the log then is folded:
   another ranker may have told users all of it, and `knows.offset` must not fall.
3. Folded, ranked, published; copied every few seconds (`streams.unit_keeper`), and only then may
   its position be committed.
4. `park`: the group is being rebalanced, nothing more comes. It goes on, or
5. `drop`: copied once more, and gone.

User state depends on the order of its partition alone, so what another ranker makes of the log
from the stored position on is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from schemas.errors import StateError, UnavailableError
from schemas.runs import RecordRun
from schemas.settings import Settings
from schemas.topics import topic_names
from serving.metrics import WorkerMetrics

from .commits import CommitGate, Positions
from .core import run_from
from .intake import Intake
from .item_table import ItemTable
from .latency import Rate
from .letters import LetterWriter
from .partition import Holdings, Partition, Readiness, Shelf
from .publisher import Publisher
from .ranker_model import RankerModel
from .ranker_ports import Feed, Units
from .replica_follower import CatalogueRun
from .share import LIVE_RECORDS, PublishShare
from .sinks import Sink
from .unit import CapturedUnit, RestoredUnit, capture_unit, restore_unit

NOBODYS: Final = 2**62
"""`Shelf.live_from` of a catalogue partition whose dead letters another ranker writes."""

MODEL_S: Final = 0.02
"""Of a tick, for taking over model values (at least one piece), and ten times that until there is a model."""

FLUSH_S: Final = 2.0


class _Waiting(Struct):
    sequence: int
    captured: CapturedUnit


class RankerCore:
    """See the module's docstring.

    Parameters
    ----------
    settings : Settings
    sink : Sink
    metrics : WorkerMetrics
    feed : Feed
    units : Units
    clock : Callable[[], float]
        Seconds since 1970.
    published_before : bool
        Whether there may be lists on the recommendations topic.
    """

    def __init__(
        self,
        settings: Settings,
        sink: Sink,
        metrics: WorkerMetrics,
        feed: Feed,
        units: Units,
        *,
        clock: Callable[[], float] = time.time,
        published_before: bool = True,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.names = topic_names(settings.kafka.prefix)
        self.model_name = settings.ranker.follow_model or settings.worker.model_name
        self.model = RankerModel(settings)
        self.held = Holdings(settings, published_before=published_before)
        self.rate = Rate()
        self.sequence = 0
        """Batches applied in this process."""
        self.n_committed = 0
        self.not_ready_because = ""
        """Set from outside: a broker that is away."""
        self.readiness = Readiness()
        self._published_before = published_before
        self._feed, self._units = feed, units
        self._sink, self._clock = sink, clock
        self._live: dict[int, Partition] = {}
        self._begun: set[int] = set()
        self._parked: set[int] = set()
        self._buried: dict[int, int] = {}  # of the catalogue's partition, up to where letters were written
        self._letters_gate, self._snapshots_gate = CommitGate(), CommitGate()
        self._intake = Intake(
            settings, self.model.names, self.held, LetterWriter(sink, self._letters_gate), metrics
        )
        named = msgspec.structs.replace(settings.worker, model_name=self.model_name)
        self.publisher = Publisher(
            msgspec.structs.replace(settings, worker=named),
            self.model,
            self._live,
            sink,
            self._snapshots_gate,
            metrics,
            clock,
        )
        self.publisher.before_send = units.before_send
        self.item_table = ItemTable(settings.learner.max_items)
        self._waiting: dict[int, _Waiting] = {}
        self._share = PublishShare()
        self._applied_s = 0.0
        self._anew = 0
        self._model_ready = False

    # -- partitions -----------------------------------------------------------------------------

    @property
    def partitions(self) -> Mapping[int, Partition]:
        """Behaviour partitions held."""
        return self.held.partitions

    def position(self, partition: int) -> int | None:
        """Offset next to read of a partition that is held, None of one that is not (or has no state)."""
        part = self.held.partitions.get(partition)
        return None if part is None else part.next_offset

    def holds(self, partition: int) -> bool:
        """Whether a partition's state is here, if only as the note that there was none."""
        return partition in self._buried

    def install(self, partition: int, unit: RestoredUnit | None) -> None:
        """Hold a partition with its stored state; without, `begin` makes an empty one.

        Raises
        ------
        StateError
            It is held: what was folded since it was stored would be gone.
        """
        if self.holds(partition):
            raise StateError(f"partition {partition} was loaded while its state was here")
        catalogue_position = 0
        if unit is not None:
            catalogue_position = unit.catalogue_position
            part = self.held.begin(partition, unit.position)
            slots = self.model.names.items.get_many(unit.item_ids)
            owed, since_ms, part.last_broker_ts_ms = restore_unit(unit, slots, part)
            part.counts = unit.counts
            part.grow()
            if self.model.names.has_user_rows:
                texts = part.state.users.texts()
                part.model_users[: len(texts)] = self.model.names.users.intern_texts(texts)
            part.outbox.touch(owed, since_ms)
        self._buried[partition] = catalogue_position
        shelf = self.held.shelves.setdefault(partition, Shelf(next_offset=0, live_from=NOBODYS))
        shelf.live_from = catalogue_position
        if shelf.next_offset > catalogue_position:
            self._feed.read_again(partition, catalogue_position)
        self._follow_users()

    def begin(self, partition: int, *, start: int, committed: int | None, end: int) -> int:
        """Records come from `start` on; the log ends at `end`.

        Returns
        -------
        int
            Events that retention removed before any ranker could fold them.
        """
        self._parked.discard(partition)
        part = self.held.partitions.get(partition)
        if part is not None and partition in self._begun:  # it was parked, and is back
            part.end_seen = max(part.end_seen, end)
            return max(0, start - part.next_offset)
        if part is None:
            if partition not in self._buried:
                self.install(partition, None)
            part = self.held.begin(partition, start)
            part.live_from = committed or 0
            wanted = committed if committed is not None else start
            quiet = committed is not None or self._published_before
        else:
            wanted, quiet = part.next_offset, True
        part.first_offset = start
        part.end_at_start = end if quiet else start
        part.end_seen = end
        self._begun.add(partition)
        return max(0, start - wanted)

    def park(self, partitions: frozenset[int]) -> None:
        """The group takes these away, perhaps to give them back: publish nothing of them from here on."""
        self._parked |= partitions & self.held.partitions.keys()
        for partition in partitions:
            self._live.pop(partition, None)
        self._sink.flush(FLUSH_S)  # what is told late would come behind what the next owner tells

    def kept(self, partitions: frozenset[int]) -> None:
        """After a rebalance: `partitions` are ours; drop all others."""
        for partition in sorted((self._parked | self._buried.keys()) - partitions):
            self.drop(partition)
        self._parked.clear()

    def drop(self, partition: int) -> None:
        """Hand over the last state of a partition and forget it."""
        part = self.held.partitions.pop(partition, None)
        self._live.pop(partition, None)
        self._waiting.pop(partition, None)
        self._begun.discard(partition)
        self._parked.discard(partition)
        captured = None
        if part is not None:
            self._sink.poll()
            if not self._letters_gate.clear(self.sequence):
                self._sink.flush(FLUSH_S)
            if self._letters_gate.clear(self.sequence):
                captured = self._capture(partition, part)
        self._units.release(partition, captured)
        self._buried.pop(partition, None)
        if partition in self.held.shelves:
            self.held.shelves[partition].live_from = NOBODYS
        self._follow_users()

    def _follow_users(self) -> None:
        self._feed.follow_users(frozenset(self._buried))

    # -- input ----------------------------------------------------------------------------------

    def apply(self, runs: list[RecordRun]) -> None:
        """Fold what arrived."""
        started = time.perf_counter()
        sequence = self.sequence + 1
        for run in runs:
            part = self.held.partitions.get(run.partition)
            if part is None or run.topic != self.names.behaviour or run.next_offset <= part.next_offset:
                continue  # revoked while it waited, or applied before
            self.sequence = sequence
            interactions = self._intake.fold(run_from(run, part.next_offset), sequence)
            if interactions is not None:
                self.rate.add(self._clock(), len(interactions))
        self._applied_s += time.perf_counter() - started

    def _take_over(self, deadline: float) -> None:
        """Take over what the feed has, until the deadline (at least one piece)."""
        reached = self._feed.caught_up and self._feed.catalogue_caught_up
        while (piece := self._feed.pop()) is not None:
            if isinstance(piece, CatalogueRun):
                self._shelve(piece)
            else:
                with self.metrics.stage("model"):
                    self.model.replica.take(piece)
            if time.perf_counter() > deadline:
                return
        self._model_ready = self._model_ready or (reached and self.model.replica.head is not None)

    def _shelve(self, piece: CatalogueRun) -> None:
        run = piece.run
        self.held.shelves.setdefault(run.partition, Shelf(next_offset=0, live_from=NOBODYS))
        self._intake.shelve(run, self.sequence)
        buried = self._buried.get(run.partition)
        if buried is not None and piece.first <= buried:
            self._buried[run.partition] = max(buried, run.next_offset)

    # -- output ---------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether lists are being published for every partition held, and there are such."""
        return not self._reason()

    @property
    def n_done(self) -> int:
        """Events applied."""
        return self.held.counts().applied

    @property
    def batch_records(self) -> int:
        """Records of the next batch, about: few where users wait for lists between two of them."""
        most = self.settings.worker.max_run_records
        return min(most, LIVE_RECORDS) if self.ready else most

    def _reason(self) -> str:
        if self.not_ready_because:
            return self.not_ready_because
        if not self._model_ready:
            return f"reading the model {self.model_name}"
        if not self.held.partitions:
            return "no partitions"
        if not all(part.caught_up for part in self.held.partitions.values()):
            return "reading the log"
        return ""

    def model_age_s(self) -> float | None:
        """Seconds since the learner was heard of."""
        return self.model.replica.age_s(self._clock())

    def now_s(self) -> float:
        """The clock's time."""
        return self._clock()

    def lag_records(self) -> int:
        """Log end as last seen minus position next to read, all partitions."""
        return sum(part.lag for part in self.held.partitions.values())

    def n_pending(self) -> int:
        """Users that owe a snapshot, and sends that the broker has not acknowledged."""
        return self.publisher.n_pending + self._letters_gate.n_in_flight + self._snapshots_gate.n_in_flight

    def tick(self) -> None:
        """Take over model values, publish what is due, copy partitions whose turn it is."""
        started_s = time.perf_counter()
        self._take_over(started_s + (MODEL_S if self._model_ready else 10 * MODEL_S))
        self._follow_model()
        self.item_table.tell(len(self.model.names.items))
        for partition, part in self.held.partitions.items():
            quiet = partition in self._parked or partition not in self._begun or not part.caught_up
            if not quiet:
                self._live[partition] = part
        reason = self._reason()
        self.readiness = Readiness(
            ready=not reason,
            partitions=len(self.held.partitions),
            recovered=self.held.recovered_ratio(),
            reason=reason,
        )
        if self._model_ready:
            began_s = time.perf_counter()
            learned_s = self._applied_s + began_s - started_s
            until_s = self._share.begin(began_s, learned_s, self.publisher.adapt(began_s))
            self.publisher.retract()
            while self._publish() and time.perf_counter() < until_s:
                pass
            self._share.end(began_s, time.perf_counter())
        self._applied_s = 0.0
        with self.metrics.stage("deliver"):
            self._sink.poll()
        self._copy_due()

    def close(self) -> None:
        """Publish what is pending, interval or not, wait for the broker, copy everything."""
        if self._model_ready:
            while self._publish(interval_ms=0):
                pass
            self.publisher.send_waiting(timeout_s=None)
        left = self._sink.flush(10.0)
        if left:
            raise UnavailableError(f"{left} messages were not delivered at shutdown; they will be made again")
        for partition, part in self.held.partitions.items():
            self._units.release(partition, self._capture(partition, part))

    def safe_positions(self) -> Positions:
        """What may be committed: positions of the newest durable checkpoints."""
        return {(self.names.behaviour, p): offset for p, offset in self._units.positions().items()}

    def _publish(self, interval_ms: int | None = None) -> int:
        head = self.model.replica.head
        return self.publisher.publish_chunk(0 if head is None else head.sequence, interval_ms=interval_ms)

    def _follow_model(self) -> None:
        replica = self.model.replica
        if replica.anew != self._anew:  # another model has begun: other slots, other names
            self._anew = replica.anew
            self.publisher.follow(self.model)
        age_s = self.model_age_s()
        self.publisher.stale = age_s is None or age_s > self.settings.ranker.stale_model_after_s
        self.publisher.epoch = 0 if replica.head is None else replica.head.epoch

    def _copy_due(self) -> None:
        for partition in self._units.due():
            part = self.held.partitions.get(partition)
            if part is not None and partition in self._begun and partition not in self._waiting:
                self._waiting[partition] = _Waiting(self.sequence, self._capture(partition, part))
        for partition, waiting in list(self._waiting.items()):
            if self._letters_gate.clear(waiting.sequence):
                del self._waiting[partition]
                self._units.take(waiting.captured)

    def _capture(self, partition: int, part: Partition) -> CapturedUnit:
        with self.metrics.stage("cut"):
            return capture_unit(
                part,
                part.outbox.owed(),
                self.model.names.items.ids,
                topic=self.names.behaviour,
                catalogue_position=self._buried.get(partition, 0),
                settings=self.settings,
            )
