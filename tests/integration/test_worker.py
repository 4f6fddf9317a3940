"""The worker as a process on the real broker: what producers, consumers and operators rely on."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from jsonschema import Draft202012Validator

from schemas.codec import encode_event, encode_item
from schemas.hashing import partition_of
from schemas.records import Event, Item
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.broker import LocalBroker
from streams.context import confluent_config
from streams.processes import http_text
from tests.broken_events import BROKEN
from tests.processes import RunningWorker, running_worker

pytestmark = pytest.mark.integration

PARTITIONS = 4


@pytest.fixture
def worker(broker: LocalBroker, topics: str, tmp_path: Path) -> Iterator[RunningWorker]:
    with running_worker(broker.bootstrap, topics, PARTITIONS, tmp_path) as running:
        yield running


def producer(bootstrap: str) -> Producer:
    return Producer(
        confluent_config(KafkaSettings(bootstrap=bootstrap))
        | {"acks": "all", "linger.ms": 5, "compression.type": "lz4", "message.max.bytes": 3_000_000}
    )


def event(number: int, *, user: str, item: str, kind: str = "watch", **fields: Any) -> Event:
    return Event(
        event_id=f"e{number}",
        user_id=user,
        item_id=item,
        type=kind,  # type: ignore[arg-type]
        ts_ms=int(time.time() * 1000),
        watch_ms=9_000 if kind == "watch" else None,
        duration_ms=10_000 if kind == "watch" else None,
        **fields,
    )


def read_all(bootstrap: str, topic: str) -> list[Any]:
    """Every message of a topic up to its end as of now."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False})
    try:
        partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        messages = []
        for partition in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            if low == high:
                continue
            consumer.assign([TopicPartition(topic, partition, low)])
            position = low
            while position < high:
                message = consumer.poll(10)
                assert message is not None, f"{topic}[{partition}] gave nothing at {position}"
                assert message.error() is None, message.error()
                messages.append(message)
                offset = message.offset()
                assert offset is not None
                position = offset + 1
        return messages
    finally:
        consumer.close()


def snapshots_by_user(bootstrap: str, prefix: str) -> dict[str, dict[str, Any]]:
    found = {}
    for message in read_all(bootstrap, topic_names(prefix).recommendations):
        key, value = message.key(), message.value()
        assert key is not None
        assert value is not None
        found[key.decode()] = json.loads(value)
    return found


def test_valid_events_are_learned_and_broken_ones_buried(
    worker: RunningWorker, broker: LocalBroker, topics: str
) -> None:
    """10 000 valid events mixed with 1 000 broken ones of 20 kinds."""
    names = topic_names(topics)
    out = producer(broker.bootstrap)
    assert len(BROKEN) >= 20
    kinds = BROKEN[:20]
    n_broken = 0
    expected: Counter[str] = Counter()
    originals: Counter[tuple[bytes | None, bytes | None, str]] = Counter()
    for i in range(10_000):
        one = event(i, user=f"u{i % 700}", item=f"v{(i * 7) % 400}")
        out.produce(names.behaviour, encode_event(one), one.user_id)
        if i % 10 == 0:
            _, make, reason, _ = kinds[(i // 10) % 20]
            key, value = make(n_broken)
            n_broken += 1
            expected[reason] += 1
            originals[key, value, reason] += 1
            out.produce(names.behaviour, value, key)
        out.poll(0)
    assert out.flush(30) == 0
    stats = worker.wait(
        lambda s: (
            s["events_learned"] >= 10_000
            and sum(s["dead_letters"].values()) >= 1_000
            and not s["pending_snapshots"]
        )
    )
    assert stats["events_learned"] == 10_000
    assert stats["dead_letters"] == dict(expected)
    assert stats["ready"]
    letters = read_all(broker.bootstrap, names.behaviour_dlq)
    assert len(letters) == 1_000
    found: Counter[tuple[bytes | None, bytes | None, str]] = Counter()
    identities = set()
    for letter in letters:
        headers = {name: value.decode() for name, value in letter.headers()}
        found[letter.key(), letter.value(), headers["reelflow_reason"]] += 1
        assert headers["reelflow_topic"] == names.behaviour
        assert headers["reelflow_message"]
        identities.add((headers["reelflow_partition"], headers["reelflow_offset"]))
    assert found == originals
    assert len(identities) == 1_000


def test_late_future_and_misplaced_events_have_reasons(
    broker: LocalBroker, topics: str, tmp_path: Path
) -> None:
    names = topic_names(topics)
    now_ms = int(time.time() * 1000)
    with running_worker(
        broker.bootstrap, topics, PARTITIONS, tmp_path, REELFLOW_WORKER_LATENESS_MS="60000"
    ) as worker:
        out = producer(broker.bootstrap)
        good = event(1, user="u1", item="v1")
        late = Event(event_id="e2", user_id="u1", item_id="v2", type="watch", ts_ms=now_ms - 120_000)
        future = Event(event_id="e3", user_id="u1", item_id="v2", type="watch", ts_ms=now_ms + 86_400_000)
        for one in (good, late, future, good):
            out.produce(names.behaviour, encode_event(one), one.user_id)
        assert out.flush(10) == 0
        placed = partition_of(b"u1", PARTITIONS)
        stray = event(4, user="u1", item="v1")
        out.produce(names.behaviour, encode_event(stray), "u1", partition=(placed + 1) % PARTITIONS)
        assert out.flush(10) == 0
        stats = worker.wait(lambda s: sum(s["dead_letters"].values()) >= 3 and s["duplicates"] >= 1)
    assert stats["dead_letters"] == {"late": 1, "future": 1, "wrong_partition": 1}
    assert stats["events_learned"] == 1
    assert stats["duplicates"] == 1


def test_snapshots_follow_the_published_contract(
    worker: RunningWorker, broker: LocalBroker, topics: str
) -> None:
    """A kafka-python consumer that knows the AsyncAPI document and nothing else of ours."""
    from kafka import KafkaConsumer
    from kafka import TopicPartition as Place

    contracts = Path(__file__).parents[2] / "docs" / "contracts"
    document = json.loads((contracts / "asyncapi.json").read_text())
    address = next(
        channel["address"]
        for channel in document["channels"].values()
        if "recommendations" in channel["address"]
    )
    topic = address.replace("reelflow.", f"{topics}.", 1)
    schema = json.loads((contracts / "snapshot.schema.json").read_text())
    validator = Draft202012Validator(schema)
    names = topic_names(topics)
    out = producer(broker.bootstrap)
    for i in range(40):
        item = Item(item_id=f"v{i}", title=f"title {i}", tags=["music"])
        out.produce(names.catalogue, encode_item(item), item.item_id)
    users = [f"reader-{i}" for i in range(30)]
    last = {}
    for i in range(300):
        one = event(i, user=users[i % 30], item=f"v{(i * i) % 40}")
        last[one.user_id] = one.event_id
        out.produce(names.behaviour, encode_event(one), one.user_id)
    assert out.flush(10) == 0
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest")
    try:
        consumer.assign([Place(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())])
        deadline = time.monotonic() + 120
        known: dict[str, dict[str, Any]] = {}
        while any(known.get(user, {}).get("knows", {}).get("event_id") != last[user] for user in users):
            assert time.monotonic() < deadline, {u: known.get(u, {}).get("knows") for u in users}
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    assert record.key is not None
                    assert record.value is not None
                    value = json.loads(record.value)
                    assert not list(validator.iter_errors(value))
                    assert record.key.decode() == value["user_id"]
                    before = known.get(value["user_id"])
                    assert before is None or value["knows"]["offset"] >= before["knows"]["offset"]
                    known[value["user_id"]] = value
    finally:
        consumer.close()
    for user in users:
        snapshot = known[user]
        items = [place["item_id"] for place in snapshot["items"]]
        assert items
        assert len(items) == len(set(items))
        assert all(0 < place["score"] < 1 for place in snapshot["items"])


def test_withdrawn_items_leave_the_lists(worker: RunningWorker, broker: LocalBroker, topics: str) -> None:
    names = topic_names(topics)
    out = producer(broker.bootstrap)
    for i in range(200):
        one = event(i, user=f"u{i % 20}", item=f"v{i % 8}")
        out.produce(names.behaviour, encode_event(one), one.user_id)
    assert out.flush(10) == 0
    worker.wait(lambda s: s["events_learned"] >= 200 and not s["pending_snapshots"])
    out.produce(names.catalogue, None, "v3")
    out.produce(names.catalogue, b"{broken", "v4")
    assert out.flush(10) == 0
    deadline = time.monotonic() + 90
    while not read_all(broker.bootstrap, names.catalogue_dlq):
        assert time.monotonic() < deadline
    for i in range(20):
        one = event(1_000 + i, user=f"new{i}", item="v0")
        out.produce(names.behaviour, encode_event(one), one.user_id)
    assert out.flush(10) == 0
    worker.wait(lambda s: s["events_learned"] >= 220 and not s["pending_snapshots"])
    lists = snapshots_by_user(broker.bootstrap, topics)
    for i in range(20):
        listed = {place["item_id"] for place in lists[f"new{i}"]["items"]}
        assert "v3" not in listed
        assert listed


def test_restart_refolds_the_log_and_repeats_nothing(
    broker: LocalBroker, topics: str, tmp_path: Path
) -> None:
    """kill -9, then a new worker: everything learned once, no letter twice, offsets never fall."""
    names = topic_names(topics)
    out = producer(broker.bootstrap)

    def send(first: int, n: int) -> None:
        for i in range(first, first + n):
            one = event(i, user=f"u{i % 50}", item=f"v{i % 30}")
            out.produce(names.behaviour, encode_event(one), one.user_id)
        out.produce(names.behaviour, b"not json", "u1")
        assert out.flush(10) == 0

    with running_worker(broker.bootstrap, topics, PARTITIONS, tmp_path) as worker:
        send(0, 500)
        worker.wait(lambda s: s["events_learned"] >= 500 and not s["pending_snapshots"])
        worker.wait(lambda s: s["committed"] >= 501, 30)
        worker.child.process.send_signal(signal.SIGKILL)
        worker.child.process.wait()
    before = {user: s["knows"]["offset"] for user, s in snapshots_by_user(broker.bootstrap, topics).items()}
    n_before = len(read_all(broker.bootstrap, names.recommendations))
    with running_worker(broker.bootstrap, topics, PARTITIONS, tmp_path) as worker:
        stats = worker.wait(lambda s: s["events_learned"] >= 500)
        assert stats["events_learned"] == 500
        assert len(read_all(broker.bootstrap, names.recommendations)) == n_before
        send(500, 100)
        stats = worker.wait(lambda s: s["events_learned"] >= 600 and not s["pending_snapshots"])
        assert stats["events_learned"] == 600
    assert len(read_all(broker.bootstrap, names.behaviour_dlq)) == 2
    after = {user: s["knows"]["offset"] for user, s in snapshots_by_user(broker.bootstrap, topics).items()}
    assert all(after[user] >= offset for user, offset in before.items())


def test_metrics_and_health(worker: RunningWorker, broker: LocalBroker, topics: str) -> None:
    out = producer(broker.bootstrap)
    for i in range(100):
        one = event(i, user=f"u{i % 10}", item=f"v{i % 9}")
        out.produce(topic_names(topics).behaviour, encode_event(one), one.user_id)
    assert out.flush(10) == 0
    worker.wait(lambda s: s["events_learned"] >= 100 and not s["pending_snapshots"])
    text = http_text(f"{worker.url}/metrics")
    assert 'reelflow_events_total{outcome="applied"} 100.0' in text
    assert "reelflow_event_to_snapshot_seconds_bucket" in text
    assert "reelflow_ready 1.0" in text
    assert "reelflow_users 10.0" in text


def test_sigterm_drains_and_exits_zero(broker: LocalBroker, topics: str, tmp_path: Path) -> None:
    names = topic_names(topics)
    with running_worker(broker.bootstrap, topics, PARTITIONS, tmp_path) as worker:
        out = producer(broker.bootstrap)
        for i in range(2_000):
            one = event(i, user=f"u{i % 100}", item=f"v{i % 50}")
            out.produce(names.behaviour, encode_event(one), one.user_id)
        assert out.flush(10) == 0
        worker.wait(lambda s: s["events_learned"] > 0)
        assert worker.child.stop() == 0, worker.child.tail()


def test_start_without_topics_names_what_is_missing(broker: LocalBroker, tmp_path: Path) -> None:
    from streams.processes import Child

    environ = {"REELFLOW_KAFKA_BOOTSTRAP": broker.bootstrap, "REELFLOW_KAFKA_PREFIX": "nowhere"}
    with Child("worker", ["worker"], log=tmp_path / "worker.log", environ=environ) as child:
        assert child.process.wait(60) == 1
        assert "nowhere.behaviour.v1" in child.tail()
        assert "reelflow topics create" in child.tail()


def test_a_second_worker_ends_with_a_reason_and_the_first_goes_on(
    worker: RunningWorker, broker: LocalBroker, topics: str, tmp_path: Path
) -> None:
    from streams.processes import Child

    names = topic_names(topics)
    out = producer(broker.bootstrap)
    for i in range(200):
        one = event(i, user=f"u{i % 40}", item=f"v{i % 9}")
        out.produce(names.behaviour, encode_event(one), one.user_id)
    assert out.flush(10) == 0
    worker.wait(lambda s: s["events_learned"] >= 200)
    environ = worker.environ | {"REELFLOW_WORKER_PORT": "0"}
    with Child("worker", ["worker"], log=tmp_path / "second.log", environ=environ) as second:
        assert second.process.wait(90) == 1
        assert "writes this state" in second.tail()
        assert "--take-over" in second.tail()
    environ["REELFLOW_WORKER_STATE_DIR"] = str(tmp_path / "elsewhere")
    with Child("worker", ["worker"], log=tmp_path / "third.log", environ=environ) as third:
        assert third.process.wait(90) == 1
        assert "another worker of this group" in third.tail()
    for i in range(200, 400):
        one = event(i, user=f"u{i % 40}", item=f"v{i % 9}")
        out.produce(names.behaviour, encode_event(one), one.user_id)
    assert out.flush(10) == 0
    stats = worker.wait(lambda s: s["events_learned"] >= 400 and not s["pending_snapshots"])
    assert stats["events_learned"] == 400
    assert not stats["dead_letters"]


def test_the_tag_chain_answers(worker: RunningWorker, broker: LocalBroker, topics: str) -> None:
    """Entertainment is always followed by education, and that by entertainment."""
    from streams.processes import http_json

    names = topic_names(topics)
    out = producer(broker.bootstrap)
    for i, tag in enumerate(("entertainment", "education", "entertainment", "education")):
        item = Item(item_id=f"v{i}", tags=[tag])
        out.produce(names.catalogue, encode_item(item), item.item_id)
    assert out.flush(10) == 0
    deadline = time.monotonic() + 90
    while len(http_json(f"{worker.url}/items?id=v0&id=v1&id=v2&id=v3")["items"]) < 4:
        assert time.monotonic() < deadline
    for i in range(4):
        one = event(i, user="u1", item=f"v{i}")
        out.produce(names.behaviour, encode_event(one), one.user_id)
    assert out.flush(10) == 0
    worker.wait(lambda s: s["events_learned"] >= 4)
    found = http_json(f"{worker.url}/tags/entertainment/next?steps=1")
    assert found["next"] == {"education": 1.0}
    assert http_json(f"{worker.url}/tags/entertainment/next?steps=2")["next"] == {"entertainment": 1.0}
