"""Learner and rankers as processes on the real broker: lists go on, whoever dies, and no state shows it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from schemas.codec import encode_event, encode_item
from schemas.records import Event, Item
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.broker import LocalBroker
from streams.context import confluent_config
from streams.processes import Child, http_json
from streams.topics import create_topics
from tests.integration.test_worker import read_all
from tests.processes import RunningWorker, start_worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PARTITIONS = 4
ENVIRON = {
    "REELFLOW_LEARNER_EMBEDDINGS": "false",
    "REELFLOW_LEARNER_SYNC_INTERVAL_S": "0.3",
    "REELFLOW_WORKER_CHECKPOINT_INTERVAL_S": "1",
    "REELFLOW_WORKER_REFRESH_INTERVAL_MS": "100",
    "REELFLOW_RANKER_STALE_MODEL_AFTER_S": "3",
    "REELFLOW_RANKER_LIST_SIZE": "5",
}


class Platform:
    """Topics, a producer, and roles that end with the test."""

    def __init__(self, bootstrap: str, folder: Path, stack: ExitStack) -> None:
        self.bootstrap, self.folder, self._stack = bootstrap, folder, stack
        self.prefix = f"t{uuid4().hex[:12]}"
        kafka = KafkaSettings(bootstrap=bootstrap, prefix=self.prefix, partitions=PARTITIONS)
        create_topics(kafka, model="main")
        self.names = topic_names(self.prefix)
        self.producer = Producer(confluent_config(kafka) | {"acks": "all", "linger.ms": 5})
        self.n = 0

    def start(self, role: str, **environ: str) -> RunningWorker:
        running = start_worker(
            self.bootstrap, self.prefix, PARTITIONS, self.folder, role, **(ENVIRON | environ)
        )
        self._stack.enter_context(running.child)
        return running

    def send(self, n: int) -> None:
        now_ms = int(time.time() * 1000)
        for i in range(self.n, self.n + n):
            one = Event(
                event_id=f"e{i}", user_id=f"u{i % 60}", item_id=f"v{(i * i) % 40}", type="watch",
                ts_ms=now_ms, watch_ms=9_000, duration_ms=10_000,
            )  # fmt: skip
            self.producer.produce(self.names.behaviour, encode_event(one), one.user_id)
        self.n += n
        assert self.producer.flush(20) == 0

    def lists(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for message in read_all(self.bootstrap, self.names.recommendations):
            key, value = message.key(), message.value()
            assert key is not None
            assert value is not None
            snapshot = json.loads(value)
            before = found.get(key.decode())
            assert before is None or snapshot["knows"]["offset"] >= before["knows"]["offset"]
            found[key.decode()] = snapshot
        return found


@pytest.fixture
def platform(broker: LocalBroker, tmp_path: Path) -> Iterator[Platform]:
    with ExitStack() as stack:
        yield Platform(broker.bootstrap, tmp_path, stack)


def ready(*roles: RunningWorker) -> None:
    for role in roles:
        role.child.wait_ready(f"{role.url}/health/ready", 120)


def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def folded(rankers: list[RunningWorker], n: int) -> list[dict[str, Any]] | None:
    """Statistics of the rankers once they hold every partition once and all `n` events."""
    stats = []
    for ranker in rankers:
        ranker.child.check()
        stats.append(ranker.stats())
    held = sorted(partition for one in stats for partition in one["partitions"])
    whole = held == list(range(PARTITIONS)) and sum(one["events_learned"] for one in stats) == n
    return stats if whole and all(not one["pending_snapshots"] for one in stats) else None


def digests(roles: list[RunningWorker]) -> dict[str, str]:
    found: dict[str, str] = {}
    for role in roles:
        found |= http_json(f"{role.url}/digest", timeout_s=30)["users"]
    return found


def test_rankers_serve_whatever_becomes_of_learner_and_of_each_other(platform: Platform) -> None:
    learner = platform.start("learner")
    first = platform.start("ranker")
    ready(learner, first)
    for i in range(40):
        item = Item(item_id=f"v{i}")
        platform.producer.produce(platform.names.catalogue, encode_item(item), item.item_id)
    platform.producer.produce(platform.names.catalogue, None, "v4")
    platform.producer.produce(platform.names.catalogue, b"{broken", "v5")
    platform.producer.produce(platform.names.behaviour, b"not json", "u1")
    platform.send(1_500)
    until(lambda: folded([first], 1_500), "the ranker folds everything")
    learner.wait(lambda s: s["events_learned"] == 1_500)
    assert digests([first]) == digests([learner])

    second = platform.start("ranker")
    ready(second)
    platform.send(600)
    stats = until(lambda: folded([first, second], 2_100), "both hold a part")
    assert all(one["partitions"] for one in stats)
    learner.wait(lambda s: s["events_learned"] == 2_100)
    assert digests([first, second]) == digests([learner])
    until(lambda: first.stats()["model"]["events_learned"] == 2_100, "the model follows")
    platform.send(60)
    until(lambda: folded([first, second], 2_160), "each user once more")
    lists = platform.lists()
    assert len(lists) == 60
    assert {one["model"]["name"] for one in lists.values()} == {"main"}
    assert {one["model"]["epoch"] for one in lists.values()} == {1}
    assert {one["fallback"] for one in lists.values()} == {"none"}
    assert all(len(one["items"]) == 5 for one in lists.values())
    assert all(place["item_id"] != "v4" for one in lists.values() for place in one["items"])

    learner.child.process.send_signal(signal.SIGKILL)
    learner.child.process.wait()
    until(lambda: all(one.stats()["model"]["stale"] for one in (first, second)), "the model grows stale")
    platform.send(300)
    until(lambda: folded([first, second], 2_460), "lists without a learner")
    lists = platform.lists()
    assert {one["fallback"] for one in lists.values()} == {"stale_model"}
    assert all(len(one["items"]) == 5 for one in lists.values())

    second.child.process.send_signal(signal.SIGKILL)
    second.child.process.wait()
    platform.send(300)
    until(lambda: folded([first], 2_760), "the one that is left takes all")
    learner = platform.start("learner")
    ready(learner)
    learner.wait(lambda s: s["events_learned"] == 2_760)
    assert digests([first]) == digests([learner])
    until(lambda: first.stats()["model"]["epoch"] == 2, "the learner's next tenure is followed")
    until(lambda: first.stats()["model"]["events_learned"] == 2_760, "with all it learned")
    platform.send(60)
    until(lambda: folded([first], 2_820), "each user once more")
    lists = platform.lists()
    assert {(one["fallback"], one["model"]["epoch"]) for one in lists.values()} == {("none", 2)}
    assert first.stats()["model"]["refused"] == 0
    letters = {
        (topic, message.partition(), dict(message.headers())["reelflow_offset"])
        for topic in (platform.names.behaviour_dlq, platform.names.catalogue_dlq)
        for message in read_all(platform.bootstrap, topic)
    }
    assert len(letters) == 2
    assert first.child.stop() == 0, first.child.tail()
    assert learner.child.stop() == 0, learner.child.tail()


def test_a_second_learner_is_refused_until_it_is_told_to_take_over(platform: Platform) -> None:
    learner = platform.start("learner")
    ready(learner)
    platform.send(200)
    learner.wait(lambda s: s["events_learned"] == 200)
    refused = platform.start("learner")
    assert refused.child.process.wait(90) == 1
    assert "--take-over" in refused.child.tail()
    elsewhere = platform.start("learner", REELFLOW_WORKER_STATE_DIR=str(platform.folder / "other"))
    assert elsewhere.child.process.wait(90) == 1
    assert "the topics of model 'main' hold epoch 1" in elsewhere.child.tail()
    again = platform.start("learner", REELFLOW_WORKER_STATE_DIR=str(platform.folder / "other"))
    assert again.child.process.wait(90) == 1  # its epoch is 2 now
    assert "another learner publishes model 'main' (epoch 1)" in again.child.tail()
    challenger = platform.start("learner", REELFLOW_WORKER_MODEL_NAME="challenger")
    assert challenger.child.process.wait(90) == 1
    assert learner.stats()["events_learned"] == 200
    assert "model.challenger.items.v1 does not exist" in challenger.child.tail()
    environ = learner.environ | {"REELFLOW_WORKER_PORT": "0"}
    arguments = ["learner", "--take-over"]
    with Child("learner", arguments, log=platform.folder / "next.log", environ=environ) as successor:
        assert learner.child.process.wait(90) != 0
        assert "FencedError" in learner.child.tail()
        until(lambda: "learner_starting" in successor.tail(), "the successor goes on")
        successor.check()


def test_a_challenger_is_followed_when_asked(platform: Platform) -> None:
    kafka = KafkaSettings(bootstrap=platform.bootstrap, prefix=platform.prefix, partitions=PARTITIONS)
    create_topics(kafka, model="challenger")
    platform.send(400)
    challenger = platform.start("learner", REELFLOW_WORKER_MODEL_NAME="challenger")
    ranker = platform.start("ranker", REELFLOW_RANKER_FOLLOW_MODEL="challenger")
    ready(challenger, ranker)
    until(lambda: folded([ranker], 400), "the ranker folds everything")
    until(lambda: ranker.stats()["model"]["events_learned"] == 400, "the challenger is followed")
    assert {one["model"]["name"] for one in platform.lists().values()} <= {"challenger"}
    platform.send(60)
    until(lambda: folded([ranker], 460), "each user once more")
    assert {one["model"]["name"] for one in platform.lists().values()} == {"challenger"}
