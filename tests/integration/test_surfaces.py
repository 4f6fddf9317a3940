"""What an act means on each surface, on the real broker: rooms that are over, autoplay, clips and films."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.codec import encode_event, encode_item
from schemas.records import Event, Item
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.broker import LocalBroker
from streams.context import confluent_config
from tests.processes import RunningWorker, running_worker

pytestmark = pytest.mark.integration

PARTITIONS = 4
MINUTE_MS, HOUR_MS = 60_000, 3_600_000


class Platform:
    """A worker, a producer before it, and the newest list of every user behind it."""

    def __init__(self, worker: RunningWorker, bootstrap: str, prefix: str) -> None:
        self.worker = worker
        self.names = topic_names(prefix)
        self._out = Producer(confluent_config(KafkaSettings(bootstrap=bootstrap)) | {"acks": "all"})
        self._in = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False}
        )
        self._in.assign([TopicPartition(self.names.recommendations, p, 0) for p in range(PARTITIONS)])
        self.lists: dict[str, dict[str, Any]] = {}
        self._n = 0

    def close(self) -> None:
        self._in.close()

    def put(self, *items: Item) -> None:
        for item in items:
            self._out.produce(self.names.catalogue, encode_item(item), item.item_id)
        assert self._out.flush(10) == 0

    def withdraw(self, item_id: str) -> None:
        self._out.produce(self.names.catalogue, None, item_id)
        assert self._out.flush(10) == 0

    def act(self, user: str, item: str, kind: str = "watch", ts_ms: int | None = None, **fields: Any) -> None:
        event = Event(
            event_id=f"e{self._n}",
            user_id=user,
            item_id=item,
            type=kind,  # type: ignore[arg-type]
            ts_ms=int(time.time() * 1000) if ts_ms is None else ts_ms,
            **fields,
        )
        self._n += 1
        self._out.produce(self.names.behaviour, encode_event(event), user)
        self._out.poll(0)

    def learn(self) -> dict[str, Any]:
        """Statistics once everything sent is learned and told."""
        assert self._out.flush(10) == 0
        return self.worker.wait(lambda s: s["events_learned"] >= self._n and not s["pending_snapshots"])

    def wait(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Follow the lists until `condition` holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, {user: items(found) for user, found in self.lists.items()}
            message = self._in.poll(0.2)
            if message is None or message.error() is not None:
                continue
            key, value = message.key(), message.value()
            assert key is not None
            assert value is not None
            self.lists[key.decode()] = json.loads(value)

    def told(self) -> None:
        """Follow the lists until they know every event that was sent."""
        self.learn()
        last = f"e{self._n - 1}"
        self.wait(lambda: any(found["knows"]["event_id"] == last for found in self.lists.values()))

    def holders(self, item: str) -> set[str]:
        return {user for user, found in self.lists.items() if item in items(found)}


def items(found: dict[str, Any]) -> list[str]:
    """Item ids of a list, in its order."""
    return [place["item_id"] for place in found["items"]]


@pytest.fixture
def platform(broker: LocalBroker, topics: str, tmp_path: Path) -> Iterator[Platform]:
    with running_worker(broker.bootstrap, topics, PARTITIONS, tmp_path) as worker:
        found = Platform(worker, broker.bootstrap, topics)
        yield found
        found.close()


def test_a_room_that_is_over_leaves_all_lists_within_two_seconds(platform: Platform) -> None:
    """By its time, and by a null value; users who do nothing any more have it in their lists."""
    for room in ("room-1", "room-2"):
        platform.put(Item(item_id=room, surface="live", expires_ts_ms=int(time.time() * 1000) + HOUR_MS))
    for i in range(40):
        platform.act(f"guest{i}", f"room-{i % 2 + 1}", "join", surface="live")
        platform.act(f"idle{i}", f"clip-{i % 5}", surface="short_video")
    platform.told()
    for i in range(40):
        platform.act(f"idle{i}", f"clip-{(i + 1) % 5}", surface="short_video")
    platform.told()
    idle = {f"idle{i}" for i in range(40)}
    platform.wait(lambda: idle <= platform.holders("room-1") & platform.holders("room-2"))
    over_ms = int(time.time() * 1000)
    platform.withdraw("room-2")
    platform.wait(lambda: not platform.holders("room-2"))
    assert max(found["generated_at_ms"] for found in platform.lists.values()) <= over_ms + 2_000
    over_ms = int(time.time() * 1000) + 3_000
    platform.put(Item(item_id="room-1", surface="live", expires_ts_ms=over_ms))
    platform.wait(lambda: not platform.holders("room-1"))
    made_ms = [platform.lists[user]["generated_at_ms"] for user in idle]
    assert over_ms <= min(made_ms)
    assert max(made_ms) <= over_ms + 2_000
    platform.act("late guest", "clip-1", surface="short_video")
    platform.told()
    assert not platform.holders("room-1") | platform.holders("room-2")
