"""The log delivered again: at-least-once producers, mirrors, a topic copied partition after partition."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.broker import LocalBroker
from streams.context import confluent_config
from streams.log_reader import KafkaLogReader
from streams.processes import http_json, http_text
from tests.chaos.checks import check_all
from tests.chaos.lives import TIMEOUT_S, kafka_of, life
from tests.chaos.load import Load
from tests.processes import RunningWorker

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.timeout(TIMEOUT_S)]


def test_the_same_log_twice(broker: LocalBroker, tmp_path: Path) -> None:
    """A second delivery, partition after partition, changes nothing but the count of duplicates."""
    kafka = kafka_of(broker)
    with ExitStack() as stack:
        with Load(kafka, n_events=8_000, rate=20_000, seed=3) as load:
            load.wait()
        worker = life(kafka, tmp_path)
        stack.callback(worker.child.stop)
        check_all(worker, kafka, load)
        once = learned(worker)
        deliver_again(kafka)
        load.sent["duplicate"] += load.sent["duplicate"] + load.sent["event"]
        load.sent["broken"] *= 2
        check_all(worker, kafka, load)
        assert learned(worker) == once


def learned(worker: RunningWorker) -> tuple[str, set[str]]:
    """Digest of the model, and the lines of the metrics that count what was learned."""
    text = http_text(f"{worker.url}/metrics", timeout_s=60)
    lines = {line for line in text.splitlines() if 'outcome="applied"' in line or "reelflow_users " in line}
    return http_json(f"{worker.url}/digest", timeout_s=90)["model"], lines


def deliver_again(kafka: KafkaSettings) -> None:
    """Copy every record of the behaviour topic to its end: the last partition first, each in its order."""
    topic = topic_names(kafka.prefix).behaviour
    producer = Producer(confluent_config(kafka) | {"acks": "all", "enable.idempotence": True})
    reader = KafkaLogReader(kafka)
    try:
        for partition in reversed(range(kafka.partitions)):
            end = reader.ends(topic, partition)
            reader.start({(topic, partition): 0})
            run = reader.read(topic, partition, 0, end)
            for key, value in zip(run.keys, run.values, strict=True):
                producer.produce(topic, value, key, partition)
            assert producer.flush(60) == 0
    finally:
        reader.close()
