"""What the sink says of batches, on the real broker."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sized
from functools import partial

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # does not say what it exports
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from schemas.errors import UnavailableError
from streams.broker import LocalBroker
from streams.sinks import KafkaSink

MOST_BYTES = 20_000
TIMEOUT_S = 30.0


@pytest.fixture
def topic(broker: LocalBroker) -> str:
    """A topic that takes no batch of more than `MOST_BYTES`."""
    name = f"sinks-{time.monotonic_ns()}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(TIMEOUT_S)
    limit = ConfigEntry("max.message.bytes", str(MOST_BYTES), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[limit])
    admin.incremental_alter_configs([resource])[resource].result(TIMEOUT_S)
    return name


def poll_until(sink: KafkaSink, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not done():
        assert time.monotonic() < deadline
        sink.poll()
        time.sleep(0.005)


def n_stored(broker: LocalBroker, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "counting"})
    try:
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, p), TIMEOUT_S)[1] for p in range(2))
    finally:
        consumer.close()


def test_the_last_message_of_a_batch_answers_for_all(broker: LocalBroker, topic: str) -> None:
    sink = KafkaSink({"bootstrap.servers": broker.bootstrap})
    reports: list[tuple[int, int]] = []
    for n in (1, 500, 3):
        sink.send(
            topic, [b"k"] * n, [b"v"] * n, lambda n, failed, _=0.0: reports.append((n, failed)), partition=1
        )
    poll_until(sink, lambda: len(reports) == 3)
    assert reports == [(1, 0), (500, 0), (3, 0)]
    assert n_stored(broker, topic) == 504
    assert sink.flush(TIMEOUT_S) == 0


def test_a_report_says_how_long_ago_the_broker_answered(broker: LocalBroker, topic: str) -> None:
    """However late it is read: lists are there for their readers by then."""
    sink = KafkaSink({"bootstrap.servers": broker.bootstrap})
    reports: list[float] = []
    for n, waited_s in enumerate((0.0, 1.0)):
        began_s = time.monotonic()
        sink.send(
            topic, [b"k"] * 9, [b"v"] * 9, lambda _n, _failed, ago_s=0.0: reports.append(ago_s), partition=1
        )
        time.sleep(waited_s)  # nobody asks: what the report must tell of
        poll_until(sink, partial(_has_more_than, reports, n))
        passed_s = time.monotonic() - began_s
        assert 0.0 <= reports[n] < passed_s
    assert reports[1] > reports[0] + 0.3
    assert sink.flush(TIMEOUT_S) == 0


def test_the_thread_of_a_sink_ends_with_it(broker: LocalBroker, topic: str) -> None:
    def hearing() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "deliveries"}

    before = hearing()
    sink = KafkaSink({"bootstrap.servers": broker.bootstrap})
    sink.send(topic, [b"k"], [b"v"], lambda *_: None, partition=1)
    assert sink.flush(TIMEOUT_S) == 0
    (thread,) = hearing() - before
    del sink
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def test_a_message_that_the_broker_refuses_ends_the_sink(broker: LocalBroker, topic: str) -> None:
    """Without a report of its own, and with messages behind it that would be taken."""
    sink = KafkaSink({"bootstrap.servers": broker.bootstrap})
    reports: list[tuple[int, int]] = []
    sink.send(topic, [b"k"], [b"v"], lambda n, failed, _=0.0: reports.append((n, failed)), partition=0)
    poll_until(sink, lambda: bool(reports))
    values = [b"v", os.urandom(3 * MOST_BYTES), b"v"]
    for _ in range(3):
        sink.send(
            topic, [b"k"] * 3, values, lambda n, failed, _=0.0: reports.append((n, failed)), partition=0
        )
    with pytest.raises(UnavailableError, match="producer failed for good"):
        poll_until(sink, lambda: False)
    assert all(failed for _, failed in reports[1:])


def test_a_message_that_the_producer_refuses_fails_its_batch(broker: LocalBroker, topic: str) -> None:
    sink = KafkaSink({"bootstrap.servers": broker.bootstrap})
    reports: list[tuple[int, int]] = []
    large = bytes(200_000_000)
    for values in ([b"v", large, b"v"], [b"v", large], [large]):
        n = len(values)
        sink.send(
            topic, [b"k"] * n, values, lambda n, failed, _=0.0: reports.append((n, failed)), partition=0
        )
    poll_until(sink, lambda: len(reports) == 3)
    assert sorted(failed for _, failed in reports) == [1, 1, 1]


def test_messages_of_no_partition_fail_alone(broker: LocalBroker, topic: str) -> None:
    sink = KafkaSink({"bootstrap.servers": broker.bootstrap})
    reports: list[tuple[int, int]] = []
    headers = [[("n", b"1")]] * 2
    for n, value in enumerate((os.urandom(3 * MOST_BYTES), b"v")):
        sink.send(
            topic,
            [b"k"] * 2,
            [value] * 2,
            lambda n, failed, _=0.0: reports.append((n, failed)),
            partition=0,
            headers=headers,
        )
        poll_until(sink, partial(_has_more_than, reports, n))
    assert reports == [(0, 2), (2, 0)]


def _has_more_than(reports: Sized, n: int) -> bool:
    return len(reports) > n
