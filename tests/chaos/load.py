"""Load for the fault suite: a seeded stream with duplicates and broken messages, produced at a pace."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Self

import numpy as np
from confluent_kafka import Producer

from schemas.codec import encode_event, encode_item
from schemas.records import EVENT_TYPES, Event, Item
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.context import confluent_config

DUPLICATES = 0.03
BROKEN = 0.01
MANY = 100_000_000


class Load:
    """Produces at `rate` a second on a thread of its own, until `finish`, and knows what it sent.

    At most `n_events`, where that is given: then `wait` ends by itself.

    Broken messages stay below one in a hundred; duplicates repeat a recent event of the same user.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        n_events: int = MANY,
        rate: float,
        n_users: int = 500,
        n_items: int = 300,
        seed: int = 0,
    ) -> None:
        self.sent: Counter[str] = Counter()
        self.users: set[str] = set()  # with an event that is not broken
        self.n_events = n_events
        self._kafka = kafka
        self._rate = rate
        self._n_users, self._n_items = n_users, n_items
        self._rng = np.random.default_rng(seed)
        self._ended = threading.Event()
        self._failures: list[str] = []
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    @property
    def n_sent(self) -> int:
        """Records on the behaviour topic, sooner or later."""
        return sum(self.sent.values())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)

    def wait(self, timeout_s: float = 300.0) -> None:
        """Until everything was sent and acknowledged."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the load is not done"
        assert not self._failures, self._failures[:3]

    def finish(self, timeout_s: float = 300.0) -> None:
        """Send nothing more, and wait until all was acknowledged."""
        self._ended.set()
        self.wait(timeout_s)

    def _run(self) -> None:
        producer = Producer(
            confluent_config(self._kafka)
            | {
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "lz4",
                "log_level": 0,  # of a broker that is away on purpose
                "message.timeout.ms": 0,
            }
        )
        topic = topic_names(self._kafka.prefix)
        for i in range(self._n_items):
            item = Item(item_id=f"v{i}", title=f"title {i}", tags=[f"t{i % 7}"])
            producer.produce(topic.catalogue, encode_item(item), item.item_id)
        rng, recent = self._rng, dict[str, bytes]()
        started = time.monotonic()
        base_ms = int(time.time() * 1000)
        for i in range(self.n_events):
            if self._ended.is_set():
                break
            user = f"u{int(rng.integers(self._n_users))}"
            draw = float(rng.random())
            if draw < BROKEN:
                kind, value = "broken", b'{"event_id":"x"' if draw < BROKEN / 2 else b"\xff"
            elif draw < BROKEN + DUPLICATES and user in recent:
                kind, value = "duplicate", recent[user]
            else:
                kind = "event"
                self.users.add(user)
                value = recent[user] = encode_event(
                    Event(
                        event_id=f"e{i}",
                        user_id=user,
                        item_id=f"v{min(int(rng.zipf(1.3)) - 1, self._n_items - 1)}",
                        type=EVENT_TYPES[int(rng.choice([0, 1, 1, 1, 1, 2, 4]))],
                        ts_ms=base_ms + int(i / self._rate * 1000),  # not faster than the clock
                        watch_ms=int(rng.integers(500, 20_000)),
                        duration_ms=20_000,
                    )
                )
            self.sent[kind] += 1
            while True:
                try:
                    producer.produce(topic.behaviour, value, user, on_delivery=self._delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
            if not i % 50:
                producer.poll(0)
                ahead = i / self._rate - (time.monotonic() - started)
                if ahead > 0:
                    self._ended.wait(ahead)
        producer.flush(240)

    def _delivered(self, error: object, _: object) -> None:
        if error is not None:
            self._failures.append(str(error))
