"""New items by their content: in the lists of those they are near to, in checkpoints, and folded again."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from schemas.codec import encode_event, encode_item
from schemas.content import (
    CatalogueSource,
    EncodedVector,
    FoundTag,
    ItemContent,
    ItemTags,
    encode_content,
    encode_tags,
    packed_vector,
)
from schemas.errors import ConfigurationError, StateError
from schemas.learner import Contexts
from schemas.records import Event, Item
from schemas.runs import Float32, RecordRun
from schemas.settings import (
    KafkaSettings,
    LearnerSettings,
    RankerSettings,
    Settings,
    WorkerSettings,
)
from serving.fresh import NEAREST, PLACE, Newcomers, place_new
from serving.metrics import WorkerMetrics
from serving.ranking import CONTENT, Ranked
from streams.audit import digests_of
from streams.checkpoint.journal import JournalEntry
from streams.core import WorkerCore
from streams.cut import capture, restore
from tests.unit.test_publisher import Recorder

NOW_MS = 1_650_900_000_000
KINDS, DIMS = 3, 12
SETTINGS = Settings(
    kafka=KafkaSettings(partitions=1),
    worker=WorkerSettings(dedup_window=4_096, refresh_interval_ms=0),
    learner=LearnerSettings(
        dim=16, history=8, seen=64, content=True, device="cpu", content_models=(f"text=m:{DIMS}",)
    ),
    ranker=RankerSettings(list_size=10, content_exploration=0.1, evaluate_ratio=0.0),
)


def kind_vector(kind: int, seed: int) -> Float32:
    means = np.random.default_rng(1).normal(size=(KINDS, DIMS))
    vector: Float32 = means[kind].astype(np.float32)
    noise: Float32 = np.random.default_rng([2, seed]).normal(size=DIMS).astype(np.float32)
    return vector + np.float32(0.3) * noise


def content_of(item_id: str, vector: Float32, version: str = "1", model: str = "m") -> ItemContent:
    return ItemContent(
        item_id=item_id, content_hash="0" * 32, encoders="0" * 32,
        source=CatalogueSource(partition=0, offset=0), encoded_at_ms=0, language="und", labels=[],
        vectors=[EncodedVector(modality="text", model=model, version=version, values=packed_vector(vector))],
        missing=[],
    )  # fmt: skip


class Journalled:
    """A keeper that keeps entries in memory."""

    def __init__(self) -> None:
        self.entries: list[tuple[JournalEntry, list[RecordRun]]] = []

    def append(self, entry: JournalEntry) -> None:
        self.entries.append((entry, []))

    def wait_durable(self, sequence: int, timeout_s: float | None = None) -> bool:
        return True

    def wants_cut(self) -> bool:
        return False

    def take(self, captured: Any) -> None: ...

    def close(self, captured: Any) -> None: ...

    def positions(self) -> dict[tuple[str, int], int]:
        return {}


class World:
    """A core that reads behaviour, catalogue, item-content and item-tags, one partition of each."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.sink, self.now_ms, self.n = Recorder(), NOW_MS, 0
        self.core = WorkerCore(
            settings, self.sink, WorkerMetrics(CollectorRegistry()), clock=lambda: self.now_ms / 1000
        )
        self.journal = Journalled()
        self.core.keep(self.journal, 1)
        self.offsets: dict[str, int] = {}

    def take_over(self) -> None:
        for topic in (*self.core.held.shelved, self.core.names.behaviour):
            position = self.core.position(topic, 0) or 0
            self.core.assign(topic, 0, start=position, committed=None, end=position)
            self.offsets[topic] = position

    def run(self, topic: str, records: list[tuple[str, bytes | None]]) -> None:
        first = self.offsets[topic]
        self.offsets[topic] = first + len(records)
        run = RecordRun(
            topic=topic, partition=0, keys=[key.encode() for key, _ in records],
            values=[value for _, value in records], offsets=np.arange(first, first + len(records)),
            timestamps_ms=np.full(len(records), self.now_ms), next_offset=first + len(records), first=first,
        )  # fmt: skip
        n_before = len(self.journal.entries)
        self.core.apply([run])
        for entry, runs in self.journal.entries[n_before:]:
            if entry.runs:
                runs.append(run)

    def put(self, *items: Item) -> None:
        self.run(self.core.names.catalogue, [(item.item_id, encode_item(item)) for item in items])

    def know(self, *contents: ItemContent) -> None:
        self.run(self.core.names.item_content, [(one.item_id, encode_content(one)) for one in contents])

    def watch(self, n: int, seed: int) -> None:
        """Users who stay with items of one kind."""
        random = np.random.default_rng(seed)
        records: list[tuple[str, bytes | None]] = []
        for _ in range(n):
            user, self.n, self.now_ms = int(random.integers(30)), self.n + 1, self.now_ms + 1_000
            item = KINDS * int(random.integers(10)) + user % KINDS
            event = Event(
                event_id=f"e{self.n}", user_id=f"u{user}", item_id=f"v{item}", type="watch",
                ts_ms=self.now_ms, watch_ms=9_000, duration_ms=10_000,
            )  # fmt: skip
            records.append((event.user_id, encode_event(event)))
        self.run(self.core.names.behaviour, records)

    def lists(self) -> dict[str, list[dict[str, Any]]]:
        while self.core.publisher.publish_chunk(self.core.sequence, interval_ms=0):
            pass
        self.sink.poll()
        return {found["user_id"]: found["items"] for found in self.sink.snapshots}


def learned() -> World:
    world = World()
    world.take_over()
    world.put(*[Item(item_id=f"v{n}", title="old") for n in range(30)])
    world.know(*[content_of(f"v{n}", kind_vector(n % KINDS, n)) for n in range(30)])
    for seed in range(8):
        world.watch(250, seed)
    return world


def test_a_new_item_is_listed_for_those_whose_history_is_near_before_anyone_watched_it() -> None:
    world = learned()
    world.lists()
    for kind in range(KINDS):
        item_id = f"new{kind}"
        world.put(Item(item_id=item_id, title="new"))
        world.know(content_of(item_id, kind_vector(kind, 100 + kind)))
    world.watch(400, 99)
    n_near, n_drawn = 0, 0
    for user, items in world.lists().items():
        places = {one["item_id"]: place for place, one in enumerate(items)}
        for one in items:
            if one["source"] == "content":
                assert one["item_id"].startswith("new")
                assert one["reasons"] == [{"kind": "new"}]
                assert 0 < one["propensity"] <= 1
                n_drawn += one["propensity"] < 1
        kind = int(user[1:]) % KINDS
        others = [places.get(f"new{other}", 99) for other in range(KINDS) if other != kind]
        n_near += places.get(f"new{kind}", 99) < min(others)
    assert n_near >= 25, "the ranking itself finds who they are for"
    assert n_drawn > 0, "a place is drawn beside that"
    content = world.core.model.content
    assert content is not None
    contexts = world.core.partitions[0].state.contexts(np.array([0], dtype=np.int32))
    world.put(Item(item_id="gone", title="new"))
    world.know(content_of("gone", kind_vector(0, 5)))
    world.run(world.core.names.catalogue, [("gone", None)])
    slot = world.core.model.items.find("gone")
    asked = Contexts(users=np.array([0], np.int32), history=contexts, now_ms=world.now_ms)
    found = content.newcomers(asked, world.core.unavailable())
    assert found is not None
    assert slot not in found.items.tolist()
    assert found.logits.shape == (1, len(found.items))


def test_state_with_content_is_the_fold_of_the_journal_and_survives_a_checkpoint() -> None:
    world = learned()
    world.run(world.core.names.item_content, [("v3", None), ("v4", b"{}")])
    world.run(world.core.names.item_tags, [("v5", encode_tags(tags_of("v5", "cats")))])
    wanted = digests_of(world.core)
    again = World()
    for entry, runs in world.journal.entries:
        again.core.refold(entry, runs)
    assert digests_of(again.core) == wanted

    captured = capture(world.core)
    cut = captured.cut()
    restored = World()
    restore(restored.core, cut.sequence, cut.meta, cut.units)
    assert digests_of(restored.core).model == wanted.model
    restored.take_over()
    assert restored.offsets == world.offsets
    for one in (world, restored):
        one.core.settle()
        one.put(Item(item_id="later", title="new", tags=["cats"], published_ts_ms=NOW_MS))
        if one is world:
            assert one.lists(), "what is published decides nothing of what is learned"
        one.know(content_of("later", kind_vector(1, 7)))
        one.n, one.now_ms = 10_000, NOW_MS + 10**7
        one.watch(200, 50)
    assert digests_of(restored.core).model == digests_of(world.core).model


def test_content_can_be_turned_on_and_off_over_one_state() -> None:
    off = msgspec.structs.replace(SETTINGS, learner=msgspec.structs.replace(SETTINGS.learner, content=False))
    world = learned()
    cut = capture(world.core).cut()
    without = World(off)
    restore(without.core, cut.sequence, cut.meta, cut.units)
    assert without.core.position(world.core.names.item_content, 0) is None
    for entry, runs in world.journal.entries[-2:]:
        without.core.refold(msgspec.structs.replace(entry, sequence=entry.sequence + 10), runs)
    later = capture(without.core).cut()
    on = World()
    restore(on.core, later.sequence, later.meta, later.units)
    assert on.core.position(world.core.names.item_content, 0) is None, "read from the beginning"
    assert on.core.position(world.core.names.catalogue, 0) == world.offsets[world.core.names.catalogue]
    other = msgspec.structs.replace(
        SETTINGS, learner=msgspec.structs.replace(SETTINGS.learner, content_models=("text=other:12",))
    )
    with pytest.raises(StateError, match="content_models"):
        restore(World(other).core, cut.sequence, cut.meta, cut.units)
    with pytest.raises(ConfigurationError, match=r"learner\.content"):
        World(Settings(learner=LearnerSettings(content=True, embeddings=False)))


def tags_of(item_id: str, *tags: str) -> ItemTags:
    found = [FoundTag(tag=tag, probability=0.9, given=True, source="learned", spoke={}) for tag in tags]
    word = FoundTag(tag="word", probability=None, given=True, source="keyword", spoke={})
    doubtful = FoundTag(tag="doubt", probability=0.2, given=False, source="learned", spoke={})
    return ItemTags(
        item_id=item_id, content_hash="0" * 32, encoders="0" * 32,
        source=CatalogueSource(partition=0, offset=0), n_examples=9, tags=[*found, word, doubtful],
    )  # fmt: skip


def test_found_tags_stand_in_where_the_catalogue_has_none() -> None:
    world = World()
    world.take_over()
    names, model = world.core.names, world.core.model
    world.run(names.item_tags, [("early", encode_tags(tags_of("early", "cats")))])
    world.put(Item(item_id="early"), Item(item_id="own", tags=["dogs"]), Item(item_id="late"))
    world.run(names.item_tags, [(one, encode_tags(tags_of(one, "cats"))) for one in ("own", "late")])
    events = [
        Event(event_id=f"t{n}", user_id="u", item_id=item, type="watch", ts_ms=NOW_MS + n,
              watch_ms=9_000, duration_ms=10_000)
        for n, item in enumerate(("early", "own", "late", "own"))
    ]  # fmt: skip
    world.run(names.behaviour, [(one.user_id, encode_event(one)) for one in events])
    known = set(model.tags.tags.ids)
    assert {"cats", "dogs"} <= known
    assert not {"word", "doubt"} & known
    row = dict(zip(model.tags.tags.ids, model.tags.distribution("cats", 1), strict=True))
    assert max(row, key=lambda tag: row[tag]) == "dogs"


def test_vectors_of_another_version_replace_and_never_mix() -> None:
    world = learned()
    content = world.core.model.content
    assert content is not None
    slot = world.core.model.items.find("v1")
    assert content.knows(slot)
    world.know(content_of("v1", kind_vector(1, 1), model="another"))
    assert not content.knows(slot)
    world.know(content_of("v2", kind_vector(2, 2), version="2"))
    known = [content.knows(world.core.model.items.find(f"v{n}")) for n in range(30)]
    assert known == [n == 2 for n in range(30)]
    world.know(content_of("v3", kind_vector(0, 3), version="1"))
    assert not content.knows(world.core.model.items.find("v3")), "a version that was replaced"
    world.watch(200, 7)
    assert np.isfinite(content.snapshot()["fusion.map.text"]).all()


def lists(n: int, k: int) -> Ranked:
    return Ranked(
        items=np.tile(np.arange(k, dtype=np.int32), (n, 1)), scores=np.ones((n, k), np.float32),
        relevance=np.full((n, k), 0.5, np.float32), sources=np.zeros((n, k), np.int8),
        reasons=np.full((n, k), -1, np.int32),
    )  # fmt: skip


def test_places_of_new_items() -> None:
    n, k = 2_000, 10
    new = Newcomers(
        np.array([50, 51, 52, 3], np.int32), np.tile(np.array([2.0, 1.0, 0.0, 9.0], np.float32), (n, 1))
    )
    known = np.full((n, 2), -1, np.int32)
    known[0] = (50, 51)
    wanted = np.ones(n, np.bool_)
    wanted[1] = False
    keys = np.arange(n, dtype=np.int64)
    ranked = lists(n, k)
    placed = place_new(ranked, new, wanted, known, keys, 0.05)
    assert ranked.propensities is not None
    took = ranked.sources == CONTENT
    assert placed == took.sum()
    assert abs(placed / n - 0.5) < 0.05, "half a place of ten"
    assert not took[1].any()
    assert set(np.flatnonzero(took.any(axis=0))) == {PLACE}
    items = ranked.items[took]
    assert 3 not in items.tolist(), "listed already"
    p = np.exp([2.0, 1.0, 0.0]) / np.exp([2.0, 1.0, 0.0]).sum()
    for item, expected in zip((50, 51, 52), p, strict=True):
        share = (items == item).mean()
        assert abs(share - expected) < 0.05
        rows = took & (ranked.items == item)
        if item > 50 or not took[0].any():
            np.testing.assert_allclose(ranked.propensities[rows], 0.5 * expected, rtol=1e-5)
    rest = np.where(took, -1, ranked.items)
    assert all(row[row >= 0].tolist() == sorted(row[row >= 0].tolist()) for row in rest)
    again = lists(n, k)
    place_new(again, new, wanted, known, keys, 0.05)
    np.testing.assert_array_equal(again.items, ranked.items)
    alone = lists(4, 1)
    known = np.tile(np.array([50, 51], np.int32), (4, 1))
    assert place_new(alone, Newcomers(new.items, new.logits[:4]), wanted[2:6], known, keys[:4], 1.0) == 4
    assert set(alone.items.ravel().tolist()) <= {52, 3}
    everything = np.array([[50, 51, 52, 3]] * 4, np.int32)
    full = lists(4, 2)
    assert place_new(full, Newcomers(new.items, new.logits[:4]), wanted[2:6], everything, keys[:4], 1.0) == 0
    assert NEAREST > 4
    assert json.dumps(full.items.tolist()) == json.dumps([[0, 1]] * 4)
