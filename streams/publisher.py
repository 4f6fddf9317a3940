"""Turns touched users into published snapshots: coalesce, rank, encode, produce, measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from schemas.errors import UnavailableError
from schemas.learner import Contexts
from schemas.runs import Int32
from schemas.settings import Settings
from schemas.topics import topic_names
from serving.metrics import WorkerMetrics
from serving.snapshots import FALLBACK_COLD_USER, FALLBACK_NONE, SnapshotEncoder

from .commits import CommitGate
from .latency import Reservoir
from .model import Model
from .outbox import Told
from .partition import Partition
from .sinks import Sink

CHUNK = 512
"""Users ranked at once: large enough to spread the fixed cost of a call, small enough to stop in time."""


class Publisher:
    """Publishes for all partitions of one worker.

    A chunk takes due users of any partitions together: at low rates each partition has only a
    few, and a call of the ranker costs most of a millisecond however few there are.
    """

    def __init__(
        self,
        settings: Settings,
        model: Model,
        partitions: Mapping[int, Partition],
        sink: Sink,
        gate: CommitGate,
        metrics: WorkerMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._interval_ms = settings.worker.refresh_interval_ms
        self._list_size = settings.ranker.list_size
        self._topic = topic_names(settings.kafka.prefix).recommendations
        self._model = model
        self._partitions = partitions
        self._sink = sink
        self._gate = gate
        self._metrics = metrics
        self._clock = clock
        self._encoder = SnapshotEncoder(
            model.items,
            model_name=settings.worker.model_name,
            ttl_ms=settings.ranker.ttl_ms,
            first_sequence=int(clock() * 1e6),  # no worker publishes a million a second: never falls
        )
        self.latencies = Reservoir()
        self.latencies_held = Reservoir()
        self.n_snapshots = 0
        self.n_users = 0
        self._turn = 0

    @property
    def n_pending(self) -> int:
        """Users that owe a snapshot."""
        return sum(part.outbox.n_pending for part in self._partitions.values())

    def oldest_sequence(self) -> int | None:
        """Oldest apply sequence that some user's snapshot still has to tell."""
        pending = (part.outbox.oldest_sequence() for part in self._partitions.values())
        return min((sequence for sequence in pending if sequence is not None), default=None)

    def sync_items(self) -> None:
        """Prepare the names of new items."""
        self._encoder.sync()

    def publish_chunk(self, sequence: int, *, interval_ms: int | None = None) -> int:
        """Publish for at most `CHUNK` due users, the model being at apply `sequence`; returns how many."""
        interval = self._interval_ms if interval_ms is None else interval_ms
        now_ms = int(self._clock() * 1000)
        due: list[tuple[int, Partition, Int32]] = []
        room = CHUNK
        # Turns: under load the first partitions would have users due again before the last are reached.
        order = list(self._partitions.items())
        for i in range(len(order)):
            index, part = order[(self._turn + i) % len(order)]
            users = part.outbox.due(now_ms, interval, room)
            if len(users):
                due.append((index, part, users))
                room -= len(users)
            if not room:
                self._turn = (self._turn + i + 1) % len(order)
                break
        if due:
            self._publish(due, sequence, interval)
        return CHUNK - room

    def _publish(self, due: list[tuple[int, Partition, Int32]], sequence: int, interval_ms: int) -> None:
        with self._metrics.stage("rank"):
            contexts = Contexts(
                users=np.concatenate([part.model_users[users] for _, part, users in due]),
                history=np.concatenate([part.state.contexts(users) for _, part, users in due]),
                now_ms=int(self._clock() * 1000),
            )
            seen = np.concatenate([part.state.seen_rows(users) for _, part, users in due])
            withdrawn = self._model.catalogue.unavailable(contexts.now_ms)
            ranked = self._model.ranker.rank(contexts, seen, withdrawn).first(self._list_size)
        now_ms = int(self._clock() * 1000)
        with self._metrics.stage("encode"):
            names, knows = [], []
            for _, part, users in due:
                ids, state = part.state.users.ids, part.state
                names += [ids[user] for user in users.tolist()]
                knows += [state.last_event_id(user) for user in users.tolist()]
            places = np.array([index for index, _, _ in due], dtype=np.int32)
            cold = contexts.history[:, -1] < 0
            values = self._encoder.encode(
                names,
                ranked,
                partition=np.repeat(places, [len(users) for _, _, users in due]),
                offsets=np.concatenate([part.state.last_offset[users] for _, part, users in due]),
                event_ids=knows,
                ts_ms=np.concatenate([part.state.last_ts_ms[users] for _, part, users in due]),
                generated_at_ms=now_ms,
                epoch=0,
                sequence=sequence,
                fallbacks=np.where(cold, FALLBACK_COLD_USER, FALLBACK_NONE).astype(np.int8),
            )
        told = _together([part.outbox.told(users, now_ms, interval_ms) for _, part, users in due])
        done = self._gate.sent(told.sequence)

        def delivered(n: int, failed: int) -> None:
            if failed:
                raise UnavailableError(f"the broker refused {failed} snapshots")
            done()
            self.n_snapshots += n
            self.n_users += told.n_first
            self._metrics.snapshots.inc(n)
            self._observe(self._clock() * 1000, told)

        with self._metrics.stage("produce"):
            self._sink.send(self._topic, [name.encode() for name in names], values, delivered)

    def _observe(self, now_ms: float, told: Told) -> None:
        """Seconds since the snapshot could have been made; those of held users also from the event on."""
        waited = np.maximum((now_ms - told.due_ms) / 1000, 0.0)
        held = np.maximum((now_ms - told.since_ms[told.held]) / 1000, 0.0)
        for histogram, reservoir, values in (
            (self._metrics.event_to_snapshot, self.latencies, waited),
            (self._metrics.held_back, self.latencies_held, held),
        ):
            reservoir.extend(values)
            histogram.observe_many(values)


def _together(parts: list[Told]) -> Told:
    return Told(
        since_ms=np.concatenate([part.since_ms for part in parts]),
        due_ms=np.concatenate([part.due_ms for part in parts]),
        n_first=sum(part.n_first for part in parts),
        sequence=min(part.sequence for part in parts),
    )
