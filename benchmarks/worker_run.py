"""One measured run of `reelflow worker` on a topic that is full, or that a paced producer fills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from msgspec import Struct

from schemas.errors import UnavailableError
from schemas.settings import KafkaSettings, WorkerSettings
from schemas.topics import topic_names
from streams.admin import AdminClient
from streams.context import kafka_python_config
from streams.demo import free_port
from streams.processes import Child, http_json, http_text
from streams.topics import create_topics, has_records

START_S = 300.0  # the first start compiles
POLL_S = 0.05
STALLED_S = 120.0
BUSY_S = 120.0

T = TypeVar("T")
RAMP_S = 10.0
FRESH_TOPIC_S = 30.0


class Drained(Struct, kw_only=True):
    """A run over a full topic: rates of the window from the first learned event on."""

    events_per_s: float
    snapshots_per_s: float
    cpu_s: float
    """CPU seconds of the window."""

    events: int
    peak_mib: float
    stages_us: dict[str, float]
    """Microseconds an event of the learner thread, by stage."""

    stepped_ratio: float
    """Share of the events that took part in encoder steps."""

    taught_ratio: float
    """Share of the events that took part in the gate's steps."""

    rank_us: float
    """Microseconds of the learner thread that ranking a user took, on average."""


class Latencies(Struct, kw_only=True):
    """Event to snapshot, seconds; of users whom the refresh interval held back, from its end on."""

    rate: float
    """Events a second that were sent."""

    p50_s: float
    p95_s: float
    p99_s: float
    held_back_p99_s: float
    """Of the users held back, from their oldest untold event on."""

    interval_s: float
    """Refresh interval at the end; longer than configured under overload."""

    snapshots: int
    cpu_s: float


class Usage:
    """CPU seconds and memory of a process, from the kernel."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def cpu_s(self) -> float:
        """User and system seconds so far."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def mib(self, name: str) -> float:
        """``VmRSS`` (now) or ``VmHWM`` (peak)."""
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


class Worker:
    """A running worker of the benchmarks."""

    def __init__(self, child: Child, url: str) -> None:
        self.url = url
        self.usage = Usage(child.process.pid)
        self._child = child

    def stats(self) -> dict[str, Any]:
        """Its statistics; raises when it has ended, or is too busy to answer for `BUSY_S`."""
        return self._patiently(lambda: http_json(f"{self.url}/stats", timeout_s=60))

    def metrics(self) -> dict[str, float]:
        """Every sample of its metrics by name and labels; raises as `stats`."""
        lines = self._patiently(lambda: http_text(f"{self.url}/metrics", timeout_s=60)).splitlines()
        samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def _patiently(self, ask: Callable[[], T]) -> T:
        deadline = time.monotonic() + BUSY_S
        while True:
            self._child.check()
            try:
                return ask()
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL_S)


@contextmanager
def worker(kafka: KafkaSettings, folder: Path, **settings: str) -> Iterator[Worker]:
    """Start a worker that has seen nothing, in a group and with a state folder of its own."""
    name = f"bench-{uuid4().hex[:8]}"
    port = free_port()
    environ = {
        "REELFLOW_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "REELFLOW_KAFKA_PREFIX": kafka.prefix,
        "REELFLOW_KAFKA_PARTITIONS": str(kafka.partitions),
        "REELFLOW_WORKER_PORT": str(port),
        "REELFLOW_WORKER_GROUP_ID": name,
        "REELFLOW_WORKER_MODEL_NAME": name,
        "REELFLOW_RANKER_EVALUATE_RATIO": "0",
        "REELFLOW_LEARNER_EMBEDDINGS": "false",
        **settings,
    }
    if "state_dir" in WorkerSettings.__struct_fields__:
        environ["REELFLOW_WORKER_STATE_DIR"] = str(folder / name)
    with Child("worker", ["worker"], log=folder / f"{name}.log", environ=environ) as child:
        child.wait_ready(f"http://127.0.0.1:{port}/health/live", START_S)
        yield Worker(child, f"http://127.0.0.1:{port}")


def first_events(running: Worker) -> dict[str, Any]:
    """Statistics once something has been learned."""
    deadline = time.monotonic() + STALLED_S
    while not (stats := running.stats())["events_learned"]:
        if time.monotonic() > deadline:
            raise SystemExit(f"the worker learned nothing in {STALLED_S:g} s")
        time.sleep(POLL_S)
    return stats


def drain(kafka: KafkaSettings, folder: Path, n_events: int, seconds: float, **settings: str) -> Drained:
    """Learn the topic from its beginning until it is done or the window is over.

    Where lists exist already a worker is quiet until it has caught up, so it finds none.
    """
    empty_recommendations(kafka)
    with worker(kafka, folder, **settings) as running:
        stats = first_events(running)
        first, first_s, first_cpu_s = stats, time.monotonic(), running.usage.cpu_s()
        while stats["events_learned"] < n_events and time.monotonic() - first_s < seconds:
            time.sleep(POLL_S)
            stats = running.stats()
        took_s = time.monotonic() - first_s
        cpu_s = running.usage.cpu_s() - first_cpu_s
        peak_mib = running.usage.mib("VmHWM")
        metrics = running.metrics()
    events = stats["events_learned"] - first["events_learned"]
    applied = metrics['reelflow_events_total{outcome="applied"}']
    return Drained(
        events_per_s=events / took_s,
        snapshots_per_s=(stats["snapshots"] - first["snapshots"]) / took_s,
        cpu_s=cpu_s,
        events=events,
        peak_mib=peak_mib,
        stages_us={
            name.split('"')[1]: value / applied * 1e6
            for name, value in metrics.items()
            if name.startswith("reelflow_stage_seconds_total{")
        },
        stepped_ratio=metrics["reelflow_stepped_events_total"] / applied,
        taught_ratio=metrics["reelflow_taught_events_total"] / applied,
        rank_us=metrics['reelflow_stage_seconds_total{stage="rank"}'] / max(stats["snapshots"], 1) * 1e6,
    )


def paced(
    kafka: KafkaSettings, folder: Path, *, rate: float, seconds: float, users: int, items: int, seed: int
) -> Latencies:
    """Latencies at a steady rate on empty topics, measured after `RAMP_S` seconds of it."""
    create_topics(kafka)
    command = [sys.executable, "-m", "benchmarks.load", "--bootstrap", kafka.bootstrap]
    command += ["--prefix", kafka.prefix, "--partitions", str(kafka.partitions)]
    command += ["--users", str(users), "--items", str(items), "--seed", str(seed)]
    command += ["--rate", str(rate), "--seconds", str(seconds + RAMP_S + 1.0)]
    with worker(kafka, folder) as running:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as producer:
            try:
                first_events(running)
                time.sleep(RAMP_S)
                before, cpu_s = running.metrics(), running.usage.cpu_s()
                time.sleep(seconds)
                after, cpu_s = running.metrics(), running.usage.cpu_s() - cpu_s
                output, _ = producer.communicate(timeout=seconds + STALLED_S)
            finally:
                producer.kill()
        sent = json.loads(output.splitlines()[-1])
    buckets = buckets_of("reelflow_event_to_snapshot_seconds", before, after)
    held_back = buckets_of("reelflow_event_to_snapshot_held_back_seconds", before, after)
    return Latencies(
        rate=sent["events"] / sent["seconds"],
        p50_s=quantile(buckets, 0.5),
        p95_s=quantile(buckets, 0.95),
        p99_s=quantile(buckets, 0.99),
        held_back_p99_s=quantile(held_back, 0.99),
        interval_s=after["reelflow_refresh_interval_seconds"],
        snapshots=int(buckets[float("inf")]),
        cpu_s=cpu_s,
    )


def buckets_of(name: str, before: dict[str, float], after: dict[str, float]) -> dict[float, float]:
    """What a histogram counted between two looks: cumulative counts by upper bound."""
    return {
        float(series.split('"')[1]): value - before.get(series, 0.0)
        for series, value in after.items()
        if series.startswith(f"{name}_bucket{{")
    }


def quantile(buckets: dict[float, float], q: float) -> float:
    """Quantile of a histogram with cumulative `buckets` by upper bound, linear within a bucket.

    >>> quantile({1.0: 50.0, 2.0: 100.0, float("inf"): 100.0}, 0.75)
    1.5
    """
    bounds = sorted(buckets)
    wanted = q * buckets[bounds[-1]]
    low, below = 0.0, 0.0
    for bound in bounds[:-1]:
        if buckets[bound] >= wanted > below:
            return low + (bound - low) * (wanted - below) / (buckets[bound] - below)
        low, below = bound, buckets[bound]
    return low


def empty_recommendations(kafka: KafkaSettings) -> None:
    """Delete the recommendations topic and create it anew."""
    topic = topic_names(kafka.prefix).recommendations
    with AdminClient(**kafka_python_config(kafka)) as admin:
        described = admin.describe_topics([topic])
        if described and described[0]["error_code"] == 0:
            admin.delete_topics([topic])
            deadline = time.monotonic() + FRESH_TOPIC_S
            while admin.describe_topics([topic])[0]["error_code"] == 0:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{topic} is still there {FRESH_TOPIC_S:g} s after its deletion")
                time.sleep(POLL_S)
    create_topics(kafka)
    if has_records(kafka, topic):
        raise SystemExit(f"{topic} was created anew and has records")
