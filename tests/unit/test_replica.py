"""A replica that followed the model topics is the learner's model: same arrays, same lists."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from learners.user_state import PartitionState
from schemas.decoding import decode_events
from schemas.errors import StateError
from schemas.hashing import partition_of
from schemas.learner import Contexts
from schemas.model_values import HeadValue, decode_value, encode_value
from schemas.records import Event, Item
from schemas.runs import RecordRun
from schemas.settings import KafkaSettings, LearnerSettings, RankerSettings, Settings
from streams.model import Model
from streams.model_export import shape_of
from streams.model_topics import ModelPublisher, Transactions
from streams.ranker_model import RankerModel
from streams.replica import Replica
from streams.staging import Stager
from tests.learner_data import T0_MS
from tests.model_log import PARTITIONS, TOPICS, Follower, ModelLog

N_ITEMS = 300
NOBODY = np.zeros(0, dtype=np.bool_)


def settings(*, embeddings: bool = True, **learner: Any) -> Settings:
    return Settings(
        kafka=KafkaSettings(partitions=PARTITIONS),
        learner=LearnerSettings(
            embeddings=embeddings, device="cpu", dim=16, history=10, seen=16, transition_width=16,
            popularity_half_lives_h=(0.05, 1.0), **learner,
        ),
        ranker=RankerSettings(list_size=10),
    )  # fmt: skip


def events_of(seed: int, n: int, *, n_users: int = 60, first: int = 0) -> list[Event]:
    rng = np.random.default_rng(seed)
    items = rng.zipf(1.3, n) % N_ITEMS
    users = rng.integers(0, n_users, n)
    return [
        Event(
            event_id=f"e{first + i}", user_id=f"u{user}", item_id=f"v{item}", type="watch",
            ts_ms=T0_MS + (first + i) * 4_000, watch_ms=9_000, duration_ms=10_000,
        )
        for i, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True))
    ]  # fmt: skip


class Folder:
    """User state of all partitions under some item interner."""

    def __init__(self, config: Settings, items: Any) -> None:
        self.items = items
        self.states = [
            PartitionState(
                p, n_partitions=PARTITIONS, history=config.learner.history, seen=config.learner.seen,
                dedup_window=4_096, lateness_ms=10**9, future_skew_ms=10**9, session_gap_ms=1_800_000,
            )
            for p in range(PARTITIONS)
        ]  # fmt: skip

    def fold(self, events: list[Event], partition: int) -> Any:
        state = self.states[partition]
        chosen = [e for e in events if partition_of(e.user_id.encode(), PARTITIONS) == partition]
        n = len(chosen)
        run = RecordRun(
            topic="t", partition=partition, keys=[e.user_id.encode() for e in chosen],
            values=[msgspec.json.encode(e) for e in chosen],
            offsets=np.arange(state.next_offset, state.next_offset + n, dtype=np.int64),
            timestamps_ms=np.array([e.ts_ms for e in chosen], dtype=np.int64),
            next_offset=state.next_offset + n,
        )  # fmt: skip
        return state.fold(decode_events(run, users=state.users, items=self.items, hash_key=7)).interactions


class Learner:
    """The learner's process: model, its own user state, publisher."""

    def __init__(self, config: Settings, log: Transactions, *, epoch: int = 1, seed: int = 1) -> None:
        self.config = config
        self.model = Model(config.learner, config.ranker)
        self.folder = Folder(config, self.model.items)
        self.now_s = 1_000.0
        self.sequence = 0
        self.seed = seed
        self.n = 0
        self.publisher = ModelPublisher(
            self.model, log, config, epoch=epoch, lineage=f"model-{seed}", clock=lambda: self.now_s,
        )  # fmt: skip
        self.publisher.start()

    def learn(self, n: int) -> list[Event]:
        events = events_of(self.seed + self.n, n, first=self.n)
        self.n += n
        for p in range(PARTITIONS):
            batch = self.folder.fold(events, p)
            ids = self.folder.states[p].users.ids
            batch.users = self.model.users.get_many([ids[user] for user in batch.users.tolist()])
            self.model.learn(batch, NOBODY)
            self.sequence += 1
        return events

    def sync(self, *, last: bool = False) -> None:
        self.now_s += 1.5
        assert self.publisher.sync(self.sequence, {("t", 0): self.n}, self.n, last=last)
        assert self.publisher.wait(20)

    def stop(self) -> None:
        self.publisher.stop()


def stager(config: Settings) -> Stager:
    return Stager(TOPICS, shape_of(config.learner))


def lists(ranker: Any, model_users: Any, folder: Folder, withdrawn: Any) -> list[Any]:
    found = []
    for p, state in enumerate(folder.states):
        order = sorted(range(len(state.users)), key=state.users.ids.__getitem__)
        users = np.array(order, dtype=np.int32)
        contexts = Contexts(users=model_users(p, users), history=state.contexts(users), now_ms=0)
        found.append(ranker.rank(contexts, state.seen_rows(users), withdrawn).first(10))
    return found


def assert_same_model(model: Model, replica: Replica) -> None:
    assert list(replica.items.ids) == list(model.items.ids)
    mine, theirs = model.transitions.snapshot(), replica.transitions.snapshot()
    for name in ("nbr", "w", "rowsum", "filled", "clock"):
        np.testing.assert_array_equal(theirs[name], mine[name], err_msg=name)
    mine, theirs = model.popularity.snapshot(), replica.popularity.snapshot()
    for name in ("counts", "totals", "references", "orders", "newest"):
        np.testing.assert_array_equal(theirs[name], mine[name], err_msg=name)
    assert replica.gate.digest() == model.gate.digest()
    assert (replica.embeddings is None) == (model.embeddings is None)
    if model.embeddings is not None and replica.embeddings is not None:
        mine, theirs = model.embeddings.snapshot(), replica.embeddings.snapshot()
        for name in ("item_values", "item_counts", "mixing", "positions"):
            np.testing.assert_array_equal(theirs[name], mine[name], err_msg=name)


@pytest.mark.parametrize("embeddings", [False, True])
def test_a_drained_ranker_makes_the_learners_lists(embeddings: bool) -> None:
    config = settings(embeddings=embeddings)
    log = ModelLog()
    learner = Learner(config, log)
    ranker = RankerModel(config)
    folder = Folder(config, ranker.names.items)
    follower = Follower(log, stager(config), ranker.replica, seed=3)
    for round_ in range(4):
        events = learner.learn(900)
        for p in reversed(range(PARTITIONS)):  # another order of partitions, so other item slots
            folder.fold(events, p)
        learner.sync()
        if round_ % 2:
            follower.drain()
    learner.sync(last=True)
    learner.stop()
    follower.drain()
    replica = ranker.replica
    assert_same_model(learner.model, replica)
    assert list(ranker.names.items.ids) != list(learner.model.items.ids)
    assert replica.head is not None
    assert replica.head.events_learned == 3_600
    assert replica.head.n_waiting == replica.n_unnamed == 0
    for item in (7, 3, 250):
        learner.model.catalogue.withdraw(f"v{item}")
        ranker.names.withdraw(f"v{item}")
    ranker.names.put_item(Item(item_id="only-in-the-catalogue"))

    def learners_users(p: int, users: Any) -> Any:
        ids = learner.folder.states[p].users.ids
        return learner.model.users.get_many([ids[user] for user in users.tolist()])

    def rankers_users(p: int, users: Any) -> Any:
        ids = folder.states[p].users.ids
        return replica.users.get_many([ids[user] for user in users.tolist()])

    own = learner.model.ranker
    expected = lists(own, learners_users, learner.folder, learner.model.catalogue.unavailable(0))
    found = lists(ranker.ranker, rankers_users, folder, ranker.catalogue.unavailable(0))
    for mine, theirs in zip(expected, found, strict=True):
        assert (mine.items >= 0).all()
        for name in ("items", "scores", "relevance", "sources", "reasons"):
            np.testing.assert_array_equal(getattr(theirs, name), getattr(mine, name), err_msg=name)


def test_a_new_replica_bootstraps_from_the_compacted_log() -> None:
    config = settings()
    log = ModelLog()
    learner = Learner(config, log)
    for _ in range(3):
        learner.learn(500)
        learner.sync()
    log.compact()
    learner.learn(200)
    learner.sync(last=True)
    learner.stop()
    replica = Replica(config.learner, config.ranker)
    Follower(log, stager(config), replica, seed=9).drain()
    assert_same_model(learner.model, replica)
    assert replica.age_s(learner.now_s + 2.0) == pytest.approx(2.0)


def test_the_budget_is_kept_and_what_waits_comes_later() -> None:
    config = settings(embeddings=False, sync_bytes_per_s=40_000)
    log = ModelLog()
    learner = Learner(config, log)
    replica = Replica(config.learner, config.ranker)
    follower = Follower(log, stager(config), replica, seed=5)
    learner.learn(2_000)
    waited = []
    for _ in range(40):
        learner.sync()
        follower.drain()
        waited.append(learner.publisher.n_waiting)
        listed = replica.unlisted()
        assert not listed[: len(replica.items)].any()
        assert listed[len(replica.items) :].all()
        assert replica.n_unnamed == 0  # names came in the order of slots
        if not waited[-1]:
            break
    assert len(waited) > 3
    assert waited[-1] == 0
    sizes = [sum(len(r.value) for r in records) for records in log.transactions]
    dense = sum(len(r.value) for r in log.transactions[0] if r.topic == TOPICS.dense)
    assert max(sizes[2:]) < 1.5 * 60_000 + dense  # 1.5 s between syncs here
    learner.stop()
    assert_same_model(learner.model, replica)


def test_a_transaction_that_failed_is_made_up_for() -> None:
    config = settings(embeddings=False)
    log = ModelLog()
    learner = Learner(config, log)
    learner.learn(600)
    log.fail = 2
    learner.sync()
    assert not log.transactions
    learner.learn(100)
    learner.sync()
    learner.sync()
    replica = Replica(config.learner, config.ranker)
    Follower(log, stager(config), replica, seed=1).drain()
    learner.stop()
    assert_same_model(learner.model, replica)


def test_an_error_of_the_publisher_reaches_the_learner() -> None:
    config = settings(embeddings=False)
    log = ModelLog()
    log.error = StateError("fenced out")
    learner = Learner(config, log)
    learner.learn(50)
    learner.sync()
    with pytest.raises(StateError, match="fenced out"):
        learner.sync()
    learner.stop()


def test_a_new_model_of_a_higher_epoch_replaces_the_old_one() -> None:
    """Whatever order the partitions are read in, nothing of the old model stays."""
    config = settings(embeddings=False)
    log = ModelLog()
    old = Learner(config, log, epoch=1, seed=1)
    old.learn(800)
    old.sync(last=True)
    old.stop()
    new = Learner(config, log, epoch=2, seed=77)
    new.learn(150)
    new.sync(last=True)
    new.stop()
    for seed in range(5):
        replica = Replica(config.learner, config.ranker)
        follower = Follower(log, stager(config), replica, seed=seed)
        follower.drain()
        assert_same_model(new.model, replica)
        assert replica.lineage == "model-77"


def test_a_fenced_learner_is_not_listened_to() -> None:
    config = settings(embeddings=False)
    log = ModelLog()
    learner = Learner(config, log, epoch=3)
    learner.learn(300)
    learner.sync(last=True)
    learner.stop()
    replica = Replica(config.learner, config.ranker)
    follower = Follower(log, stager(config), replica, seed=1)
    follower.drain()
    for place, records in log.partitions.items():
        key, value = records[-1]
        changed = msgspec.msgpack.decode(value) | {"epoch": 2, "slot": 0}
        records.append((key, msgspec.msgpack.encode(changed)))
        assert follower.stager.add(*place, key, records[-1][1]) is None
    assert follower.stager.n_refused == len(log.partitions)
    assert "epoch 2 after 3" in follower.stager.last_refusal
    assert len(follower.stager) == 0


def test_two_models_under_one_epoch_end_the_follower() -> None:
    config = settings(embeddings=False)
    log = ModelLog()
    for seed in (1, 2):
        learner = Learner(config, log, epoch=4, seed=seed)
        learner.learn(60)
        learner.sync(last=True)
        learner.stop()
    with pytest.raises(StateError, match="two models under epoch 4"):
        Follower(log, stager(config), Replica(config.learner, config.ranker), seed=0).drain()


def test_other_settings_and_versions_are_refused_by_name() -> None:
    config = settings(embeddings=False)
    log = ModelLog()
    learner = Learner(config, log)
    learner.learn(60)
    learner.sync(last=True)
    learner.stop()
    other = settings(embeddings=False, seed=9)
    with pytest.raises(StateError, match=r"learner\.seed is 9 here and 0 where model 'main'"):
        Follower(log, stager(other), Replica(other.learner, other.ranker), seed=0).drain()
    head = next(value for key, value in log.partitions[TOPICS.dense, 0] if key == b"head")
    newer = msgspec.msgpack.decode(head) | {"schema_version": 2}
    with pytest.raises(StateError, match="version 2"):
        stager(config).add(TOPICS.dense, 0, b"head", msgspec.msgpack.encode(newer))


def test_damaged_rows_are_left_out_and_told() -> None:
    config = settings(embeddings=False)
    log = ModelLog()
    learner = Learner(config, log)
    learner.learn(60)
    learner.sync(last=True)
    learner.stop()
    place, records = next((p, r) for p, r in log.partitions.items() if p[0] == TOPICS.items)
    key, value = records[0]
    staged = stager(config)
    for change in ({"neighbours": b"abc"}, {"weights": b""}, {"counts": bytes(8)}, {"slot": "x"}):
        broken = msgspec.msgpack.encode(msgspec.msgpack.decode(value) | change)
        assert staged.add(*place, key, broken) is None
        assert next(iter(change)) in staged.last_refusal
    assert staged.n_refused == 4
    assert len(staged) == 0


def test_publishing_over_another_model_of_a_later_epoch_is_refused() -> None:
    config = settings(embeddings=False)
    log = ModelLog()
    learner = Learner(config, log, epoch=5)
    learner.learn(60)
    learner.sync(last=True)
    learner.stop()
    head = next(value for key, value in log.partitions[TOPICS.dense, 0] if key == b"head")
    previous = decode_value(head, HeadValue)
    assert decode_value(encode_value(previous), HeadValue) == previous
    with pytest.raises(StateError, match=r"epoch 5.*epoch 1"):
        ModelPublisher(learner.model, log, config, epoch=1, lineage="new", previous=previous)
    ModelPublisher(learner.model, log, config, epoch=6, lineage="new", previous=previous)
