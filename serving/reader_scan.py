"""One user's list without following the topic: a bounded scan of the one partition it is on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2

from schemas.errors import UnavailableError
from schemas.records import Snapshot

from .reader_connect import assign_all, open_consumer
from .reader_view import SnapshotView


def partition_of(key: bytes, n_partitions: int) -> int:
    """Where every Kafka client with the Java default (murmur2) puts a key.

    The same as ``schemas.hashing.partition_of``, without loading a compiler for one key.

    >>> partition_of(b"u42", 16)
    7
    """
    return int((murmur2(key) & 0x7FFFFFFF) % n_partitions)


def read_latest(config: Mapping[str, Any], topic: str, user_id: str, timeout: float) -> Snapshot | None:
    """Read the newest snapshot of one user, or None when the topic has none.

    Cost: one pass over the user's partition, decoding only the user's own records.

    Raises
    ------
    UnavailableError
        The broker does not answer, the topic does not exist, or the partition's end was not
        reached within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    try:
        consumer = open_consumer({"bootstrap_timeout_ms": int(timeout * 1000), **config})
    except (KafkaError, OSError) as error:
        raise UnavailableError(f"the broker does not answer: {error}") from error
    try:
        return _scan(consumer, topic, user_id, deadline)
    except (KafkaError, OSError) as error:
        raise UnavailableError(f"cannot read topic {topic}: {error}") from error
    finally:
        consumer.close()


def _scan(consumer: KafkaConsumer, topic: str, user_id: str, deadline: float) -> Snapshot | None:
    key = user_id.encode()
    n_partitions = len(assign_all(consumer, topic))
    place = TopicPartition(topic, partition_of(key, n_partitions))
    consumer.assign([place])
    end = consumer.end_offsets([place])[place]
    consumer.seek_to_beginning(place)
    view = SnapshotView(max_users=1)
    while consumer.position(place) < end:
        left = deadline - time.monotonic()
        if left <= 0:
            raise UnavailableError(
                f"partition {place.partition} of {topic} was not read to offset {end} in time; "
                f"got to {consumer.position(place)} (raise --timeout)"
            )
        for records in consumer.poll(timeout_ms=int(min(left, 0.25) * 1000)).values():
            for record in records:
                if record.key == key:
                    view.apply(record.key, record.value)
    try:
        return view.get(user_id)
    except msgspec.MsgspecError:
        return None
