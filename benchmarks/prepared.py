"""Events made and packed before they are sent, so that sending them at a steady rate costs next to nothing.

An ordinary producer takes half a core at 200 000 events a second, and then a machine of two cores
measures the producer. Here a tick's events are one record batch a partition, built in advance as a
producer with a linger of one tick would build it (lz4, murmur2 partitions, acks=all), and a tick is one
produce request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition
from msgspec import Struct

from schemas.hashing import partition_many
from schemas.settings import KafkaSettings
from schemas.topics import topic_names

MessagesOf = Callable[[int, list[int]], list[dict[str, Any]]]
"""The next n messages, with key and value, at the times given."""

TICK_S: Final = 0.005
REQUEST_MS: Final = 10_000
MOST_BYTES: Final = 1 << 20
_LZ4: Final = 3
_MAGIC: Final = 2


class Tick(Struct, frozen=True):
    """One produce request: how many events, and the batches by partition."""

    n: int
    batches: list[tuple[int, bytes]]


def prepare(kafka: KafkaSettings, messages_of: MessagesOf, rate: float, seconds: float) -> list[Tick]:
    """Requests of `rate` events a second for `seconds`, a tick apart; events are dated now.

    Cost: 2 microseconds an event and its compressed size.
    """
    ticks, done = [], 0
    for k in range(1, round(seconds / TICK_S) + 1):
        n = round(rate * TICK_S * k) - done
        done += n
        now_ms = int(time.time() * 1000)
        messages = messages_of(n, [now_ms] * n)
        partitions = partition_many([m["key"] for m in messages], kafka.partitions).tolist()
        builders: dict[int, Any] = {}
        places = [0] * kafka.partitions
        for message, partition in zip(messages, partitions, strict=True):
            builder = builders.get(partition)
            if builder is None:
                builder = builders[partition] = DefaultRecordBatchBuilder(
                    _MAGIC, _LZ4, False, -1, -1, -1, MOST_BYTES
                )
            builder.append(places[partition], now_ms, message["key"], message["value"], [])
            places[partition] += 1
        ticks.append(
            Tick(n, [(partition, bytes(builder.build())) for partition, builder in builders.items()])
        )
    return ticks


def send(kafka: KafkaSettings, ticks: list[Tick]) -> tuple[int, float]:
    """Send every tick at its time; returns the number of events acknowledged, and the seconds it took."""
    return asyncio.run(_send(kafka, ticks))


async def _send(kafka: KafkaSettings, ticks: list[Tick]) -> tuple[int, float]:
    topic = topic_names(kafka.prefix).behaviour
    client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
    await client.bootstrap()
    try:
        await client.force_metadata_update()
        await client.add_topic(topic)
        leader = client.cluster.leader_for_partition(TopicPartition(topic, 0))  # of a single broker: of all
        waiting: set[asyncio.Task[None]] = set()
        started = time.monotonic()
        for k, tick in enumerate(ticks):
            await asyncio.sleep(max(0.0, started + k * TICK_S - time.monotonic()))
            request = ProduceRequest(
                transactional_id=None, required_acks=-1, timeout=REQUEST_MS, topics=[(topic, tick.batches)]
            )
            task = asyncio.create_task(_acknowledged(client, leader, request))
            waiting.add(task)
            for done in [task for task in waiting if task.done()]:
                waiting.remove(done)
                done.result()
        await asyncio.gather(*waiting)
        return sum(tick.n for tick in ticks), time.monotonic() - started
    finally:
        await client.close()


async def _acknowledged(client: Any, leader: int, request: Any) -> None:
    response = await client.send(leader, request)
    for _, partitions in response.topics:
        for partition, error, *_ in partitions:
            if error:
                raise SystemExit(f"partition {partition} refused a batch: error {error}")
