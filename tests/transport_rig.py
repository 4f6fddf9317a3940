"""What the transport's tests share: a broker seen from outside, an app, an agent that remembers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from faust.types import TP
from kafka.admin import KafkaAdminClient, MemberToRemove

from schemas.runs import RecordRun
from schemas.settings import KafkaSettings, Settings, WorkerSettings
from streams.batch_topic import BatchOptions, PartitionStart, batch_topic
from streams.faust_app import ReelflowApp, build_app

LIMIT_S = 240.0
CHILD = Path(__file__).parent / "integration" / "transport_child.py"


def start_child(*arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Run transport_child.py against this tree, whichever one is installed."""
    return subprocess.Popen(
        [sys.executable, str(CHILD), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


class Cluster:
    """What the tests do to the broker from outside."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def topic(self, partitions: int = 1, config: dict[str, str] | None = None) -> str:
        name = f"transport-{uuid4().hex[:10]}"
        wanted = NewTopic(name, partitions, 1, config=config or {})
        for future in self.admin.create_topics([wanted]).values():
            future.result()
        return name

    def fill(
        self,
        topic: str,
        n: int,
        partition: int = 0,
        *,
        size: int = 20,
        first: int = 0,
        config: dict[str, Any] | None = None,
    ) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 5, **(config or {})})
        for i in range(first, first + n):
            producer.produce(topic, str(i).encode().rjust(size), key=b"%d" % i, partition=partition)
        producer.flush()

    def transaction(self, topic: str, values: list[bytes], *, abort: bool) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "transactional.id": uuid4().hex})
        producer.init_transactions()
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value, partition=0)
        producer.flush()
        if abort:
            producer.abort_transaction()
        else:
            producer.commit_transaction()

    def delete_before(self, topic: str, offset: int, partition: int = 0) -> None:
        futures = self.admin.delete_records([TopicPartition(topic, partition, offset)])
        for future in futures.values():
            future.result()

    def committed(self, group: str, topic: str, partition: int = 0) -> int:
        request = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition)])
        (future,) = self.admin.list_consumer_group_offsets([request]).values()
        offset: int = future.result().topic_partitions[0].offset
        return offset

    def remove_member(self, group: str, instance_id: str) -> None:
        """Throw a static member out of its group, as the end of its session does."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            admin.remove_group_members(group, [MemberToRemove(group_instance_id=instance_id)])
        finally:
            admin.close()

    def commit_as(self, group: str, topic: str, offset: int) -> None:
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=False)
        consumer.close()


class Reader:
    """An agent on a batch topic that keeps what it got, and every callback."""

    def __init__(self, app: ReelflowApp, topic: str, **options: Any) -> None:
        self.runs: list[RecordRun] = []
        self.starts: list[Mapping[TP, PartitionStart]] = []
        self.claimed: list[frozenset[TP]] = []
        self.revoked: list[frozenset[TP]] = []
        self.lost: list[tuple[TP, int]] = []
        self.arrived: list[float] = []
        self.go = asyncio.Event()
        self.go.set()

        async def on_assigned(starts: Mapping[TP, PartitionStart]) -> None:
            self.starts.append(starts)

        async def on_revoked(partitions: frozenset[TP]) -> None:
            self.revoked.append(partitions)

        self.topic = batch_topic(
            app,
            topic,
            BatchOptions(
                on_assigned=on_assigned,
                on_revoked=on_revoked,
                on_claim=self.claimed.append,
                on_lost=lambda tp, n: self.lost.append((tp, n)),
                **options,
            ),
        )

        async def read(stream: Any) -> None:
            async for run in stream:
                self.arrived.append(time.time())
                self.runs.append(run)
                await self.go.wait()

        app.agent(self.topic, name=f"read-{topic}")(read)

    @property
    def values(self) -> list[bytes | None]:
        return [value for run in self.runs for value in run.values]

    def waiting(self, app: ReelflowApp) -> int:
        return max(channel.queue.qsize() for channel in app.topics if channel.topics == self.topic.topics)


def make_app(bootstrap: str, group: str | None = None, **options: Any) -> ReelflowApp:
    """An app in `group` (its own by default); `options` are Faust's."""
    settings = Settings(
        kafka=KafkaSettings(bootstrap=bootstrap), worker=WorkerSettings(group_id=group or uuid4().hex)
    )
    return build_app(settings, **options)


@asynccontextmanager
async def running(app: ReelflowApp) -> AsyncIterator[None]:
    await app.start()
    try:
        yield
    finally:
        await app.stop()


async def until(true: Callable[[], object], what: str = "", limit_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        await asyncio.sleep(0.01)
