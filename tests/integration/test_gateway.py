"""The gateway as a process on the real broker: events in, snapshots out, a clean end."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # does not say what it exports
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from schemas.codec import encode_snapshot
from schemas.hashing import partition_of as partition_by_schemas
from schemas.records import Knows, ModelRef, RecommendedItem, Snapshot
from schemas.settings import KafkaSettings
from schemas.topics import MAX_MESSAGE_BYTES, topic_names
from serving.reader import RecommendationsReader
from serving.reader_scan import partition_of, read_latest
from streams.broker import LocalBroker
from streams.context import confluent_config, kafka_python_config
from streams.processes import Child
from tests.fake_worker import FakeWorker, fake_worker

pytestmark = pytest.mark.integration

PARTITIONS = 4
MAX_STREAMS = 2


class Setup:
    """A gateway process, a worker port beside it, and clients of its broker."""

    def __init__(self, child: Child, url: str, worker: FakeWorker, kafka: KafkaSettings) -> None:
        self.child = child
        self.url = url
        self.worker = worker
        self.kafka = kafka
        self.names = topic_names(kafka.prefix)
        self.client = httpx.Client(base_url=url, timeout=60)
        self._producer = Producer(confluent_config(kafka) | {"acks": "all", "linger.ms": 0})

    def publish(self, user_id: str, value: bytes | None) -> None:
        self._producer.produce(self.names.recommendations, value, user_id.encode())
        assert self._producer.flush(20) == 0


@pytest.fixture
def kafka(broker: LocalBroker, topics: str) -> KafkaSettings:
    return KafkaSettings(bootstrap=broker.bootstrap, prefix=topics, partitions=PARTITIONS)


@pytest.fixture
def environ(kafka: KafkaSettings) -> dict[str, str]:
    return {"REELFLOW_KAFKA_BOOTSTRAP": kafka.bootstrap, "REELFLOW_KAFKA_PREFIX": kafka.prefix}


@pytest.fixture
def setup(kafka: KafkaSettings, environ: dict[str, str], tmp_path: Path) -> Iterator[Setup]:
    with fake_worker() as worker:
        settings = environ | {
            "REELFLOW_GATEWAY_WORKER_URL": worker.url,
            "REELFLOW_GATEWAY_MAX_STREAMS": str(MAX_STREAMS),
            "PYTHONUNBUFFERED": "1",
        }
        log = tmp_path / "gateway.log"
        with Child("gateway", ["gateway", "--port", "0"], log=log, environ=settings) as child:
            url = until(lambda: re.search(r"http://127\.0\.0\.1:\d+", child.tail()), child.check)[0]
            child.wait_ready(f"{url}/health/ready", 60)
            running = Setup(child, url, worker, kafka)
            with running.client:
                yield running


def until(
    condition: Callable[[], Any], check: Callable[[], None] = lambda: None, timeout_s: float = 30
) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        check()
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.01)
    return found


def snapshot(user_id: str, offset: int, items: int = 3) -> Snapshot:
    return Snapshot(
        snapshot_id=f"{user_id}.0.{offset}",
        user_id=user_id,
        generated_at_ms=time.time_ns() // 1_000_000,
        ttl_ms=3_600_000,
        knows=Knows(partition=0, offset=offset, event_id=f"e-{offset}", ts_ms=1_650_900_000_123),
        model=ModelRef(name="main", epoch=0, sequence=offset),
        fallback="none",
        items=[RecommendedItem(item_id=f"v{n}", score=0.5, source="popularity") for n in range(items)],
    )


def data_lines(lines: Iterator[str]) -> Iterator[Any]:
    for line in lines:
        if line.startswith("data: "):
            yield msgspec.json.decode(line[6:])


def test_posted_events_are_stored_as_they_came_where_their_user_belongs(setup: Setup) -> None:
    bodies = [
        b'{"event_id":"e-%d","user_id":"u%d","item_id":"v1","type":"like","ts_ms":1650900000123,"own":"x\xc3\xbc"}'
        % (n, n)
        for n in range(20)
    ]
    answer = setup.client.post(
        "/v1/events", content=b"[" + b",\n".join(bodies) + b"]", headers={"content-type": "application/json"}
    )
    assert answer.status_code == 202, answer.text
    results = answer.json()["results"]
    assert [result["event_id"] for result in results] == [f"e-{n}" for n in range(20)]
    stored: dict[tuple[int | None, int | None], tuple[bytes | None, bytes | None]] = {}
    consumer = Consumer(confluent_config(setup.kafka) | {"group.id": "none", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(setup.names.behaviour, number, 0) for number in range(PARTITIONS)])
        while len(stored) < len(bodies):
            message = consumer.poll(20)
            assert message is not None
            assert message.error() is None
            stored[message.partition(), message.offset()] = message.key(), message.value()
    finally:
        consumer.close()
    for n, result in enumerate(results):
        key = f"u{n}".encode()
        assert result["partition"] == partition_by_schemas(key, PARTITIONS)
        assert stored[result["partition"], result["offset"]] == (key, bodies[n])


def test_an_event_that_the_broker_finds_too_large_is_no_outage(setup: Setup) -> None:
    def post(event_id: str, size: int) -> httpx.Response:
        event = {"event_id": event_id, "user_id": "u", "item_id": "v", "type": "like", "ts_ms": 1, "own": ""}
        event["own"] = "x" * (size - len(msgspec.json.encode(event)))
        body = msgspec.json.encode(event)
        return setup.client.post("/v1/events", content=body, headers={"content-type": "application/json"})

    answer = post("largest", MAX_MESSAGE_BYTES)
    assert answer.status_code == 202, answer.text
    resource = ConfigResource(ConfigResource.Type.TOPIC, setup.names.behaviour)
    resource.add_incremental_config(
        ConfigEntry("max.message.bytes", "50000", incremental_operation=AlterConfigOpType.SET)
    )
    admin = AdminClient({"bootstrap.servers": setup.kafka.bootstrap})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(20)
    until(lambda: post("large", 100_000).status_code == 413)
    answer = post("large", 100_000)
    assert answer.json()["results"][0]["status"] == "failed"
    assert "larger than the broker takes" in answer.json()["error"]
    assert post("small", 1_000).status_code == 202


def test_a_snapshot_reaches_readers_and_streams_and_a_tombstone_ends_it(setup: Setup) -> None:
    setup.worker.popular = [("v9", 0.1)]
    list_of = "/v1/users/u1/recommendations"
    assert setup.client.get(list_of).json()["fallback"] == "cold_user"
    with setup.client.stream("GET", "/v1/users/u1/snapshots") as stream:
        events = data_lines(stream.iter_lines())
        setup.publish("u2", encode_snapshot(snapshot("u2", 1)))
        setup.publish("u1", encode_snapshot(snapshot("u1", 5)))
        assert next(events)["knows"]["offset"] == 5
        setup.publish("u1", encode_snapshot(snapshot("u1", 3)))
        setup.publish("u1", b"no snapshot")
        setup.publish("u1", encode_snapshot(snapshot("u1", 6)))
        assert next(events)["knows"]["offset"] == 6
    body = setup.client.get(list_of).json()
    assert (body["knows"]["event_id"], body["freshness"]) == ("e-6", "fresh")
    setup.publish("u1", None)
    until(lambda: setup.client.get(list_of).json()["fallback"] == "cold_user", setup.child.check)


def test_streams_are_bounded_and_a_client_that_leaves_makes_room(setup: Setup) -> None:
    with setup.client.stream("GET", "/v1/stats/stream") as first:
        figures = data_lines(first.iter_lines())  # kept: a collected generator closes its stream
        assert next(figures)["device"] == "cpu"
        with setup.client.stream("GET", "/v1/users/u1/snapshots") as second:
            assert second.status_code == 200
            refused = setup.client.get("/v1/users/u1/snapshots", timeout=5)
            assert refused.status_code == 503
            assert "2 event streams are open" in refused.json()["error"]

    def answers() -> bool:
        with setup.client.stream("GET", "/v1/users/u1/snapshots") as third:
            return third.status_code == 200

    until(answers, setup.child.check)


def test_the_stats_stream_says_when_the_worker_is_away_and_goes_on(setup: Setup) -> None:
    with setup.client.stream("GET", "/v1/stats/stream") as stream:
        lines = stream.iter_lines()
        until(lambda: next(lines) == "event: stats")
        setup.worker.status = 503
        until(lambda: next(lines) == "event: unavailable")
        setup.worker.status = 200
        until(lambda: next(lines) == "event: stats")


def test_a_signal_ends_the_gateway_in_time_though_streams_are_open(setup: Setup) -> None:
    with setup.client.stream("GET", "/v1/users/u1/snapshots") as stream:
        assert stream.status_code == 200
        begun = time.monotonic()
        assert setup.child.stop(timeout_s=30) == 0, setup.child.tail()
        assert time.monotonic() - begun < 8
        assert list(data_lines(stream.iter_lines())) == []


def test_the_port_being_taken_is_one_line(setup: Setup, environ: dict[str, str]) -> None:
    port = setup.url.rsplit(":", 1)[1]
    ended = reelflow(environ, "gateway", "--port", port)
    assert ended.returncode == 1
    assert re.fullmatch(
        r"error: setting gateway\.port: cannot listen on 127\.0\.0\.1:\d+: .*\n", ended.stderr
    )


def test_the_reader_follows_waits_and_tells(kafka: KafkaSettings) -> None:
    producer = Producer(confluent_config(kafka) | {"linger.ms": 0})
    topic = topic_names(kafka.prefix).recommendations

    def publish(value: Snapshot) -> None:
        producer.produce(topic, encode_snapshot(value), value.user_id.encode())
        producer.flush(20)

    for n in range(50):
        publish(snapshot(f"u{n}", 1))
    with RecommendationsReader(kafka_python_config(kafka), topic) as reader:
        reader.wait_ready(30)
        assert reader.ready
        assert len(reader) == 50
        with reader.subscribe() as every:
            assert reader.wait_for("u7", lambda found: found.knows.offset >= 1, 0.1) is not None
            assert reader.wait_for("u7", lambda found: found.knows.offset >= 2, 0.1) is None
            publish(snapshot("u7", 2))
            found = reader.wait_for("u7", lambda found: found.knows.offset >= 2, 20)
            assert found is not None
            assert every.get(5) == found
        assert reader.state.invalid == 0
    assert reader.get("u7") == found


def test_one_list_is_read_from_one_partition(kafka: KafkaSettings) -> None:
    config, topic = kafka_python_config(kafka), topic_names(kafka.prefix).recommendations
    producer = Producer(confluent_config(kafka))
    assert read_latest(config, topic, "u1", 20) is None
    for offset in (3, 9, 5):
        producer.produce(topic, encode_snapshot(snapshot("u1", offset)), b"u1")
    producer.flush(20)
    found = read_latest(config, topic, "u1", 20)
    assert found is not None
    assert found.knows.offset == 9
    producer.produce(topic, None, b"u1")
    producer.flush(20)
    assert read_latest(config, topic, "u1", 20) is None


def test_both_ways_to_a_partition_agree() -> None:
    for n in range(500):
        key = f"user-{n}-ü"[: n % 12 + 1].encode()
        assert partition_of(key, 16) == partition_by_schemas(key, 16)


def reelflow(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_recommendations_prints_a_list_or_says_that_there_is_none(
    kafka: KafkaSettings, environ: dict[str, str]
) -> None:
    producer = Producer(confluent_config(kafka))
    published = snapshot("u1", 5)
    producer.produce(topic_names(kafka.prefix).recommendations, encode_snapshot(published), b"u1")
    producer.flush(20)
    shown = reelflow(environ, "recommendations", "u1")
    assert shown.returncode == 0, shown.stderr
    assert "knows event e-5 (partition 0, offset 5)" in shown.stdout
    assert len(shown.stdout.splitlines()) == 4
    as_json = reelflow(environ, "recommendations", "u1", "--json")
    assert msgspec.json.decode(as_json.stdout, type=Snapshot) == published
    nothing = reelflow(environ, "recommendations", "nobody")
    assert nothing.returncode == 1
    assert "has no list of user nobody" in nothing.stderr
    assert nothing.stdout == ""


def test_tail_follows_one_user(kafka: KafkaSettings, environ: dict[str, str], tmp_path: Path) -> None:
    producer = Producer(confluent_config(kafka) | {"linger.ms": 0})
    topic = topic_names(kafka.prefix).recommendations
    log = tmp_path / "tail.log"
    arguments = ["tail", "--user", "u1", "--limit", "2", "--timeout", "30"]
    with Child("tail", arguments, log=log, environ=environ) as child:
        until(lambda: "following" in child.tail(), child.check)
        for offset in (1, 2):
            producer.produce(topic, encode_snapshot(snapshot("u2", offset)), b"u2")
            producer.produce(topic, encode_snapshot(snapshot("u1", offset)), b"u1")
        producer.flush(20)
        assert child.process.wait(30) == 0, child.tail()
    lines = [line for line in child.tail().splitlines() if "knows" in line]
    assert [re.findall(r"(\S+) +knows (\S+)", line) for line in lines] == [
        [("u1", "e-1")],
        [("u1", "e-2")],
    ]
