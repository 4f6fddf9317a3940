"""Turns touched users into published snapshots: coalesce, rank, encode, produce, measure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import ceil, inf
from typing import Protocol

import numpy as np
from msgspec import Struct

from learners.blend_kernels import Bools
from schemas.errors import UnavailableError
from schemas.interning import Interner
from schemas.learner import Contexts
from schemas.runs import Int8, Int32, Int64
from schemas.settings import Settings
from schemas.topics import topic_names
from serving.fresh import Newcomers, place_new
from serving.metrics import WorkerMetrics
from serving.ranking import Ranked
from serving.rooms import Rooms, place_rooms
from serving.snapshots import FALLBACK_COLD_USER, FALLBACK_NONE, FALLBACK_STALE_MODEL, SnapshotEncoder

from .commits import CommitGate
from .coverage import Coverage
from .latency import Reservoir
from .outbox import Told
from .partition import Partition
from .refresh import RefreshInterval
from .sinks import Delivered, Sink
from .ways import Makes, make_lists, ways_of

CHUNK = 512
"""Users ranked at once: large enough to spread the fixed cost of a call, small enough to stop in time.

A rest of up to half of it goes with the chunk before, for a chunk of its own would cost that once more.
"""

PATIENCE_S = 0.005
"""How long a chunk waits at most for what it derives from to become durable, before it waits aside."""

MOST_WAITING = 64
"""Chunks that wait aside; beyond, publishing waits for the disk."""

RETRACT_EVERY_MS = 200
"""Pace at which lists with items that have ended are looked for."""


class Availability(Protocol):
    """What may be listed."""

    def unavailable(self, now_ms: int) -> Bools:
        """Mask by item slot of what may not be recommended now."""


class Endings(Availability, Protocol):
    """What may be listed, by slot of user state, and what has ended."""

    def name_live(self, items: Int32) -> Bools:
        """Which rows of `items` (B, n) name a live room; (B,)."""

    def ended(self, now_ms: int) -> Bools | None:
        """Mask of what became unavailable since the last call, None where nothing did."""


class Choice(Protocol):
    """Who says in which way lists are made."""

    def choose(self, partitions: Int32, offsets: Int64) -> Int8:
        """Numbers of ways of lists (B,) by the last events that they know."""

    def made(self, chosen: Int8) -> None:
        """Lists (B,) have been made."""


class ListModel(Makes, Protocol):
    """What publishing needs of a model: names of the listed items, what is available, lists."""

    @property
    def items(self) -> Interner:
        """Ids by slot of the lists."""

    @property
    def catalogue(self) -> Availability:
        """What may be listed."""

    @property
    def facts(self) -> Endings:
        """The same by slot of user state."""

    def rooms(self, now_ms: int) -> Rooms:
        """Live rooms that are open."""

    def newcomers(self, contexts: Contexts, withdrawn: Bools) -> Newcomers | None:
        """New items as users see them; None where nobody knows what items are."""

    def state_slots(self, items: Int32) -> Int32:
        """Slots of user state of listed items, any shape."""


class _Due(Struct, frozen=True):
    """What a chunk takes from one partition."""

    index: int
    part: Partition
    number: int  # of the outbox's `take`
    told: Told


class _Unsent(Struct, frozen=True):
    """Lists of a chunk that wait until they may be sent."""

    sequence: int
    parts: list[tuple[int, int]]  # partition, number of lists
    keys: Sequence[bytes]
    values: Sequence[bytes]
    delivered: Delivered


class Publisher:
    """Publishes for all partitions of one worker, in the way that `choice` says where there are several.

    A chunk takes due users of any partitions together: at low rates each partition has only a
    few, and a call of the ranker costs most of a millisecond however few there are.

    Attributes
    ----------
    epoch : int
        Published with the model's name.
    stale : bool
        Whether the model is older than it should be: users with a history are told so.
    before_send : Callable[[int, float or None], bool] or None
        Asked before a batch of lists made at an apply sequence is given to the sink, and may take
        some seconds, None any time, to answer: what they derive from may have to be durable first. After a no
        the batch waits, and those behind it: a disk that is slow for once holds up nobody else's lists.
    """

    def __init__(
        self,
        settings: Settings,
        model: ListModel,
        partitions: Mapping[int, Partition],
        sink: Sink,
        gate: CommitGate,
        metrics: WorkerMetrics,
        clock: Callable[[], float],
        choice: Choice | None = None,
    ) -> None:
        self._ways = ways_of(settings.learner, settings.ranker)
        self._choice = choice
        self._refresh = RefreshInterval(settings.worker.refresh_interval_ms / 1000)
        self._list_size = settings.ranker.list_size
        self._topic = topic_names(settings.kafka.prefix).recommendations
        self._model_name = settings.worker.model_name
        self._ttl_ms = settings.ranker.ttl_ms
        self._partitions = partitions
        self._sink = sink
        self._gate = gate
        self._metrics = metrics
        self._clock = clock
        self.follow(model)
        self.epoch = 0
        self.stale = False
        self.before_send: Callable[[int, float | None], bool] | None = None
        self._waiting: deque[_Unsent] = deque()
        self.latencies = Reservoir()
        self.latencies_held = Reservoir()
        self.n_snapshots = 0
        self.n_sent = 0
        self.n_users = 0
        self._turn = 0
        self._retracted_ms = 0
        self._checked: dict[int, Partition] = {}

    def follow(self, model: ListModel) -> None:
        """Make lists with `model` from now on; its item slots may be others."""
        self._model = model
        self.coverage = Coverage(self._ttl_ms / 1000)
        self._encoder = SnapshotEncoder(
            model.items,
            model_name=self._model_name,
            ttl_ms=self._ttl_ms,
            first_sequence=int(self._clock() * 1e6),  # no worker publishes a million a second: never falls
            variants=[way.name for way in self._ways] if self._choice is not None else [],
        )

    @property
    def n_pending(self) -> int:
        """Users that owe a snapshot."""
        return sum(part.outbox.n_pending for part in self._partitions.values())

    def sync_items(self) -> None:
        """Prepare the names of new items."""
        self._encoder.sync()

    def owed(self, index: int) -> tuple[Int32, Int64]:
        """Users of partition `index` whose newest events no acknowledged snapshot tells: copies.

        Returns
        -------
        (n,) int32, (n,) int64
            Local slots, and the broker time of each user's oldest untold event; `Outbox.touch`
            with both makes a restored partition owe the same.
        """
        return self._partitions[index].outbox.owed()

    def longest_wait_s(self) -> float:
        """How long the user who waits longest could have had a snapshot."""
        now_ms = int(self._clock() * 1000)
        waits = (part.outbox.longest_wait_ms(now_ms) for part in self._partitions.values())
        return max(waits, default=0) / 1000

    def adapt(self, now_s: float) -> float:
        """Adapt the refresh interval at `now_s` of a monotonic clock; how far behind publishing is, seconds.

        That is what the user who waits longest has waited, and by how much the interval is stretched.
        """
        wait_s = self.longest_wait_s()
        n_users = sum(len(part.state.users) for part in self._partitions.values())
        self._refresh.adapt(now_s, wait_s, n_users, self.n_sent)
        self._metrics.refresh_interval.set(self._refresh.interval_s)
        return wait_s + self._refresh.stretched_s

    def retract(self) -> int:
        """Owe a new list to all whose last one has an item that is not available any more; how many.

        Idle users too: the list knows no more than before, and the later record wins. Lists of a
        partition that has come since the last call are checked against all that is unavailable. At
        most every `RETRACT_EVERY_MS`; costs 1 nanosecond an item with an expiry in the catalogue, and
        when something has ended 1 nanosecond a listed place of all users (18 ms for a million lists of 20).
        """
        now_ms = int(self._clock() * 1000)
        if 0 <= now_ms - self._retracted_ms < RETRACT_EVERY_MS:
            return 0
        self._retracted_ms = now_ms
        ended = self._model.facts.ended(now_ms)
        n = 0
        for index, part in self._partitions.items():
            is_new = self._checked.get(index) is not part
            marked = self._model.facts.unavailable(now_ms) if is_new else ended
            if marked is not None:
                users = part.listed.holders(marked)
                part.outbox.touch(users, np.full(len(users), now_ms, dtype=np.int64))
                n += len(users)
        self._checked = dict(self._partitions)
        self._metrics.retracted.inc(n)
        return n

    def publish_chunk(self, sequence: int, *, interval_ms: int | None = None) -> int:
        """Publish for `CHUNK` due users, one and a half times as many if that is all; returns how many.

        The model is at apply `sequence`.
        """
        interval = int(self._refresh.interval_s * 1000) if interval_ms is None else interval_ms
        now_ms = int(self._clock() * 1000)
        due: list[_Due] = []
        parts = list(self._partitions.items())
        ready = [part.outbox.n_due(now_ms, interval) for _, part in parts]
        n_ready = sum(ready)
        if not n_ready:
            return 0
        room = size = n_ready if n_ready <= CHUNK + CHUNK // 2 else CHUNK
        # By how many wait in each: whoever came last in a turn would be cut short again and again.
        share = min(1.0, size / n_ready)
        for k in range(len(parts)):
            i = (self._turn + k) % len(parts)
            index, part = parts[i]
            taken = part.outbox.take(now_ms, interval, min(ceil(ready[i] * share), room))
            if taken is not None:
                number, told = taken
                due.append(_Due(index=index, part=part, number=number, told=told))
                room -= len(told.users)
            if not room:  # with more partitions than places, the next chunk goes on where this one ended
                self._turn = (i + 1) % len(parts)
                break
        if due:
            self._publish(due, sequence)
        self.n_sent += size - room
        return size - room

    def _publish(self, due: list[_Due], sequence: int) -> None:
        with self._metrics.stage("rank"):
            contexts = Contexts(
                users=np.concatenate([d.part.model_users[d.told.users] for d in due]),
                history=np.concatenate([d.part.state.contexts(d.told.users) for d in due]),
                now_ms=int(self._clock() * 1000),
            )
            seen = np.concatenate([d.part.state.seen_rows(d.told.users) for d in due])
            withdrawn = self._model.catalogue.unavailable(contexts.now_ms)
            offsets = np.concatenate([d.part.state.last_offset[d.told.users] for d in due])
            partitions = np.repeat(
                np.array([d.index for d in due], dtype=np.int32), [len(d.told.users) for d in due]
            )
            chosen = None if self._choice is None else self._choice.choose(partitions, offsets)
            ranked = make_lists(self._model, self._ways, chosen, contexts, seen, withdrawn, self._list_size)
            self._explore(ranked, chosen, contexts, seen, withdrawn, offsets)
            self.coverage.note(ranked.items, contexts.now_ms / 1000)
        with self._metrics.stage("encode"):
            cold = contexts.history[:, -1] < 0
            keys, values = self._encoder.encode(
                [d.part.state.users.texts_at(d.told.users) for d in due],
                ranked,
                partition=partitions,
                offsets=offsets,
                event_ids=[d.part.state.last_event_texts(d.told.users) for d in due],
                ts_ms=np.concatenate([d.part.state.last_ts_ms[d.told.users] for d in due]),
                generated_at_ms=int(self._clock() * 1000),
                epoch=self.epoch,
                sequence=sequence,
                fallbacks=np.where(
                    cold, FALLBACK_COLD_USER, FALLBACK_STALE_MODEL if self.stale else FALLBACK_NONE
                ).astype(np.int8),
                variants=chosen,
            )
        if self._choice is not None and chosen is not None:
            self._choice.made(chosen)
        listed = self._model.state_slots(ranked.items)
        end = 0
        for d in due:
            start, end = end, end + len(d.told.users)
            of_way = None if chosen is None else chosen[start:end]
            d.part.listed.put(d.told.users, listed[start:end], of_way)
        done = self._gate.sent(sequence)
        left, least_ago_s = len(due), inf

        def delivered(_n: int, failed: int, ago_s: float = 0.0, /) -> None:
            nonlocal left, least_ago_s
            if failed:
                raise UnavailableError(f"the broker refused {failed} snapshots")
            left, least_ago_s = left - 1, min(least_ago_s, ago_s)
            if left:
                return
            done()
            for d in due:
                d.part.outbox.acknowledge(d.number)
            self._count([d.told for d in due], least_ago_s)

        # The recommendations of a user have the partition of their behaviour.
        parts = [(d.index, len(d.told.users)) for d in due]
        self._waiting.append(_Unsent(sequence, parts, keys, values, delivered))
        self.send_waiting(PATIENCE_S if len(self._waiting) < MOST_WAITING else None)

    def send_waiting(self, timeout_s: float | None = 0.0) -> None:
        """Send the lists whose turn it is, in the order in which they were made; see `before_send`."""
        while self._waiting:
            unsent = self._waiting[0]
            if self.before_send is not None and not self.before_send(unsent.sequence, timeout_s):
                return
            self._waiting.popleft()
            with self._metrics.stage("produce"):
                end = 0
                for index, n in unsent.parts:
                    start, end = end, end + n
                    keys, values = unsent.keys[start:end], unsent.values[start:end]
                    self._sink.send(self._topic, keys, values, unsent.delivered, partition=index)

    def _explore(
        self,
        ranked: Ranked,
        chosen: Int8 | None,
        contexts: Contexts,
        seen: Int32,
        withdrawn: Bools,
        offsets: Int64,
    ) -> None:
        """Put a new item and a live room into the lists that get one, in place."""
        new = self._model.newcomers(contexts, withdrawn)
        near_rooms = self._model.facts.name_live(contexts.history)
        wants_rooms = bool(near_rooms.any())
        if new is None and not wants_rooms:
            return
        of_ways = [(self._ways[0], np.ones(len(seen), dtype=np.bool_))]
        if chosen is not None:
            of_ways = [(way, chosen == number) for number, way in enumerate(self._ways)]
        if new is not None:
            past = np.concatenate([seen, contexts.history], axis=1)
            is_known = contexts.history[:, -1] >= 0
            for way, own in of_ways:
                n_new = place_new(ranked, new, is_known & own, past, offsets, way.content_exploration)
                self._metrics.new_items_listed.inc(n_new)
        if wants_rooms:
            rooms = self._model.rooms(contexts.now_ms)
            for way, own in of_ways:
                place_rooms(ranked, rooms, near_rooms & own, seen, offsets, way.live_exploration)

    def _count(self, told: list[Told], ago_s: float) -> None:
        """What the broker acknowledged `ago_s` ago.

        Seconds since the snapshot could have been made; those of held users also from the event on.
        """
        now_ms = (self._clock() - ago_s) * 1000
        due_ms = np.concatenate([part.due_ms for part in told])
        since_ms = np.concatenate([part.since_ms for part in told])
        self.n_snapshots += len(due_ms)
        self.n_users += sum(part.n_first for part in told)
        self._metrics.snapshots.inc(len(due_ms))
        waited = np.maximum((now_ms - due_ms) / 1000, 0.0)
        held = np.maximum((now_ms - since_ms[due_ms > since_ms]) / 1000, 0.0)
        for histogram, reservoir, values in (
            (self._metrics.event_to_snapshot, self.latencies, waited),
            (self._metrics.held_back, self.latencies_held, held),
        ):
            reservoir.extend(values)
            histogram.observe_many(values)
