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
from streams.processes import http_json
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
        self._last: dict[str, str] = {}

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
        self._last[user] = event.event_id
        self._out.produce(self.names.behaviour, encode_event(event), user)
        self._out.poll(0)

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
        """Follow the lists until each knows the last event of its user."""
        assert self._out.flush(10) == 0
        self.worker.wait(lambda s: s["events_learned"] >= self._n and not s["pending_snapshots"])
        self.wait(lambda: all(self._known(user) == event for user, event in self._last.items()), 60.0)

    def _known(self, user: str) -> str | None:
        return self.lists[user]["knows"]["event_id"] if user in self.lists else None

    def ask(self, path: str) -> dict[str, Any]:
        """What the worker's own port answers."""
        return http_json(f"{self.worker.url}{path}", timeout_s=60)

    def holders(self, item: str) -> set[str]:
        return {user for user, found in self.lists.items() if item in items(found)}


def items(found: dict[str, Any]) -> list[str]:
    """Item ids of a list, in its order."""
    return [place["item_id"] for place in found["items"]]


@pytest.fixture
def platform(broker: LocalBroker, topics: str, tmp_path: Path) -> Iterator[Platform]:
    # With the usual exploration no list of forty has the room that nobody joined, once in some runs.
    exploration = {"REELFLOW_RANKER_LIVE_EXPLORATION": "20"}
    with running_worker(broker.bootstrap, topics, PARTITIONS, tmp_path, **exploration) as worker:
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


def test_an_autoplayed_unwatched_video_moves_nothing(platform: Platform) -> None:
    """The worker's learners stay as they are, bit by bit; the receipt says that the event is known."""
    for i in range(200):
        platform.act(f"u{i % 10}", f"v{(i * i) % 23}", watch_ms=20_000, duration_ms=20_000, surface="tv")
    platform.told()
    before = platform.ask("/digest")["model"]
    for i in range(60):
        watch_ms = None if i % 2 else 400
        platform.act(
            f"u{i % 10}",
            f"v{(i * i) % 23}",
            autoplay=True,
            watch_ms=watch_ms,
            duration_ms=20_000,
            surface="tv",
        )
    platform.told()
    assert platform.ask("/digest")["model"] == before
    platform.act("u0", "v1", watch_ms=20_000, duration_ms=20_000, surface="tv")
    platform.told()
    assert platform.ask("/digest")["model"] != before


def test_ten_seconds_of_a_clip_count_for_more_than_of_a_film(platform: Platform) -> None:
    """As many watches of either, each of ten seconds: the clip is popular, the film is not."""
    for i in range(60):
        platform.act(f"u{i}", "film", watch_ms=10_000, duration_ms=5_400_000, surface="long_video")
        platform.act(f"u{i}", "clip", watch_ms=10_000, duration_ms=12_000, surface="short_video")
        platform.act(f"u{i}", "other", watch_ms=60_000, duration_ms=5_400_000, surface="long_video")
    platform.act("newcomer", "unknown", "impression")
    platform.told()
    listed = items(platform.lists["newcomer"])
    assert {"clip", "other"} <= set(listed)
    assert "film" not in listed
    popular = {row["item_id"]: row["score"] for row in platform.ask("/popular?limit=10")["items"]}
    assert popular["clip"] > popular.get("film", 0.0)


def test_a_television_with_two_viewers_gets_both_tastes_at_their_hours(platform: Platform) -> None:
    """Cartoons at eight in the morning and thrillers at nine in the evening, day by day, in one profile."""
    midnight_ms = int(time.time()) // 86_400 * 86_400_000 - 9 * 24 * HOUR_MS
    households = [f"tv{i}" for i in range(24)]

    def watch(day: int, hour: int, taste: str, n: int) -> None:
        for i, user in enumerate(households):
            for j in range(n):
                item = f"{taste}-{(i * 7 + day * 11 + j * 5) % 40}"
                ts_ms = midnight_ms + (24 * day + hour) * HOUR_MS + (20 * j + i % 5) * MINUTE_MS
                platform.act(user, item, ts_ms=ts_ms, watch_ms=1_200_000, surface="tv", device="tv")

    def share(taste: str) -> float:
        """Of the first ten places of all households."""
        heads = [place for user in households for place in items(platform.lists[user])[:10]]
        return sum(place.startswith(taste) for place in heads) / len(heads)

    for day in range(6):
        watch(day, 8, "cartoon", 4)
        watch(day, 21, "thriller", 4)
    platform.told()
    assert share("thriller") > 0.7
    watch(6, 8, "cartoon", 1)
    platform.told()
    assert share("cartoon") > 0.7
    watch(6, 21, "thriller", 1)
    platform.told()
    assert share("thriller") > 0.7


def test_podcast_and_video_acts_meet_in_one_profile(platform: Platform) -> None:
    """What a phone hears and a television sees is one history; each leads to what goes with it."""
    for i in range(40):
        for j in range(4):
            platform.act(f"cook{i}", f"cooking-show-{(i + j) % 6}", surface="tv", device="tv")
            platform.act(f"cook{i}", f"cooking-podcast-{(i + j) % 6}", surface="audio", device="phone")
            platform.act(f"driver{i}", f"car-show-{(i + j) % 6}", surface="tv", device="tv")
            platform.act(f"driver{i}", f"car-podcast-{(i + j) % 6}", surface="audio", device="phone")
    platform.act("listener", "cooking-podcast-1", surface="audio", device="phone")
    platform.act("viewer", "car-show-1", surface="tv", device="tv")
    platform.told()
    heard, seen = items(platform.lists["listener"])[:6], items(platform.lists["viewer"])[:6]
    assert sum("cooking" in item for item in heard) >= 5
    assert any("show" in item for item in heard)
    assert sum("car" in item for item in seen) >= 5
    assert any("podcast" in item for item in seen)
    platform.act("listener", "car-show-2", surface="tv", device="tv")
    platform.told()
    events = platform.ask("/users/listener")["recent"]
    assert [event["item_id"] for event in events] == ["car-show-2", "cooking-podcast-1"]
    both = items(platform.lists["listener"])
    assert any("cooking" in item for item in both)
    assert any("car" in item for item in both)


def test_who_watches_live_is_shown_the_room_where_people_are(platform: Platform) -> None:
    """Two rooms: forty go into one; most lists of live viewers get it, and some the empty one."""
    for room in ("full", "empty", "lobby"):
        platform.put(Item(item_id=room, surface="live"))
    for i in range(40):
        platform.act(f"guest{i}", "full", "join", surface="live")
    viewers = [f"viewer{i}" for i in range(40)]
    for user in viewers:
        platform.act(user, "lobby", "join", surface="live")
    for user in viewers:
        platform.act(user, "lobby", "leave", surface="live", watch_ms=1_000)
    platform.told()
    explored = [
        (place["item_id"], place["propensity"])
        for user in viewers
        for place in platform.lists[user]["items"]
        if place["source"] == "exploration"
    ]
    assert all(0 < propensity < 1 for _, propensity in explored)
    for user in viewers:
        assert "full" in items(platform.lists[user])
    assert "empty" in {item for item, _ in explored} | set().union(
        *(items(found) for found in platform.lists.values())
    )
