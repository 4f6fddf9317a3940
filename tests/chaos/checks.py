"""What must hold after every fault: the audit is clean, nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from tests.chaos.load import Load
from tests.processes import RunningWorker


def cli(environ: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Exit code and output of a `reelflow` command."""
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + (done.stderr if done.returncode else "")


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


def check_all(worker: RunningWorker, kafka: KafkaSettings, load: Load) -> dict[str, Any]:
    """Wait until everything is learned, then check accounting, digests and the audit; the last stats."""
    n = n_records(kafka, topic_names(kafka.prefix).behaviour)
    assert n == load.n_sent

    def accounted(stats: dict[str, Any]) -> bool:
        total = stats["events_learned"] + stats["duplicates"] + sum(stats["dead_letters"].values())
        assert total <= n, f"{total} of {n} records: something was counted twice"
        return bool(total == n and not stats["pending_snapshots"])

    stats = worker.wait(accounted, 120)
    assert stats["events_learned"] == load.sent["event"]
    assert stats["duplicates"] == load.sent["duplicate"]
    assert sum(stats["dead_letters"].values()) == load.sent["broken"]
    code, output = cli(worker.environ, "audit", "--live", worker.url, "--json")
    assert code == 0, output
    report = json.loads(output)
    assert not report["problems"]
    code, output = cli(worker.environ, "refold", "--digest")
    assert code == 0, output
    assert json.loads(output)["digests"]["users"] == report["digests"]["users"]
    return stats
