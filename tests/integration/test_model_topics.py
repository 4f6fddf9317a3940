"""Model topics on the real broker: whole transactions or none, one writer, replicas that follow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from schemas.errors import FencedError, StateError
from schemas.settings import KafkaSettings, Settings
from streams.broker import LocalBroker
from streams.model_topics import ModelPublisher
from streams.model_transactions import KafkaTransactions, read_head
from streams.replica import Replica
from streams.replica_follower import ReplicaFollower
from streams.staging import Staged
from streams.topics import create_topics
from tests.unit.test_replica import Learner, assert_same_model
from tests.unit.test_replica import settings as small_settings

pytestmark = pytest.mark.integration


@pytest.fixture
def config(broker: LocalBroker) -> Settings:
    kafka = KafkaSettings(bootstrap=broker.bootstrap, prefix=f"t{uuid4().hex[:12]}", partitions=3)
    create_topics(kafka, model="main")
    return msgspec.structs.replace(small_settings(), kafka=kafka)


class Following:
    """A follower and its replica, taken over on the test's thread."""

    def __init__(self, config: Settings) -> None:
        self.errors: list[BaseException] = []
        self.replica = Replica(config.learner, config.ranker)
        self.follower = ReplicaFollower(config, "main", self.errors.append)

    def until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            while (staged := self.follower.pop()) is not None:
                if isinstance(staged, Staged):
                    self.replica.take(staged)
            if condition():
                return
            assert not self.errors, self.errors
            assert time.monotonic() < deadline, (self.replica.head, self.follower.lag_records)
            time.sleep(0.01)

    def epoch(self) -> int:
        return -1 if self.replica.head is None else self.replica.head.epoch

    def sequence(self) -> int:
        return -1 if self.replica.head is None else self.replica.head.sequence


@pytest.fixture
def follow(config: Settings) -> Iterator[Callable[[], Following]]:
    running: list[Following] = []

    def start(partitions: frozenset[int] = frozenset(range(3))) -> Following:
        following = Following(config)
        following.follower.follow_users(partitions)
        following.follower.start()
        running.append(following)
        return following

    yield start
    for following in running:
        following.follower.stop()


def claimed(config: Settings) -> KafkaTransactions:
    transactions = KafkaTransactions(config)
    transactions.claim()
    return transactions


def users_rows(learner: Learner, replica: Replica) -> tuple[Any, Any]:
    ids = list(learner.model.users.ids)
    assert learner.model.embeddings is not None
    assert replica.embeddings is not None
    mine = learner.model.embeddings.export_users(learner.model.users.get_many(ids))
    return mine, replica.embeddings.export_users(replica.users.get_many(ids))


def test_a_follower_has_the_learners_arrays(config: Settings, follow: Callable[[], Following]) -> None:
    early = follow()
    early.until(lambda: early.follower.caught_up)
    assert early.replica.head is None
    learner = Learner(config, claimed(config))
    for _ in range(4):
        learner.learn(400)
        learner.sync()
    learner.sync(last=True)
    learner.stop()
    late = follow()
    for following in (early, late):
        following.until(
            lambda one=following: (
                one.sequence() == learner.sequence  # type: ignore[misc]
                and one.follower.caught_up
                and one.replica.head.n_waiting == 0
                and len(one.replica.users) >= 60
                and one.follower.lag_records == 0
            )
        )
        assert_same_model(learner.model, following.replica)
        mine, theirs = users_rows(learner, following.replica)
        assert (mine == theirs).all()
        assert mine.any()
    head = read_head(config)
    assert head is not None
    assert (head.sequence, head.lineage) == (learner.sequence, "model-1")


def test_a_second_claim_fences_the_first_writer(config: Settings, follow: Callable[[], Following]) -> None:
    first = Learner(config, claimed(config))
    first.learn(200)
    first.sync()
    second = claimed(config)
    previous = read_head(config)
    first.learn(100)
    first.sync()
    with pytest.raises(FencedError, match="another learner has claimed"):
        first.sync()
    first.stop()
    with pytest.raises(StateError, match="epoch 1"):
        ModelPublisher(first.model, second, config, epoch=1, lineage="other", previous=previous)
    publisher = ModelPublisher(first.model, second, config, epoch=2, lineage="model-1", previous=previous)
    publisher.start()
    assert publisher.sync(first.sequence, {}, first.n, last=True)
    publisher.close(first.sequence, {}, first.n)
    following = follow()
    following.until(lambda: following.sequence() == first.sequence and following.epoch() == 2)
    following.until(lambda: following.follower.lag_records == 0)
    assert_same_model(first.model, following.replica)


def test_users_of_other_partitions_are_not_read(config: Settings, follow: Callable[..., Following]) -> None:
    learner = Learner(config, claimed(config))
    learner.learn(600)
    learner.sync(last=True)
    learner.stop()
    following = follow(frozenset({1}))
    mine = set(learner.folder.states[1].users.ids)
    following.until(lambda: len(following.replica.users) == len(mine))
    assert set(following.replica.users.ids) == mine
    following.follower.follow_users(frozenset({1, 2}))
    both = mine | set(learner.folder.states[2].users.ids)
    following.until(lambda: len(following.replica.users) == len(both))
    assert set(following.replica.users.ids) == both
