"""Model topics in memory: partitions in order of writing, read in any order, compacted when asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from schemas.errors import UnavailableError
from schemas.hashing import partition_of
from schemas.topics import ModelTopics, model_topics
from streams.model_export import ModelRecord
from streams.replica import Replica
from streams.staging import Stager

PARTITIONS = 3
TOPICS = model_topics()


class ModelLog:
    """Where a `ModelPublisher` writes; `fail` makes so many next transactions come to nothing."""

    def __init__(self, topics: ModelTopics = TOPICS) -> None:
        self.topics = topics
        self.partitions: dict[tuple[str, int], list[tuple[bytes, bytes]]] = {}
        self.transactions: list[list[ModelRecord]] = []
        self.fail = 0
        self.error: Exception | None = None

    def write(self, records: Sequence[ModelRecord]) -> None:
        if self.error is not None:
            raise self.error
        if self.fail:
            self.fail -= 1
            raise UnavailableError("no broker")
        self.transactions.append(list(records))
        for record in records:
            n = 1 if record.topic == self.topics.dense else PARTITIONS
            place = (record.topic, partition_of(record.key, n))
            self.partitions.setdefault(place, []).append((record.key, record.value))

    def compact(self) -> None:
        """Keep the last value of every key, where it stands."""
        for place, records in self.partitions.items():
            last = {key: i for i, (key, _) in enumerate(records)}
            self.partitions[place] = [records[i] for i in sorted(last.values())]


class Follower:
    """Reads a `ModelLog` into a replica, partition by partition, in seeded pieces."""

    def __init__(self, log: ModelLog, stager: Stager, replica: Replica, seed: int) -> None:
        self.log, self.stager, self.replica = log, stager, replica
        self.rng = np.random.default_rng(seed)
        self.positions: dict[tuple[str, int], int] = {}

    def drain(self) -> None:
        while places := [p for p, r in self.log.partitions.items() if self.positions.get(p, 0) < len(r)]:
            place = places[int(self.rng.integers(len(places)))]
            start = self.positions.get(place, 0)
            records = self.log.partitions[place][start : start + int(self.rng.integers(1, 40))]
            self.positions[place] = start + len(records)
            for key, value in records:
                before = self.stager.add(*place, key, value)
                if before is not None:
                    self.replica.take(before)
            if self.rng.random() < 0.5 and len(self.stager):
                self.replica.take(self.stager.take())
        if len(self.stager):
            self.replica.take(self.stager.take())
