"""Create the topics of `schemas.topics` on a broker, and tell how what is there differs from them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import KafkaError as BrokerCode
from kafka.admin import ConfigResource
from kafka.errors import KafkaError, RetriableError, TopicAlreadyExistsError

from schemas.errors import ConfigurationError, TopicError, UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import TopicSpec, model_topic_specs, topic_specs

from .admin import AdminClient
from .context import confluent_config, kafka_python_config

TIMEOUT_S = 15.0
_SETTLING = frozenset(
    {
        BrokerCode.NOT_LEADER_FOR_PARTITION,
        BrokerCode.LEADER_NOT_AVAILABLE,
        BrokerCode.UNKNOWN_TOPIC_OR_PART,
    }
)
"""What a broker answers for a topic that it is about to have."""


def specs_of(kafka: KafkaSettings, model: str | None = None) -> tuple[TopicSpec, ...]:
    """The topics that these settings ask for, with those of `model` where one is named."""
    shared = topic_specs(kafka.prefix, kafka.partitions, kafka.replication)
    if model is None:
        return shared
    return shared + model_topic_specs(kafka.prefix, kafka.partitions, kafka.replication, model)


def create_topics(
    kafka: KafkaSettings, *, model: str | None = None, timeout_s: float = TIMEOUT_S
) -> list[str]:
    """Create what is missing, all configurations explicit; returns the names created.

    With `model` its topics are among them.

    Topics that exist exactly as asked for are left alone, so calling it again changes nothing; nor does
    calling it from several processes at once.

    Raises
    ------
    TopicError
        When a topic exists and differs (nothing is altered), or the broker refuses one; names each.
    UnavailableError
        When no broker answers within `timeout_s`.
    ConfigurationError
        When an address is malformed.
    """
    specs = specs_of(kafka, model)
    with _admin(kafka, timeout_s) as admin:
        existing = _partitions(admin, specs)
        if differences := _differences(admin, kafka, [spec for spec in specs if spec.name in existing]):
            raise TopicError("existing topics differ from what is asked for: " + "; ".join(differences))
        missing = [spec for spec in specs if spec.name not in existing]
        created = [spec.name for spec in missing if _create(admin, kafka, spec)]
        if missing:
            admin.wait_for_topics([spec.name for spec in missing], timeout_ms=int(timeout_s * 1000))
        if differences := _differences(admin, kafka, missing):
            raise TopicError("topics came out different from what is asked for: " + "; ".join(differences))
    return created


def check_topics(
    kafka: KafkaSettings, *, model: str | None = None, timeout_s: float = TIMEOUT_S
) -> list[str]:
    """Every difference between the broker's topics and what these settings ask for; empty when none.

    Compared: existence, number of partitions, replication factor, and each configuration that
    `topic_specs` sets. Other configurations are the operator's.

    Raises
    ------
    UnavailableError
        When no broker answers within `timeout_s`.
    """
    with _admin(kafka, timeout_s) as admin:
        return _differences(admin, kafka, specs_of(kafka, model))


def partition_counts(
    kafka: KafkaSettings, *, model: str | None = None, timeout_s: float = TIMEOUT_S
) -> dict[str, int]:
    """Number of partitions of each of our topics, 0 for one that does not exist.

    With `model` its topics are among them.

    Raises
    ------
    UnavailableError
        When no broker answers within `timeout_s`.
    ConfigurationError
        When an address is malformed.
    """
    specs = specs_of(kafka, model)
    with _admin(kafka, timeout_s) as admin:
        found = _partitions(admin, specs)
    return {spec.name: len(found.get(spec.name, ())) for spec in specs}


def has_records(kafka: KafkaSettings, topic: str, *, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether anything was ever written to `topic`, removed since or not.

    Raises
    ------
    UnavailableError
        When the broker does not answer within `timeout_s`.
    """
    config = confluent_config(kafka) | {"group.id": "reelflow-look", "enable.auto.commit": False}
    del config["partitioner"]  # librdkafka would warn: a consumer has none
    consumer = Consumer(config)
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            try:
                return any(end > 0 for end in _ends(consumer, topic, timeout_s))
            except KafkaException as error:
                if error.args[0].code() not in _SETTLING or time.monotonic() > deadline:
                    raise UnavailableError(f"cannot look at {topic} on {kafka.bootstrap}: {error}") from None
                time.sleep(0.1)  # a new topic has no leader for a moment
    finally:
        consumer.close()


def _ends(consumer: Consumer, topic: str, timeout_s: float) -> Iterator[int]:
    """Log end of each partition."""
    for partition in consumer.list_topics(topic, timeout=timeout_s).topics[topic].partitions:
        yield consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout_s)[1]


def _create(admin: AdminClient, kafka: KafkaSettings, spec: TopicSpec) -> bool:
    """Whether it was us who created the topic."""
    wanted = {
        "num_partitions": spec.partitions,
        "replication_factor": kafka.replication,
        "configs": spec.configs,
    }
    try:
        admin.create_topics({spec.name: wanted})
    except TopicAlreadyExistsError:
        return False  # another process was quicker
    return True


def _differences(admin: AdminClient, kafka: KafkaSettings, specs: Sequence[TopicSpec]) -> list[str]:
    if not specs:
        return []
    replicas = _partitions(admin, specs)
    present = [spec for spec in specs if spec.name in replicas]
    resources = [ConfigResource("TOPIC", spec.name, list(spec.configs)) for spec in present]
    configs = admin.describe_configs(resources, config_filter="all")["topic"] if resources else {}
    found: list[str] = []
    for spec in specs:
        if spec.name not in replicas:
            found.append(f"{spec.name} is missing")
            continue
        factors = replicas[spec.name]
        if len(factors) != spec.partitions:
            found.append(f"{spec.name} has {_count(len(factors), 'partition')}, not {spec.partitions}")
        if set(factors) != {kafka.replication}:
            shown = ", ".join(map(str, sorted(set(factors))))
            found.append(f"{spec.name} has replication factor {shown}, not {kafka.replication}")
        for name, value in spec.configs.items():
            actual = configs[spec.name].get(name, {}).get("value")
            if _normal(actual) != _normal(value):
                found.append(f"{spec.name} has {name}={actual}, not {value}")
    return found


def _partitions(admin: AdminClient, specs: Sequence[TopicSpec]) -> dict[str, list[int]]:
    """Replication factor of each partition, for the topics that exist."""
    described = admin.describe_topics([spec.name for spec in specs])
    return {
        topic["name"]: [len(partition["replica_nodes"]) for partition in topic["partitions"]]
        for topic in described
        if topic["error_code"] == 0
    }


def _normal(value: Any) -> frozenset[str]:
    """A configuration value without the order of a list (``compact,delete``)."""
    return frozenset(part.strip() for part in str(value).split(","))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


@contextmanager
def _admin(kafka: KafkaSettings, timeout_s: float) -> Iterator[AdminClient]:
    deadline = time.monotonic() + timeout_s
    unavailable = f"no broker answers at {kafka.bootstrap} (waited {timeout_s:g} s)"
    # The library leaks a socket for each refused connection, so it is let go only once there is someone.
    while not any(_accepts(address) for address in _addresses(kafka)):
        if time.monotonic() > deadline:
            raise UnavailableError(unavailable)
        time.sleep(0.1)
    limit_ms = max(1_000, int((deadline - time.monotonic()) * 1000))
    try:
        with AdminClient(
            **kafka_python_config(kafka), bootstrap_timeout_ms=limit_ms, request_timeout_ms=limit_ms
        ) as admin:
            yield admin
    except RetriableError as error:
        raise UnavailableError(f"{unavailable}: {error}") from None
    except KafkaError as error:
        raise TopicError(f"the broker at {kafka.bootstrap} refused: {error}") from None


def _addresses(kafka: KafkaSettings) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for address in kafka.bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise ConfigurationError("kafka.bootstrap", f"{address!r} is not host:port")
        found.append((host.strip("[]"), int(port)))
    return found


def _accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True
