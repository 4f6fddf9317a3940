"""`reelflow dlq` on the real broker: letters listed, shown, sent again once, and read by a consumer."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from schemas.deadletters import HEADER_RESENT_FROM, Rejected, headers_of
from schemas.hashing import partition_of
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from serving.reader_connect import assign_all, open_consumer
from streams.broker import LocalBroker
from streams.cli import cli
from streams.context import confluent_config
from streams.dlq import DeadLetters
from streams.dlq_resend import CHUNK
from tests.broken_events import valid_fields
from tests.conftest import PARTITIONS

pytestmark = pytest.mark.integration

N_GOOD = CHUNK + 3  # more than a transaction


@pytest.fixture
def kafka(broker: LocalBroker, topics: str) -> KafkaSettings:
    """Topics whose dead-letter topic holds good, broken and empty letters, one of them twice."""
    kafka = KafkaSettings(bootstrap=broker.bootstrap, prefix=topics, partitions=PARTITIONS)
    producer = Producer(confluent_config(kafka) | {"acks": "all"})
    for number in range(N_GOOD):
        bury(producer, kafka, number, "late", msgspec.json.encode(valid_fields(number)))
    bury(producer, kafka, 0, "late", msgspec.json.encode(valid_fields(0)))
    bury(producer, kafka, N_GOOD, "not_json", b"\xff{")
    bury(producer, kafka, N_GOOD + 1, "message_too_large", None)
    assert producer.flush(30) == 0
    return kafka


def bury(producer: Producer, kafka: KafkaSettings, number: int, reason: str, value: bytes | None) -> None:
    rejected = Rejected(index=0, reason=cast("Any", reason), field=None, message="what was wrong")
    topic = topic_names(kafka.prefix).behaviour
    partition = number % PARTITIONS  # often not where the key belongs
    headers = headers_of(
        rejected, topic=topic, partition=partition, offset=number, stage="fold", n_bytes=len(value or b"")
    )
    producer.produce(f"{topic}.dlq", value, f"u{number}".encode(), partition, headers=[*headers])


def dlq(kafka: KafkaSettings, *arguments: str) -> str:
    environ = {"REELFLOW_KAFKA_BOOTSTRAP": kafka.bootstrap, "REELFLOW_KAFKA_PREFIX": kafka.prefix}
    result = CliRunner().invoke(cli, ["dlq", *arguments], env=environ, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def behaviour_records(kafka: KafkaSettings) -> list[Any]:
    consumer = open_consumer({"bootstrap_servers": kafka.bootstrap})
    try:
        places = assign_all(consumer, topic_names(kafka.prefix).behaviour)
        ends = consumer.end_offsets(places)
        consumer.seek_to_beginning(*places)
        found: list[Any] = []
        while any(consumer.position(place) < ends[place] for place in places):
            for records in consumer.poll(timeout_ms=250).values():
                found += records
        return found
    finally:
        consumer.close()


def test_letters_are_listed_shown_and_sent_again_once(kafka: KafkaSettings) -> None:
    groups = {group["reason"]: group for group in json.loads(dlq(kafka, "list", "--json"))}
    assert (groups["late"]["letters"], groups["late"]["records"]) == (N_GOOD, N_GOOD + 1)
    assert groups["message_too_large"]["without_value"] == 1

    partition = N_GOOD % PARTITIONS
    shown = dlq(kafka, "show", f"behaviour/{partition}/{N_GOOD}")
    assert "reelflow_reason: not_json" in shown
    assert "value: \\xff{" in shown
    assert "today: not_utf8" in shown

    tried = dlq(kafka, "resend", "--dry-run")
    assert f"behaviour/{partition}/{N_GOOD}" in tried
    assert f"{N_GOOD + 2} selected, {N_GOOD} would be sent" in tried
    assert behaviour_records(kafka) == []

    report = json.loads(dlq(kafka, "resend", "--all", "--json"))
    assert (report["selected"], report["sent"]) == (N_GOOD + 2, N_GOOD)
    assert (report["broken"], report["without_value"]) == (1, 1)
    records = behaviour_records(kafka)
    assert len(records) == N_GOOD
    topic = topic_names(kafka.prefix).behaviour
    for record in records:
        number = int(record.key[1:])
        assert record.value == msgspec.json.encode(valid_fields(number))
        assert record.partition == partition_of(record.key, PARTITIONS)
        origin = f"{topic}/{number % PARTITIONS}/{number}"
        assert dict(record.headers)[HEADER_RESENT_FROM].decode() == origin

    again = json.loads(dlq(kafka, "resend", "--reason", "late", "--json"))
    assert (again["sent"], again["resent_before"]) == (0, N_GOOD)
    assert len(behaviour_records(kafka)) == N_GOOD
    groups = {group["reason"]: group for group in json.loads(dlq(kafka, "list", "--json"))}
    assert (groups["late"]["letters"], groups["late"]["resent"]) == (N_GOOD, N_GOOD)
    assert "sent again" in dlq(kafka, "show", "behaviour/1/1")
    forced = dlq(kafka, "resend", "--partition", "1", "--offset", "1", "--again")
    assert "1 selected, 1 sent again and acknowledged (late 1)" in forced


def test_an_empty_topic_ends_at_once(broker: LocalBroker, topics: str) -> None:
    kafka = KafkaSettings(bootstrap=broker.bootstrap, prefix=topics, partitions=PARTITIONS)
    with DeadLetters(kafka) as letters:
        assert list(letters.letters()) == []
    assert dlq(kafka, "list") == "no dead letters\n"
