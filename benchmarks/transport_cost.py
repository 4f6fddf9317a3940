"""Events a second of the transport alone: an agent on a batch topic that only counts.

``python -m benchmarks.transport_cost [--events N] [--codec lz4]`` starts a broker of
its own, fills a topic of 16 partitions, reads it several times, and prints a line for each.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from schemas.settings import KafkaSettings, Settings, WorkerSettings
from streams.batch_topic import BatchOptions, batch_topic
from streams.broker import LocalBroker
from streams.faust_app import build_app

PARTITIONS = 16
EVENT = (
    b'{"schema_version":1,"event_id":"e-%08d","user_id":"u%05d","item_id":"v%05d","type":"watch","ts_ms":%d,'
    b'"watch_ms":%d,"duration_ms":15800,"surface":"short_video","device":"phone","session_id":"s-%d","position":3}'
)
"""Some 220 bytes."""


def fill(bootstrap: str, topic: str, n_events: int, codec: str) -> None:
    """Produce `n_events` events, spread over the partitions."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result()
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 20,
            "compression.type": codec,
            "queue.buffering.max.messages": 500_000,
        }
    )
    for i in range(n_events):
        value = EVENT % (i, i % 50_000, i * 7919 % 20_000, 1_650_900_000_000 + i, i % 977 * 13, i % 4_001)
        producer.produce(topic, value, key=b"u%d" % (i % 50_000), partition=i % PARTITIONS)
        if i % 10_000 == 0:
            producer.poll(0)
    producer.flush()


async def read(bootstrap: str, topic: str, n_events: int, fetch_bytes: int) -> dict[str, float]:
    """Read the topic once from its beginning; time runs from before the first fetch."""
    settings = Settings(kafka=KafkaSettings(bootstrap=bootstrap), worker=WorkerSettings(group_id=uuid4().hex))
    app = build_app(settings, consumer_max_fetch_size=fetch_bytes)
    seen = runs = 0
    begun = ended = cpu = 0.0
    done = asyncio.Event()

    async def begin(_: object) -> None:
        nonlocal begun, cpu
        begun, cpu = time.perf_counter(), time.process_time()

    async def count(stream: Any) -> None:
        nonlocal seen, runs, ended, cpu
        async for run in stream:
            seen += len(run)
            runs += 1
            if seen >= n_events:
                ended, cpu = time.perf_counter(), time.process_time() - cpu
                done.set()

    app.agent(batch_topic(app, topic, BatchOptions(on_assigned=begin)))(count)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await app.start()
    await done.wait()
    await app.stop()
    return {
        "events_per_s": n_events / (ended - begun),
        "cpu_us_an_event": 1e6 * cpu / n_events,
        "events_a_run": n_events / runs,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--codec", default="lz4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fetch-kib", type=int, nargs="+", default=[1024], help="of a partition")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, LocalBroker(Path(folder)) as broker:
        fill(broker.bootstrap, "transport", chosen.events, chosen.codec)
        for _ in range(chosen.rounds):
            for kib in chosen.fetch_kib:
                reading = read(broker.bootstrap, "transport", chosen.events, kib << 10)
                print({"fetch_kib": kib, **{name: round(v, 3) for name, v in asyncio.run(reading).items()}})


if __name__ == "__main__":
    main()
