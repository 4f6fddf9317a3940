"""What the publisher sends, when, and what it owes until the broker has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from schemas.codec import encode_event, encode_item
from schemas.hashing import partition_of
from schemas.records import Event, EventType, Item, Surface
from schemas.runs import RecordRun
from schemas.settings import KafkaSettings, LearnerSettings, RankerSettings, Settings, WorkerSettings
from serving.metrics import WorkerMetrics
from streams.core import WorkerCore
from streams.cut import restore
from streams.sinks import Delivered, Headers

NOW_MS = 1_700_000_000_000


class Recorder:
    """Keeps what it gets; acknowledges one batch a poll."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.snapshots: list[dict[str, Any]] = []
        self.waiting: list[tuple[int, Delivered]] = []
        self.ago_s = 0.0

    def send(
        self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None], delivered: Delivered,
        *, partition: int | None = None, headers: Sequence[Headers] | None = None,
    ) -> None:  # fmt: skip
        self.calls.append("send")
        self.snapshots += [json.loads(value) for value in values if value is not None]
        assert [snapshot["user_id"].encode() for snapshot in self.snapshots[-len(keys) :]] == list(keys)
        self.waiting.append((len(keys), delivered))

    def poll(self) -> None:
        if self.waiting:
            n, delivered = self.waiting.pop(0)
            delivered(n, 0, self.ago_s)

    def flush(self, timeout_s: float) -> int:
        return 0


class World:
    """A core that has everything it waits for."""

    def __init__(self, partitions: int = 1) -> None:
        self.now_s = NOW_MS / 1000
        self.sink = Recorder()
        settings = Settings(
            kafka=KafkaSettings(partitions=partitions),
            worker=WorkerSettings(dedup_window=4_096),
            learner=LearnerSettings(embeddings=False, history=8, seen=8),
            ranker=RankerSettings(list_size=5),
        )
        metrics = WorkerMetrics(CollectorRegistry())
        self.core = WorkerCore(settings, self.sink, metrics, clock=lambda: self.now_s)
        for place in range(partitions):
            self.core.assign(self.core.names.behaviour, place, start=0, committed=None, end=0)
        self.core.assign(self.core.names.catalogue, 0, start=0, committed=None, end=0)
        self.publisher = self.core.publisher

    def hear(self, user: str, item: str, type_: EventType = "watch") -> None:
        place = partition_of(user.encode(), len(self.core.partitions))
        offset = self.core.partitions[place].next_offset
        now_ms = int(self.now_s * 1000)
        event = Event(event_id=f"e{offset}", user_id=user, item_id=item, type=type_, ts_ms=now_ms)
        run = RecordRun(
            topic=self.core.names.behaviour, partition=place,
            keys=[user.encode()], values=[encode_event(event)],
            offsets=np.array([offset]), timestamps_ms=np.array([now_ms]), next_offset=offset + 1,
        )  # fmt: skip
        self.core.apply([run])

    def put(
        self, item: str, expires_in_ms: int | None = None, *, withdraw: bool = False, live: bool = False
    ) -> None:
        """A catalogue message."""
        now_ms = int(self.now_s * 1000)
        expires_ts_ms = None if expires_in_ms is None else now_ms + expires_in_ms
        surface: Surface | None = "live" if live else None
        value = encode_item(Item(item_id=item, expires_ts_ms=expires_ts_ms, surface=surface))
        offset = self.core.shelves[0].next_offset
        run = RecordRun(
            topic=self.core.names.catalogue, partition=0, keys=[item.encode()],
            values=[None if withdraw else value], offsets=np.array([offset]),
            timestamps_ms=np.array([now_ms]), next_offset=offset + 1,
        )  # fmt: skip
        self.core.apply([run])

    def last(self, user: str) -> dict[str, Any]:
        """The last list of a user."""
        return next(found for found in reversed(self.sink.snapshots) if found["user_id"] == user)

    def listed(self, user: str) -> set[str]:
        return {place["item_id"] for place in self.last(user)["items"]}

    def owed(self) -> dict[str, int]:
        users, since_ms = self.publisher.owed(0)
        names = self.core.partitions[0].state.users.ids
        return {names[user]: since - NOW_MS for user, since in zip(users.tolist(), since_ms, strict=True)}


def test_epoch_sequence_and_fallbacks_are_those_of_the_model() -> None:
    world = World()
    world.publisher.epoch, world.publisher.stale = 7, True
    world.hear("alice", "v1")
    world.hear("bob", "v1", "skip")
    assert world.publisher.publish_chunk(12) == 2
    alice, bob = world.sink.snapshots
    assert (alice["model"]["epoch"], alice["model"]["sequence"]) == (7, 12)
    assert (alice["fallback"], bob["fallback"]) == ("stale_model", "cold_user")
    world.publisher.stale = False
    world.now_s += 10
    world.hear("alice", "v2")
    world.publisher.publish_chunk(13)
    assert world.sink.snapshots[-1]["fallback"] == "none"
    assert world.sink.snapshots[-1]["knows"]["event_id"] == "e2"


def test_nothing_is_sent_before_what_it_derives_from_is_durable() -> None:
    world = World()
    durable = [0]

    def asked(sequence: int, _timeout_s: float | None) -> bool:
        world.sink.calls.append(f"durable {sequence}?")
        return durable[0] >= sequence

    world.publisher.before_send = asked
    world.hear("alice", "v1")
    world.publisher.publish_chunk(1)
    world.hear("bob", "v1")
    world.publisher.publish_chunk(2)
    assert set(world.sink.calls) == {"durable 1?"}
    del world.sink.calls[:]
    durable[0] = 1
    world.publisher.send_waiting()
    assert world.sink.calls == ["durable 1?", "send", "durable 2?"]
    assert set(world.owed()) == {"alice", "bob"}
    durable[0] = 2
    world.publisher.send_waiting()
    world.sink.poll()
    world.sink.poll()
    assert [found["user_id"] for found in world.sink.snapshots] == ["alice", "bob"]
    assert not world.owed()


def test_what_will_never_be_durable_is_never_sent() -> None:
    world = World()
    world.hear("alice", "v1")
    world.publisher.publish_chunk(1)

    def failing(_sequence: int, _timeout_s: float | None) -> bool:
        raise OSError("the disk is full")

    world.publisher.before_send = failing
    world.hear("bob", "v1")
    with pytest.raises(OSError, match="full"):
        world.publisher.publish_chunk(2)
    assert world.sink.calls == ["send"]
    assert set(world.owed()) == {"bob"}


def test_owed_until_the_broker_has_it() -> None:
    world = World()
    world.hear("alice", "v1")
    world.now_s += 0.25
    world.hear("bob", "v2")
    assert world.owed() == {"alice": 0, "bob": 250}
    world.publisher.publish_chunk(2)
    assert world.owed() == {"alice": 0, "bob": 250}
    world.now_s += 1
    world.hear("alice", "v2")
    world.sink.poll()
    assert world.owed() == {"alice": 1_250}
    assert world.publisher.longest_wait_s() == 0


def test_lists_of_idle_users_are_made_anew_when_an_item_in_them_ends() -> None:
    world = World()
    world.put("room", expires_in_ms=5_000)
    for user, item in (("alice", "v1"), ("bob", "v2"), ("carol", "room"), ("alice", "room"), ("dave", "v1")):
        world.hear(user, item)
    world.core.tick()
    assert "room" in world.listed("bob")
    before = world.last("bob")
    n = len(world.sink.snapshots)
    world.now_s += 4.9
    world.core.tick()
    assert len(world.sink.snapshots) == n
    world.now_s += 0.2
    world.core.tick()
    assert {found["user_id"] for found in world.sink.snapshots[n:]} == {"bob", "dave"}
    assert "room" not in world.listed("bob")
    assert world.last("bob")["knows"] == before["knows"]
    assert world.last("bob")["snapshot_id"] != before["snapshot_id"]
    world.now_s += 1
    world.put("v2", withdraw=True)
    world.core.tick()
    assert "v2" not in world.listed("dave")
    n = len(world.sink.snapshots)
    world.now_s += 1
    world.core.tick()
    assert len(world.sink.snapshots) == n


def test_a_restart_takes_back_what_ended_meanwhile() -> None:
    world, later = World(), World()
    world.put("room", expires_in_ms=5_000)
    for user, item in (("alice", "v1"), ("bob", "v2"), ("carol", "room")):
        world.hear(user, item)
    world.core.tick()
    world.sink.poll()
    assert "room" in world.listed("bob")
    captured = world.core.capture()
    cut = captured.cut()
    later.core.held.partitions.clear()
    later.core.held.shelves.clear()
    restore(later.core, captured.sequence, cut.meta, cut.units)
    later.now_s += 60
    later.core.tick()
    assert {found["user_id"] for found in later.sink.snapshots} == {"alice", "bob"}
    assert not later.listed("bob") & {"room"}
    assert later.last("bob")["knows"] == world.last("bob")["knows"]


def test_who_watches_live_gets_a_room_that_nobody_has_joined_yet() -> None:
    world = World()
    for room in ("room-1", "room-2", "over"):
        world.put(room, 1_000 if room == "over" else 60_000, live=True)
    world.hear("alice", "room-1", "join")
    others = [f"u{i}" for i in range(20)]  # many: whether a draw finds a room that is not listed is chance
    for other in others:
        world.hear(other, "v1")
    world.now_s += 2
    world.core.tick()
    (explored,) = [place for place in world.last("alice")["items"] if place["source"] == "exploration"]
    assert explored["item_id"] == "room-2"
    assert explored["reasons"] == [{"kind": "explore"}]
    share = explored["propensity"]  # one was joined just now, heat 1, the other has what every room is given
    assert share == pytest.approx(0.5 / (0.5 + 0.5 + 2 ** (-2 / 300)), abs=1e-4)
    sources = {place["source"] for other in others for place in world.last(other)["items"]}
    assert "popularity" in sources
    assert "exploration" not in sources
    world.now_s += 60
    world.core.tick()
    assert not world.listed("alice") & {"room-1", "room-2", "over"}


def test_rooms_are_known_after_a_restart() -> None:
    world, later = World(), World()
    world.put("room-1", live=True)
    world.put("room-2", live=True)
    world.hear("alice", "room-1", "join")
    captured = world.core.capture()
    cut = captured.cut()
    later.core.held.partitions.clear()
    later.core.held.shelves.clear()
    restore(later.core, captured.sequence, cut.meta, cut.units)
    assert later.core.model.digest() == world.core.model.digest()
    now_ms = int(world.now_s * 1000)
    assert (
        later.core.model.rooms(now_ms).heat.tolist()
        == world.core.model.rooms(now_ms).heat.tolist()
        == [1.0, 0.0]
    )


def test_with_fewer_places_than_partitions_all_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next chunk goes on where the one before had no more room, however many wait."""
    world = World(partitions=5)
    for n in range(200):
        world.hear(f"u{n}", "v1")
    parts = world.core.partitions.values()
    owing = [part.outbox.n_pending for part in parts]
    monkeypatch.setattr("streams.publisher.CHUNK", 2)
    for turn in range(5):
        assert world.publisher.publish_chunk(turn) == 2
        told = [n - part.outbox.n_pending for n, part in zip(owing, parts, strict=True)]
        assert max(told) - min(told) <= 1


def test_a_small_rest_goes_with_the_chunk_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.publisher.CHUNK", 8)
    world = World(partitions=2)
    for n in range(20):
        world.hear(f"u{n}", "v1")
    assert [world.publisher.publish_chunk(turn) for turn in range(3)] == [8, 12, 0]
    assert world.publisher.n_sent == 20


def test_a_list_has_taken_until_the_broker_answered_not_until_that_was_heard() -> None:
    world = World(partitions=2)
    for n in range(20):
        world.hear(f"u{n}", "v1")
    world.publisher.publish_chunk(1)
    world.now_s += 3.0
    world.sink.ago_s = 2.0
    world.sink.poll()
    world.sink.ago_s = 2.5
    world.sink.poll()
    assert world.publisher.n_snapshots == 20
    assert world.publisher.latencies.quantile(0.5) == pytest.approx(1.0, abs=0.01)
