"""Replay and simulate against the real broker, and the commands as a user runs them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from schemas.checks import EVENTS, ITEMS
from schemas.codec import encode_snapshot
from schemas.errors import TopicError, UnavailableError
from schemas.hashing import partition_of
from schemas.records import Knows, ModelRef, RecommendedItem, Snapshot
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.broker import LocalBroker
from streams.context import confluent_config
from streams.sources import Pacing, ReplayProgress, open_source, replay, select
from streams.sources.native import NativeSource
from streams.sources.sim_config import SimulatorConfig
from streams.sources.sim_lists import FollowedLists
from streams.sources.simulator import Simulator

pytestmark = pytest.mark.integration


@pytest.fixture
def kafka(broker: LocalBroker, topics: str) -> KafkaSettings:
    return KafkaSettings(bootstrap=broker.bootstrap, prefix=topics, partitions=4)


def read_all(kafka: KafkaSettings, topic: str) -> list[Any]:
    """Every message that the topic holds now, partition by partition."""
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": "unused", "enable.auto.commit": False}
    )
    try:
        places = [TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(kafka.partitions)]
        ends = {p.partition: consumer.get_watermark_offsets(p, timeout=10)[1] for p in places}
        consumer.assign(places)
        messages: list[Any] = []
        deadline = time.monotonic() + 240
        while len(messages) < sum(ends.values()):
            assert time.monotonic() < deadline, f"{len(messages)} of {sum(ends.values())} messages"
            messages += [m for m in consumer.consume(10_000, 1.0) if m.error() is None]
        return sorted(messages, key=lambda m: (m.partition(), m.offset()))
    finally:
        consumer.close()


def run(kafka: KafkaSettings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environ(kafka),
    )


def environ(kafka: KafkaSettings) -> dict[str, str]:
    return dict(os.environ) | {
        "REELFLOW_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "REELFLOW_KAFKA_PREFIX": kafka.prefix,
        "REELFLOW_KAFKA_PARTITIONS": str(kafka.partitions),
    }


def test_sample_arrives_whole_in_order_and_on_the_users_partition(kafka: KafkaSettings) -> None:
    source = select(open_source("sample"), limit=20_000)
    seen: list[ReplayProgress] = []
    report = replay(source, kafka, Pacing.as_fast(), seen.append)
    assert (report.events, report.items, report.failed, report.stopped) == (20_000, 7_583, 0, False)
    assert seen[-1].events == 20_000
    names = topic_names(kafka.prefix)
    messages = read_all(kafka, names.behaviour)
    assert Counter(m.value() for m in messages) == Counter(r.value for r in source.events())
    last_ts: dict[int, int] = {}
    for message in messages:
        event = EVENTS.decode_keyed(message.value(), message.key())
        assert message.partition() == partition_of(message.key(), kafka.partitions)
        assert event.ts_ms >= last_ts.get(message.partition(), 0)
        last_ts[message.partition()] = event.ts_ms
    items = read_all(kafka, names.catalogue)
    assert len({ITEMS.decode_keyed(m.value(), m.key()).item_id for m in items}) == 7_583


def test_rate_is_kept(kafka: KafkaSettings) -> None:
    source = select(open_source("sample"), limit=400)
    report = replay(source, kafka, Pacing.at_rate(400))
    assert 250 < report.events_per_s < 410


def test_speed_follows_event_time(kafka: KafkaSettings, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    event = {"event_id": "e", "user_id": "u", "item_id": "v", "type": "like"}
    log.write_text("".join(json.dumps(event | {"ts_ms": ts}) + "\n" for ts in (0, 5_000, 10_000)))
    report = replay(NativeSource(log), kafka, Pacing.at_speed(10))
    assert 1.0 <= report.wall_s < 6.0


def test_stop_ends_early_and_flushes(kafka: KafkaSettings) -> None:
    stop = threading.Event()

    def on_progress(at: ReplayProgress) -> None:
        if at.events >= 100:
            stop.set()

    report = replay(open_source("sample"), kafka, Pacing.at_rate(1_000), on_progress, stop)
    assert report.stopped
    assert 100 <= report.events < 2_000
    assert len(read_all(kafka, topic_names(kafka.prefix).behaviour)) == report.events


def test_refused_messages_are_counted(kafka: KafkaSettings, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    small = b'{"event_id":"e1","user_id":"u","item_id":"v","type":"like","ts_ms":1}\n'
    # Too large even when compressed.
    large = random.Random(0).randbytes(2_000_000).translate(None, b"\r\n")
    log.write_bytes(small + large + b"\n" + small)
    report = replay(NativeSource(log, pass_invalid=True), kafka, Pacing.as_fast())
    assert (report.events, report.failed) == (2, 1)
    assert report.first_failure is not None
    assert "size" in report.first_failure.lower()
    done = run(kafka, "replay", "--format", "native", "--input", str(log), "--pass-invalid")
    assert done.returncode == 1
    assert "1 messages were not delivered" in done.stderr


def test_topics_must_exist_and_a_broker_answer(kafka: KafkaSettings) -> None:
    missing = KafkaSettings(bootstrap=kafka.bootstrap, prefix="nobody-made-these")
    with pytest.raises(TopicError, match="topics create"):
        replay(open_source("sample"), missing, Pacing.as_fast())


def test_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.sources.producer.METADATA_TIMEOUT_S", 1.0)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        replay(open_source("sample"), KafkaSettings(bootstrap="127.0.0.1:1"), Pacing.as_fast())


def test_command_sends_raw_lines_and_reports_json(kafka: KafkaSettings, tmp_path: Path) -> None:
    lines = [
        b'{"item":{"item_id":"v1"}}',
        b'{"event": {"event_id":"e1", "user_id":"u1","item_id":"v1","type":"like","ts_ms":1}}',
        b'{"event_id":"e2","user_id":"u2","item_id":"v1","type":"teleport","ts_ms":2}',
        b"\xff not json",
        b'{"withdraw":"v1"}',
    ]
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"\n".join(lines) + b"\n")
    done = run(kafka, "replay", "--format", "native", "--input", str(log), "--pass-invalid", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert (report["events"], report["items"], report["failed"]) == (3, 2, 0)
    names = topic_names(kafka.prefix)
    sent = {m.value(): m.key() for m in read_all(kafka, names.behaviour)}
    assert sent == {
        lines[1].removeprefix(b'{"event": ').removesuffix(b"}"): b"u1",
        lines[2]: b"u2",
        lines[3]: None,
    }
    assert [(m.key(), m.value()) for m in read_all(kafka, names.catalogue)] == [
        (b"v1", b'{"item_id":"v1"}'),
        (b"v1", None),
    ]
    refused = run(kafka, "replay", "--format", "native", "--input", str(log))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {log}, line 3: ")


def test_command_rebases_time(kafka: KafkaSettings) -> None:
    before_ms = int(time.time() * 1000)
    done = run(kafka, "replay", "--limit", "1000", "--rebase-time", "--as-fast", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert before_ms <= report["last_ts_ms"] <= time.time() * 1000
    assert report["first_ts_ms"] < report["last_ts_ms"]


def test_command_ends_on_interrupt(kafka: KafkaSettings) -> None:
    topic = topic_names(kafka.prefix).behaviour
    process = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "replay", "--rate", "200", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ(kafka),
    )
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "unused"})
    try:
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(kafka.partitions)])
        assert consumer.poll(60) is not None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        consumer.close()
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    report = json.loads(out)
    assert report["stopped"]
    assert len(read_all(kafka, topic)) == report["events"]


def snapshot_of(user: str, items: list[str]) -> Snapshot:
    return Snapshot(
        snapshot_id=f"{user}.0.1",
        user_id=user,
        generated_at_ms=1,
        ttl_ms=1_000,
        knows=Knows(partition=0, offset=1, event_id="e", ts_ms=1),
        model=ModelRef(name="main", epoch=0, sequence=1),
        fallback="none",
        items=[RecommendedItem(item_id=item, score=0.5, source="popularity") for item in items],
    )


def test_simulated_users_are_shown_what_the_topic_recommends(kafka: KafkaSettings) -> None:
    names = topic_names(kafka.prefix)
    producer = Producer(confluent_config(kafka))
    for user in range(100):
        value = encode_snapshot(snapshot_of(f"su{user}", [f"si{n}" for n in range(10)]))
        producer.produce(names.recommendations, value, f"su{user}".encode())
    producer.produce(names.recommendations, b"not a snapshot", b"su5")
    assert producer.flush(30) == 0
    deadline = time.monotonic() + 120
    with FollowedLists(kafka, 200) as lists:
        while (lists.snapshot >= 0).sum() < 100:
            assert time.monotonic() < deadline
            lists.poll()
        source = Simulator(SimulatorConfig(users=200, items=50), lists)
        report = replay(select(source, limit=3_000), kafka, Pacing.as_fast())
    assert (report.events, report.failed) == (3_000, 0)
    events = [EVENTS.decode_keyed(m.value(), m.key()) for m in read_all(kafka, names.behaviour)]
    listed = [event for event in events if event.snapshot_id is not None]
    assert listed
    for event in listed:
        assert event.snapshot_id == f"{event.user_id}.0.1"
        assert event.item_id == f"si{event.position}"


def test_simulate_command_live(kafka: KafkaSettings) -> None:
    arguments = "simulate --to-kafka --feedback live --users 300 --items 100 --rate 2000 --duration 1 --json"
    done = run(kafka, *arguments.split())
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["events"], report["failed"]) == (2_000, 0)
    assert report["shown"]["lists"]["views"] == 0
    assert report["shown"]["mix"]["views"] > 500
    assert len(read_all(kafka, topic_names(kafka.prefix).behaviour)) == 2_000


def test_live_feedback_needs_the_topic(kafka: KafkaSettings) -> None:
    with pytest.raises(TopicError, match="topics create"):
        FollowedLists(KafkaSettings(bootstrap=kafka.bootstrap, prefix="nobody-made-these"), 10)
