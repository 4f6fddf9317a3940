"""Opening a kafka-python consumer that reads a topic without a group, and without leaks."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

_BOOTSTRAP_MS: Final = 5_000
_PROBE_S: Final = 1.0
_DEFAULT_PORT: Final = 9092
_MAX_POLL_RECORDS: Final = 2_000


def open_consumer(config: Mapping[str, Any]) -> KafkaConsumer:
    """A consumer of committed records that joins no group and commits nothing.

    The servers are knocked at first: a consumer that cannot reach any of them leaves open
    sockets behind, for each attempt (kafka-python 3.0).

    Raises
    ------
    KafkaError
        No server answers, or none accepts us.
    """
    servers = config["bootstrap_servers"]
    names = servers.split(",") if isinstance(servers, str) else list(servers)
    if not any(_knock(name) for name in names):
        raise KafkaError(f"nobody answers at {','.join(names)}")
    return KafkaConsumer(
        **{
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "isolation_level": "read_committed",
            "max_poll_records": _MAX_POLL_RECORDS,
            "bootstrap_timeout_ms": _BOOTSTRAP_MS,
            **config,
            "group_id": None,
        }
    )


def assign_all(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    """Assign every partition of `topic`; KafkaError when there is none (yet)."""
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        raise KafkaError(f"topic {topic} does not exist")
    partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
    consumer.assign(partitions)
    return partitions


def _knock(name: str) -> bool:
    host, _, port = name.strip().rpartition(":")
    if not port.isdecimal():
        host, port = name.strip(), str(_DEFAULT_PORT)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S):
            return True
    except OSError:
        return False
