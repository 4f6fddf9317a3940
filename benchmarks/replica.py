"""A replica of a model that learned a long log: how soon it is there, and whether it ranks the same.

A learner (in this process, on a real broker) folds 5 million events over 200 000 users and 50 000 items
and publishes its model once a second. Then a replica starts from the compacted topics, drains them, and
makes lists for 1 000 users; so does the learner's own ranker. Prints one JSON object on the last line:
events/s of the learner with its publisher, records and bytes written, seconds until the replica was
ready and drained, its lag, and `same_lists` of `users`. Exit code 1 when a list differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from schemas.hashing import partition_many
from schemas.learner import Contexts
from schemas.runs import Int32, RecordRun
from schemas.settings import KafkaSettings, LearnerSettings, RankerSettings, Settings, WorkerSettings
from serving.metrics import WorkerMetrics
from serving.ranking import Ranked
from streams.broker import LocalBroker
from streams.core import WorkerCore
from streams.model_topics import ModelPublisher
from streams.model_transactions import KafkaTransactions
from streams.ranker_model import RankerModel
from streams.replica_follower import ReplicaFollower
from streams.staging import Staged
from streams.topics import create_topics
from streams.warm_up import NullSink, warm_up

from .load import Events

CHUNK = 16_384
DRAIN_S = 120.0
MARKERS = 33
"""Partitions here: each may end in the marker of a transaction, which no reader is given."""
FIELDS = ("items", "scores", "relevance", "sources", "reasons")


def runs_of(core: WorkerCore, events: Events, n: int, at_ms: int) -> Iterator[RecordRun]:
    """The next `n` events as runs of their partitions."""
    messages = events.messages(n, list(range(at_ms, at_ms + n)))
    partitions = core.settings.kafka.partitions
    places = partition_many([message["key"] for message in messages], partitions)
    for partition in range(partitions):
        chosen = np.flatnonzero(places == partition).tolist()
        start = core.position(core.names.behaviour, partition) or 0
        yield RecordRun(
            topic=core.names.behaviour,
            partition=partition,
            keys=[messages[i]["key"] for i in chosen],
            values=[messages[i]["value"] for i in chosen],
            offsets=np.arange(start, start + len(chosen), dtype=np.int64),
            timestamps_ms=np.full(len(chosen), at_ms, dtype=np.int64),
            next_offset=start + len(chosen),
        )


def learn(core: WorkerCore, publisher: ModelPublisher, arguments: argparse.Namespace) -> dict[str, float]:
    """Fold everything and publish; what it took."""
    for partition in range(core.settings.kafka.partitions):
        core.assign(core.names.behaviour, partition, start=0, committed=None, end=0)
    events = Events(arguments.users, arguments.items, seed=1)
    at_ms = int(time.time() * 1000) - arguments.events
    busy_s = 0.0
    for first in range(0, arguments.events, CHUNK):
        runs = list(runs_of(core, events, min(CHUNK, arguments.events - first), at_ms + first))
        began = time.perf_counter()
        core.apply(runs)
        core.tick()
        busy_s += time.perf_counter() - began
    began = time.perf_counter()
    publisher.close(core.sequence, core.held.positions(), core.held.counts().applied)
    return {
        "learner_events_per_s": round(arguments.events / busy_s),
        "last_sync_s": round(time.perf_counter() - began, 3),
        "records": publisher.n_records,
        "mib": round(publisher.n_bytes / 2**20, 1),
        "transactions": publisher.n_transactions,
    }


def drain(model: RankerModel, follower: ReplicaFollower, sequence: int) -> dict[str, Any]:
    """Follow until the head is that of `sequence`; what it took."""
    began = time.perf_counter()
    take_s = 0.0
    ready_s: float | None = None
    drained_s: float | None = None
    follower.start()
    while True:
        reached = follower.caught_up
        while (piece := follower.pop()) is not None:
            if isinstance(piece, Staged):
                at = time.perf_counter()
                model.replica.take(piece)
                take_s += time.perf_counter() - at
        passed_s = time.perf_counter() - began
        head = model.replica.head
        if ready_s is None and reached and head is not None:
            ready_s = passed_s
        is_whole = head is not None and head.sequence == sequence and not head.n_waiting
        if ready_s is not None and is_whole and drained_s is None:
            drained_s = passed_s
        if ready_s is not None and drained_s is not None and follower.lag_records <= MARKERS:
            break
        if passed_s > DRAIN_S:
            raise SystemExit(f"the replica did not drain in {DRAIN_S:g} s: {head}")
        time.sleep(0.002)
    return {
        "replica_ready_s": round(ready_s, 2),
        "replica_drained_s": round(drained_s, 2),
        "replica_records": model.replica.n_records,
        "replica_take_us": round(1e6 * take_s / max(model.replica.n_records, 1), 2),
        "lag_records": follower.lag_records,
        "age_s": round(model.replica.age_s(time.time()) or 0.0, 2),
    }


def compare_lists(core: WorkerCore, model: RankerModel, n: int) -> tuple[int, int]:
    """About `n` users, and how many of them have the same list from both."""
    rng = np.random.default_rng(0)
    own = core.model.ranker
    ids = list(core.model.items.ids)
    model.names.items.get_many([ids[i] for i in rng.permutation(len(ids))])  # slots of another process
    slots = np.append(model.names.items.get_many(ids), np.int32(-1))
    asked = same = 0
    for part in core.partitions.values():
        size = min(len(part.state.users), -(-n // len(core.partitions)))
        users: Int32 = rng.choice(len(part.state.users), size, replace=False).astype(np.int32)
        texts = part.state.users.texts_at(users)
        history, seen = part.state.contexts(users), part.state.seen_rows(users)
        withdrawn = np.zeros(0, dtype=np.bool_)
        mine = own.rank(Contexts(users=part.model_users[users], history=history, now_ms=0), seen, withdrawn)
        theirs = model.ranker.rank(
            Contexts(users=model.names.users.intern_texts(texts), history=slots[history], now_ms=0),
            slots[seen],
            model.catalogue.unavailable(0),
        )
        asked += size
        same += n_equal(mine, theirs)
    return asked, same


def n_equal(mine: Ranked, theirs: Ranked) -> int:
    """Lists that are the same in every field."""
    equal = [(getattr(mine, field) == getattr(theirs, field)).all(axis=1) for field in FIELDS]
    return int(np.count_nonzero(np.all(equal, axis=0)))


def measure(arguments: argparse.Namespace, bootstrap: str) -> dict[str, Any]:
    """Learn, follow, compare."""
    settings = Settings(
        kafka=KafkaSettings(bootstrap=bootstrap),
        worker=WorkerSettings(dedup_window=arguments.events),
        learner=LearnerSettings(embeddings=arguments.embeddings, sync_bytes_per_s=arguments.bytes_per_s),
        ranker=RankerSettings(evaluate_ratio=1.0 if arguments.embeddings else 0.1),
    )
    create_topics(settings.kafka, model="main")
    warm_up(settings)
    core = WorkerCore(settings, NullSink(), WorkerMetrics(CollectorRegistry()), tells=False)
    transactions = KafkaTransactions(settings)
    transactions.claim()
    publisher = ModelPublisher(core.model, transactions, settings, epoch=1, lineage=core.model.lineage)
    publisher.start()
    core.syncs = publisher
    figures: dict[str, Any] = {"events": arguments.events, "items": arguments.items, "users": arguments.users}
    figures |= learn(core, publisher, arguments)
    model = RankerModel(settings)
    errors: list[BaseException] = []
    follower = ReplicaFollower(settings, "main", errors.append)
    follower.follow_users(frozenset(range(settings.kafka.partitions)))
    figures |= drain(model, follower, core.sequence)
    asked, same = compare_lists(core, model, arguments.lists)
    figures |= {"lists": asked, "same_lists": same}
    follower.stop()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--lists", type=int, default=1_000)
    parser.add_argument("--bytes-per-s", type=int, default=8 * 2**20)
    parser.add_argument("--embeddings", action="store_true")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="reelflow-") as folder,
        LocalBroker(Path(folder)) as broker,
    ):
        figures = measure(arguments, broker.bootstrap)
    for name, value in figures.items():
        print(f"{name:24} {value}")
    print(json.dumps(figures))
    sys.exit(figures["same_lists"] != figures["lists"])


if __name__ == "__main__":
    main()
