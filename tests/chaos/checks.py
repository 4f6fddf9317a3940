"""What must hold after every fault: the audit is clean, nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Message, TopicPartition

from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from tests.chaos.load import Load
from tests.processes import RunningWorker

LEARNED_S = 180.0


def cli(environ: Mapping[str, str], *arguments: str) -> Any:
    """The JSON object that a `reelflow` command prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def n_records(kafka: KafkaSettings, topic: str) -> int:
    """Records of a topic without gaps."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "look"})
    try:
        bounds = [
            consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=20)
            for p in range(kafka.partitions)
        ]
    finally:
        consumer.close()
    return sum(high - low for low, high in bounds)


def read_all(kafka: KafkaSettings, topic: str) -> Iterator[Message]:
    """Every message of a topic up to its end as of now, partition after partition."""
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap, "group.id": "look", "enable.auto.commit": False}
    )
    try:
        for partition in range(kafka.partitions):
            position, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
            consumer.assign([TopicPartition(topic, partition, position)])
            while position < end:
                message = consumer.poll(60)
                assert message is not None, f"{topic}[{partition}] ends at {position}, not at {end}"
                assert message.error() is None, message.error()
                offset = message.offset()
                assert offset is not None
                position = offset + 1
                yield message
    finally:
        consumer.close()


def check_letters(kafka: KafkaSettings, load: Load) -> None:
    """Each broken message has a dead letter (after a crash it may have two)."""
    found = set()
    for message in read_all(kafka, topic_names(kafka.prefix).behaviour_dlq):
        headers = dict(message.headers() or [])
        found.add((headers["reelflow_partition"], headers["reelflow_offset"]))
    assert len(found) == load.sent["broken"]


def check_lists(kafka: KafkaSettings, load: Load, *, was_stopped: bool = False) -> None:
    """Every user has a list, and no list knows less than the one before it.

    But for what a producer had queued when its process was stopped: it comes when the process goes on, of an
    epoch that has ended (docs/architecture.md), and readers drop it.
    """
    told: dict[str, tuple[int, int]] = {}
    for message in read_all(kafka, topic_names(kafka.prefix).recommendations):
        snapshot = json.loads(message.value() or b"{}")
        user, offset, epoch = snapshot["user_id"], snapshot["knows"]["offset"], snapshot["model"]["epoch"]
        before, newest_epoch = told.get(user, (0, epoch))
        if offset < before:
            assert was_stopped, f"{user} was told of {before}, then of {offset}"
            assert epoch < newest_epoch, f"a living process told {user} of {before}, then of {offset}"
            continue
        told[user] = offset, epoch
    assert set(told) == load.users


class Checked(NamedTuple):
    """What was found."""

    stats: dict[str, Any]
    users: dict[str, str]  # digests of what the log folds to, by partition


def check_all(
    worker: RunningWorker,
    kafka: KafkaSettings,
    load: Load,
    *,
    role: str = "worker",
    was_stopped: bool = False,
) -> Checked:
    """Wait until everything is learned, then check accounting, digests, the audit, letters and lists."""
    n = n_records(kafka, topic_names(kafka.prefix).behaviour)
    assert n == load.n_sent, f"the log has {n} records, {load.sent} were acknowledged"

    def accounted(stats: dict[str, Any]) -> bool:
        total = stats["events_learned"] + stats["duplicates"] + sum(stats["dead_letters"].values())
        assert total <= n, f"{total} of {n} records: something was counted twice"
        return bool(total == n and not stats["pending_snapshots"])

    stats = worker.wait(accounted, LEARNED_S)
    counted = {
        "event": stats["events_learned"],
        "duplicate": stats["duplicates"],
        "broken": sum(stats["dead_letters"].values()),
    }
    assert counted == {kind: load.sent[kind] for kind in counted}
    with ThreadPoolExecutor(2) as pool:
        audit = pool.submit(cli, worker.environ, "audit", "--live", worker.url, "--json", "--role", role)
        refold = pool.submit(cli, worker.environ, "refold", "--digest")
    assert not audit.result()["problems"]
    users = refold.result()["digests"]["users"]
    assert users == audit.result()["digests"]["users"]
    if role == "worker":
        check_letters(kafka, load)
        check_lists(kafka, load, was_stopped=was_stopped)
    return Checked(stats, users)
