"""Memory of a worker over a long run: its peak up to 5 million events, and whether it grows at the end.

One worker on the path of `make bench-stream` learns one topic of 20 million events over 200 000 users
and 50 000 items, and publishes. Prints resident memory by time, and one JSON object on the last line:
`peak_mib` up to `at_events`, `half_mib` and `end_mib` (medians of the fifth of the samples after the
middle and of the last fifth), `growth_ratio` between them, and `ok`: the peak within `--limit-mib` and
the growth within `--growth`. Exit code 1 when not. Every partition's deduplication window fills first, and a
window of a million events in each of 16 partitions is not full before 32 million: hence 4 partitions.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct

from schemas.settings import KafkaSettings
from streams.broker import LocalBroker
from streams.topics import create_topics

from .load import Events, fill
from .worker_run import Worker, worker

SAMPLE_S = 0.5
PRINT_EVERY = 10
STALLED_S = 120.0


class Sample(Struct, frozen=True):
    """Memory of the worker at one time."""

    seconds: float
    events: int
    rss_mib: float
    peak_mib: float


def watch(running: Worker, n_events: int) -> list[Sample]:
    """Samples until `n_events` were learned; prints some of them.

    Raises
    ------
    SystemExit
        Nothing was learned for `STALLED_S` seconds.
    """
    samples: list[Sample] = []
    started = progressed = time.monotonic()
    while not samples or samples[-1].events < n_events:
        learned = running.stats()["events_learned"]
        now = time.monotonic()
        if not samples or learned > samples[-1].events:
            progressed = now
        if now - progressed > STALLED_S:
            raise SystemExit(f"nothing was learned for {STALLED_S:g} s")
        samples.append(Sample(now - started, learned, running.usage.mib("VmRSS"), running.usage.mib("VmHWM")))
        if len(samples) % PRINT_EVERY == 1:
            last = samples[-1]
            print(f"{last.seconds:7.1f} s {last.events:>12,} events {last.rss_mib:8,.0f} MiB", flush=True)
        time.sleep(SAMPLE_S)
    return samples


def judged(
    samples: list[Sample], n_events: int, at_events: int, limit_mib: float, growth: float
) -> dict[str, Any]:
    """The JSON object of the last line.

    >>> flat = [Sample(float(i), i, 100.0, 110.0) for i in range(101)]
    >>> found = judged(flat, 100, 25, 200.0, 0.02)
    >>> found["peak_mib"], found["growth_ratio"], found["ok"]
    (110, 0.0, True)
    """
    peak = max(s.peak_mib for s in samples if s is samples[0] or s.events <= at_events)
    half = median(s.rss_mib for s in samples if 0.5 * n_events <= s.events <= 0.7 * n_events)
    end = median(s.rss_mib for s in samples if s.events >= 0.8 * n_events)
    grown = end / half - 1.0
    return {
        "peak_mib": round(peak),
        "at_events": at_events,
        "limit_mib": limit_mib,
        "events": samples[-1].events,
        "half_mib": round(half),
        "end_mib": round(end),
        "growth_ratio": round(grown, 4),
        "events_per_s": round(samples[-1].events / samples[-1].seconds) if samples[-1].seconds else 0,
        "ok": peak <= limit_mib and grown <= growth,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--at-events", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--partitions", type=int, default=4, help="each remembers worker.dedup_window events")
    parser.add_argument("--limit-mib", type=float, default=2_048.0)
    parser.add_argument("--growth", type=float, default=0.02, help="share of the memory at half")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embeddings", action="store_true")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="reelflow-memory-") as name,
        LocalBroker(Path(name) / "kafka", heap_mb=512) as broker,
    ):
        kafka = KafkaSettings(bootstrap=broker.bootstrap, prefix="memory", partitions=arguments.partitions)
        create_topics(kafka)
        took = fill(kafka, Events(arguments.users, arguments.items, arguments.seed), arguments.events)
        print(f"{arguments.events:,} events produced in {took:.0f} s", flush=True)
        embeddings = "true" if arguments.embeddings else "false"
        with worker(kafka, Path(name), REELFLOW_LEARNER_EMBEDDINGS=embeddings) as running:
            samples = watch(running, arguments.events)
    result = judged(samples, arguments.events, arguments.at_events, arguments.limit_mib, arguments.growth)
    print(json.dumps(result))
    sys.exit(not result["ok"])


if __name__ == "__main__":
    main()
