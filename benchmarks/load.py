"""Watch events for the benchmarks: users uniform, items Zipf with exponent 1, and their producers.

Run as a program it sends at a steady rate, events dated now, and prints what it sent as one JSON line; the
events are made and packed before the first is sent.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any, Self

import numpy as np
from confluent_kafka import Producer

from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.context import confluent_config

from .prepared import prepare, send

CHUNK = 4_096

_EVENT = (
    b'{"schema_version":1,"event_id":"e-%d-%d","user_id":"u%d","item_id":"v%d","type":"watch",'
    b'"ts_ms":%d,"watch_ms":%d,"duration_ms":60000,"surface":"short_video"}'
)


class Events:
    """Seeded events; every call goes on where the one before ended.

    Parameters
    ----------
    n_users, n_items : int
    seed : int
        Also part of every event_id, so that two seeds never make duplicates of each other.
    """

    def __init__(self, n_users: int, n_items: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._seed = seed
        self._n_users = n_users
        weights = 1.0 / np.arange(1, n_items + 1)
        self._cumulated = np.cumsum(weights / weights.sum())
        self._n = 0

    def messages(self, n: int, ts_ms: list[int]) -> list[dict[str, Any]]:
        """The next `n` events at the times `ts_ms` as messages of `Producer.produce_batch`."""
        users = self._rng.integers(0, self._n_users, n).tolist()
        items = np.searchsorted(self._cumulated, self._rng.random(n)).tolist()
        watched = self._rng.integers(1_000, 60_000, n).tolist()
        first, seed = self._n, self._seed
        self._n += n
        return [
            {"key": b"u%d" % user, "value": _EVENT % (seed, first + i, user, item, at, watch)}
            for i, (user, item, at, watch) in enumerate(zip(users, items, ts_ms, watched, strict=True))
        ]


def fill(kafka: KafkaSettings, events: Events, n: int) -> float:
    """Produce `n` events, a millisecond of event time apart and ending now; returns seconds."""
    started = time.monotonic()
    base_ms = int(time.time() * 1000) - n
    with _Sending(kafka, linger_ms=50) as sending:
        for first in range(0, n, CHUNK):
            size = min(CHUNK, n - first)
            sending.send(events.messages(size, list(range(base_ms + first, base_ms + first + size))))
    return time.monotonic() - started


class _Sending:
    """A producer that waits for room and counts deliveries."""

    def __init__(self, kafka: KafkaSettings, linger_ms: int) -> None:
        self.n_delivered = 0
        self._topic = topic_names(kafka.prefix).behaviour
        self._producer = Producer(
            confluent_config(kafka)
            | {
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "queue.buffering.max.messages": 500_000,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.flush()

    def send(self, messages: list[dict[str, Any]]) -> None:
        while messages:
            accepted = self._producer.produce_batch(self._topic, messages, on_delivery=self._delivered)
            # Refused messages are marked, and may stand anywhere in the batch.
            messages = [m for m in messages if m.pop("_error", None)] if accepted < len(messages) else []
            self._producer.poll(0.05 if messages else 0)

    def _delivered(self, error: object, _: object) -> None:
        self.n_delivered += error is None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--users", type=int, required=True)
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="events a second")
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    kafka = KafkaSettings(
        bootstrap=arguments.bootstrap, prefix=arguments.prefix, partitions=arguments.partitions
    )
    events = Events(arguments.users, arguments.items, arguments.seed)
    ticks = prepare(kafka, events.messages, arguments.rate, arguments.seconds)
    n, seconds = send(kafka, ticks)
    print(json.dumps({"events": n, "seconds": seconds}))


if __name__ == "__main__":
    main()
