"""Topics on the real broker: made as asked for, and every difference named."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from uuid import uuid4

import msgspec
import pytest
from kafka.admin import ConfigResource

from schemas.errors import ConfigurationError, TopicError, UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import model_topic_specs, topic_names, topic_specs
from streams.admin import AdminClient
from streams.broker import LocalBroker
from streams.topics import check_topics, create_topics

pytestmark = pytest.mark.integration


@pytest.fixture
def kafka(broker: LocalBroker) -> KafkaSettings:
    """Settings with a prefix under which nothing exists."""
    return KafkaSettings(bootstrap=broker.bootstrap, prefix=f"t{uuid4().hex[:12]}", partitions=2)


def alter(bootstrap: str, topic: str, name: str, value: str) -> None:
    with AdminClient(bootstrap_servers=bootstrap) as admin:
        admin.alter_configs([ConfigResource("TOPIC", topic, {name: value})], incremental=True)


def delete(bootstrap: str, topic: str) -> None:
    with AdminClient(bootstrap_servers=bootstrap) as admin:
        admin.delete_topics([topic])


def reelflow(kafka: KafkaSettings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streams.cli", "topics", *arguments]
    options = [
        "--bootstrap",
        kafka.bootstrap,
        "--prefix",
        kafka.prefix,
        "--partitions",
        str(kafka.partitions),
    ]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=240, check=False)


def test_the_fixture_makes_topics_that_pass_the_check(broker: LocalBroker, topics: str) -> None:
    assert check_topics(KafkaSettings(bootstrap=broker.bootstrap, prefix=topics, partitions=4)) == []


def test_creating_is_idempotent_and_restores_what_is_missing(kafka: KafkaSettings) -> None:
    names = [spec.name for spec in topic_specs(kafka.prefix)]
    assert create_topics(kafka) == names
    assert create_topics(kafka) == []
    delete(kafka.bootstrap, names[2])
    assert check_topics(kafka) == [f"{names[2]} is missing"]
    assert create_topics(kafka) == [names[2]]
    assert check_topics(kafka) == []


def test_several_may_create_at_once(kafka: KafkaSettings) -> None:
    with ThreadPoolExecutor(4) as pool:
        created = list(pool.map(lambda _: create_topics(kafka), range(4)))
    assert sorted(chain.from_iterable(created)) == sorted(spec.name for spec in topic_specs(kafka.prefix))
    assert check_topics(kafka) == []


def test_everything_missing_is_named(kafka: KafkaSettings) -> None:
    assert check_topics(kafka) == [f"{spec.name} is missing" for spec in topic_specs(kafka.prefix)]


def test_every_difference_is_named_and_nothing_is_altered(kafka: KafkaSettings) -> None:
    create_topics(kafka)
    names = topic_names(kafka.prefix)
    alter(kafka.bootstrap, names.behaviour, "retention.ms", "1000")
    alter(kafka.bootstrap, names.behaviour, "message.timestamp.type", "CreateTime")
    alter(kafka.bootstrap, names.recommendations, "cleanup.policy", "delete,compact")  # the same, reordered
    alter(kafka.bootstrap, names.recommendations, "segment.ms", "60000")  # the operator's own
    expected = [
        f"{names.behaviour} has message.timestamp.type=CreateTime, not LogAppendTime",
        f"{names.behaviour} has retention.ms=1000, not 604800000",
    ]
    assert check_topics(kafka) == expected
    with pytest.raises(TopicError) as caught:
        create_topics(kafka)
    assert all(difference in str(caught.value) for difference in expected)
    assert check_topics(kafka) == expected


def test_partitions_and_replication_are_compared(kafka: KafkaSettings) -> None:
    create_topics(kafka)
    asked = msgspec.structs.replace(kafka, partitions=3, replication=3)
    behaviour = topic_names(kafka.prefix).behaviour
    found = check_topics(asked)
    assert f"{behaviour} has 2 partitions, not 3" in found
    assert f"{behaviour} has replication factor 1, not 3" in found
    assert f"{behaviour} has min.insync.replicas=1, not 2" in found


def test_what_the_broker_refuses_is_told(kafka: KafkaSettings) -> None:
    with pytest.raises(TopicError, match=r"refused.*eplication"):
        create_topics(msgspec.structs.replace(kafka, replication=2))


def test_an_unreachable_broker_is_named_in_bounded_time() -> None:
    nobody = KafkaSettings(bootstrap="127.0.0.1:9")
    for call in (create_topics, check_topics):
        started = time.monotonic()
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9"):
            call(nobody, timeout_s=1.0)
        assert time.monotonic() - started < 10


def test_a_malformed_address_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"kafka\.bootstrap"):
        create_topics(KafkaSettings(bootstrap="localhost:port"), timeout_s=1.0)


def test_the_command_line(kafka: KafkaSettings) -> None:
    names = [spec.name for spec in (*topic_specs(kafka.prefix), *model_topic_specs(kafka.prefix))]
    missing = reelflow(kafka, "check")
    assert (missing.returncode, missing.stdout.splitlines()) == (1, [f"{name} is missing" for name in names])
    created = reelflow(kafka, "create")
    assert (created.returncode, created.stdout.splitlines()) == (0, [f"created {name}" for name in names])
    checked = reelflow(kafka, "check")
    assert (checked.returncode, checked.stdout) == (
        0,
        f"all topics of {kafka.prefix} are as they should be\n",
    )
    printed = json.loads(reelflow(kafka, "print", "--json").stdout)
    assert [topic["name"] for topic in printed] == names
    assert {topic["partitions"] for topic in printed[:-1]} == {2}
    assert printed[-1]["partitions"] == 1  # dense parameters of the model
    text = reelflow(kafka, "print").stdout
    assert all(name in text for name in names)
    assert "retention.ms = 604800000 (7 days)" in text
