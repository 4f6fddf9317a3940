"""`make bench-stream`: the whole worker against a plain Faust agent that merely reads.

Same broker, same topic, one run, interleaved: plain, worker, plain, worker ... Compare by ratio;
absolute figures depend on the machine. The worker decodes, validates, deduplicates, sessionises,
learns transitions, popularity and tags from every event, ranks, and publishes snapshots; its
embeddings and its prequential scoring are off (`--embeddings` turns the former on).

The last line printed is one JSON object: plain_faust and worker in events/s, worker_over_plain,
snapshots_per_s, peak_mib of the worker, and stages in microseconds an event.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
from confluent_kafka import Producer

from schemas.codec import encode_event
from schemas.records import Event
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.broker import LocalBroker
from streams.context import confluent_config
from streams.demo import free_port
from streams.processes import Child, http_json, http_text
from streams.topics import create_topics

PARTITIONS = 4


def fill(kafka: KafkaSettings, n_events: int, n_users: int, n_items: int, seed: int) -> float:
    """Produce Zipf-popular watch events; returns seconds."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, n_users, n_events)
    items = np.minimum(rng.zipf(1.2, n_events) - 1, n_items - 1)
    watched = rng.integers(1_000, 60_000, n_events)
    producer = Producer(
        confluent_config(kafka)
        | {
            "acks": "all",
            "compression.type": "lz4",
            "linger.ms": 50,
            "queue.buffering.max.messages": 2_000_000,
        }
    )
    topic = topic_names(kafka.prefix).behaviour
    started = time.monotonic()
    base_ms = int(time.time() * 1000) - n_events
    for i in range(n_events):
        event = Event(
            event_id=f"e{i}",
            user_id=f"u{users[i]}",
            item_id=f"v{items[i]}",
            type="watch",
            ts_ms=base_ms + i,
            watch_ms=int(watched[i]),
            duration_ms=60_000,
            surface="short_video",
        )
        while True:
            try:
                producer.produce(topic, encode_event(event), event.user_id)
                break
            except BufferError:
                producer.poll(0.1)
        if not i % 10_000:
            producer.poll(0)
    producer.flush()
    return time.monotonic() - started


def plain(kafka: KafkaSettings, seconds: float) -> float:
    """Events a second of a plain agent."""
    output = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.plain_faust",
            "--bootstrap",
            kafka.bootstrap,
            "--topic",
            topic_names(kafka.prefix).behaviour,
            "--partitions",
            str(PARTITIONS),
            "--seconds",
            str(seconds),
            "--group",
            f"plain-{uuid4().hex[:8]}",
        ],
        capture_output=True,
        text=True,
        timeout=seconds + 120,
        check=False,
    )
    for line in output.stdout.splitlines():
        if line.startswith("{"):
            result = json.loads(line)
            return float(result["events"] / result["seconds"])
    raise SystemExit(f"the plain agent printed no result:\n{output.stdout[-2000:]}\n{output.stderr[-4000:]}")


def worker(
    kafka: KafkaSettings, folder: Path, n_events: int, seconds: float, *, embeddings: bool
) -> dict[str, Any]:
    """Rate of the worker from its first learned event until the log is done or time is over."""
    port = free_port()
    name = f"bench-{uuid4().hex[:8]}"
    environ = {
        "REELFLOW_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "REELFLOW_KAFKA_PREFIX": kafka.prefix,
        "REELFLOW_KAFKA_PARTITIONS": str(PARTITIONS),
        "REELFLOW_WORKER_PORT": str(port),
        "REELFLOW_WORKER_GROUP_ID": name,
        "REELFLOW_WORKER_MODEL_NAME": name,
        "REELFLOW_LEARNER_EMBEDDINGS": "true" if embeddings else "false",
        "REELFLOW_RANKER_EVALUATE_RATIO": "0",
    }
    url = f"http://127.0.0.1:{port}"
    samples: list[tuple[float, int, int]] = []
    with Child("worker", ["worker"], log=folder / f"{name}.log", environ=environ) as child:
        child.wait_ready(f"{url}/health/live", 300)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            child.check()
            stats = http_json(f"{url}/stats", timeout_s=30)
            now = time.monotonic()
            if stats["events_learned"]:
                samples.append((now, stats["events_learned"], stats["snapshots"]))
                if stats["events_learned"] >= n_events or now - samples[0][0] > seconds:
                    break
            time.sleep(0.05)
        peak_kib = next(
            int(line.split()[1])
            for line in Path(f"/proc/{child.process.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        metrics = http_text(f"{url}/metrics", timeout_s=30)
    (t0, n0, s0), (t1, n1, s1) = samples[0], samples[-1]
    stages = {
        line.split('stage="')[1].split('"')[0]: round(float(line.split()[-1]) / n1 * 1e6, 2)
        for line in metrics.splitlines()
        if line.startswith("reelflow_stage_seconds_total{")
    }
    return {
        "rate": (n1 - n0) / (t1 - t0),
        "snapshots_per_s": (s1 - s0) / (t1 - t0),
        "peak_mib": peak_kib / 1024,
        "stages_us_an_event": stages,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="window of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embeddings", action="store_true")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="reelflow-bench-") as name,
        LocalBroker(Path(name) / "kafka") as broker,
    ):
        plains, workers = [], []
        for round_ in range(arguments.rounds):
            # Fresh topics each round: where lists exist already a worker is quiet until it has caught up.
            kafka = KafkaSettings(bootstrap=broker.bootstrap, prefix=f"bench{round_}", partitions=PARTITIONS)
            create_topics(kafka)
            took = fill(kafka, arguments.events, arguments.users, arguments.items, arguments.seed)
            print(
                f"{arguments.events:,} events of {arguments.users:,} users produced in {took:.1f} s",
                flush=True,
            )
            plains.append(plain(kafka, arguments.seconds))
            print(f"round {round_ + 1}: plain Faust reads {plains[-1]:,.0f} events/s", flush=True)
            workers.append(
                worker(
                    kafka, Path(name), arguments.events, arguments.seconds, embeddings=arguments.embeddings
                )
            )
            figures = workers[-1]
            print(
                f"round {round_ + 1}: worker learns {figures['rate']:,.0f} events/s, "
                f"{figures['snapshots_per_s']:,.0f} snapshots/s, peak {figures['peak_mib']:,.0f} MiB, "
                f"microseconds an event: {figures['stages_us_an_event']}",
                flush=True,
            )
    plain_rate = float(np.median(plains))
    worker_rate = float(np.median([figures["rate"] for figures in workers]))
    result = {
        "plain_faust": round(plain_rate),
        "worker": round(worker_rate),
        "worker_over_plain": round(worker_rate / plain_rate, 2),
        "snapshots_per_s": round(float(np.median([figures["snapshots_per_s"] for figures in workers]))),
        "peak_mib": round(max(figures["peak_mib"] for figures in workers)),
        "stages_us_an_event": workers[-1]["stages_us_an_event"],
        "embeddings": arguments.embeddings,
    }
    print(f"worker / plain Faust: {result['worker_over_plain']}")
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
