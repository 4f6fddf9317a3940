"""`make bench-stream`: the whole worker beside what other stream engines do with the same topics.

On a topic of 1 million events over 50 000 users: a plain Faust agent that only reads, the same with
take(), quix-streams and bytewax that count events a user in their state, the worker (decode, validate,
deduplicate, sessionise, learn transitions, popularity and tags from every event, checkpoint, rank,
publish snapshots), and the worker with embeddings. On a topic of 4 million events over 300 000 users
and 50 000 items: plain Faust and the worker. Each is a process of its own, they take turns on one
broker, and each has a window from its first event on. Prequential scoring is off. Then latencies from
event to snapshot at 20 000 events a second and at half of what the worker just did.

Compare by ratio; absolute figures depend on the machine. The last line printed is one JSON object, null
where something was not measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from msgspec import Struct

from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.broker import LocalBroker
from streams.topics import create_topics

from .load import Events, fill
from .worker_run import Drained, Latencies, drain, paced

BENCH_PYTHON = ".venv-bench/bin/python"
STATE_ENGINES = ("quix_state", "bytewax_state")
ENGINES = ("plain_faust", "plain_faust_take", *STATE_ENGINES, "worker", "worker_embeddings")
LARGE_ENGINES = ("plain_faust", "worker")
STEADY_RATE = 20_000.0
SLACK_S = 180.0
HEAP_MB = 512


class Run(Struct, kw_only=True):
    """One engine in one window."""

    engine: str
    events_per_s: float
    events: int
    cpu_s: float
    """CPU seconds of the process in the window, all threads."""

    peak_mib: float
    drained: Drained | None = None


class Topic(Struct, kw_only=True):
    """A full topic and how it came about."""

    kafka: KafkaSettings
    events: int
    users: int
    items: int


def run_engine(engine: str, topic: Topic, folder: Path, seconds: float, python: str) -> Run:
    """Start an engine of `benchmarks.engines`, let it read, take its figures."""
    module = "plain_faust" if engine == "plain_faust_take" else engine
    state = folder / f"{engine}-{uuid4().hex[:6]}"
    state.mkdir()
    command = [python if engine in STATE_ENGINES else sys.executable, "-m", f"benchmarks.engines.{module}"]
    command += ["--bootstrap", topic.kafka.bootstrap, "--topic", topic_names(topic.kafka.prefix).behaviour]
    command += ["--partitions", str(topic.kafka.partitions), "--group", state.name, "--folder", str(state)]
    command += ["--events", str(topic.events), "--seconds", str(seconds)]
    command += ["--take"] if engine == "plain_faust_take" else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + SLACK_S, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("{")), None)
    if line is None:
        raise SystemExit(f"{engine} printed no result:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found = json.loads(line)
    return Run(
        engine=engine,
        events_per_s=found["events"] / found["seconds"],
        events=found["events"],
        cpu_s=found["cpu_s"],
        peak_mib=found["peak_mib"],
    )


def run_worker(engine: str, topic: Topic, folder: Path, seconds: float) -> Run:
    """The worker on `topic`, with embeddings when the engine's name says so."""
    embeddings = "true" if engine == "worker_embeddings" else "false"
    drained = drain(topic.kafka, folder, topic.events, seconds, REELFLOW_LEARNER_EMBEDDINGS=embeddings)
    return Run(
        engine=engine,
        events_per_s=drained.events_per_s,
        events=drained.events,
        cpu_s=drained.cpu_s,
        peak_mib=drained.peak_mib,
        drained=drained,
    )


def compare(
    topic: Topic, engines: Sequence[str], folder: Path, *, rounds: int, seconds: float, python: str
) -> dict[str, list[Run]]:
    """Let the engines take turns, `rounds` times; prints a line for each."""
    runs: dict[str, list[Run]] = {engine: [] for engine in engines}
    for round_ in range(1, rounds + 1):
        for engine in engines:
            if engine.startswith("worker"):
                run = run_worker(engine, topic, folder, seconds)
            else:
                run = run_engine(engine, topic, folder, seconds, python)
            runs[engine].append(run)
            print(f"round {round_}  {row(run)}", flush=True)
    return runs


def row(run: Run) -> str:
    """One run as a line of the table."""
    line = (
        f"{run.engine:<18}{run.events_per_s:>10,.0f} events/s{run.cpu_s:>8.1f} CPU s"
        f"{run.cpu_s / max(1, run.events) * 1e6:>8.2f} us/event{run.peak_mib:>8,.0f} MiB"
    )
    if run.drained is None:
        return line
    line += f"{run.drained.snapshots_per_s:>9,.0f} snapshots/s"
    if run.engine == "worker_embeddings":
        line += f", {run.drained.stepped_ratio:.1%} of events in encoder steps"
        line += f", {run.drained.taught_ratio:.1%} in the gate's"
    return line


def rate(runs: dict[str, list[Run]], engine: str) -> int | None:
    """Median events/s of an engine."""
    return round(median(run.events_per_s for run in runs[engine])) if runs.get(engine) else None


def ratio(runs: dict[str, list[Run]], engine: str, other: str) -> float | None:
    """Median over the rounds of one engine's rate by the other's of the same round."""
    if not runs.get(engine) or not runs.get(other):
        return None
    pairs = zip(runs[engine], runs[other], strict=True)
    return round(median(one.events_per_s / two.events_per_s for one, two in pairs), 2)


def snapshots(runs: dict[str, list[Run]]) -> int | None:
    """Median snapshots/s of the worker."""
    found = [run.drained.snapshots_per_s for run in runs.get("worker", []) if run.drained is not None]
    return round(median(found)) if found else None


def share(runs: dict[str, list[Run]], name: str) -> float | None:
    """Least share of events, over the rounds, of the worker with embeddings."""
    found = [
        getattr(run.drained, name) for run in runs.get("worker_embeddings", []) if run.drained is not None
    ]
    return round(min(found), 4) if found else None


def print_profile(name: str, runs: dict[str, list[Run]]) -> None:
    """Microseconds an event by stage, of the worker's last run."""
    for run in [*runs.get("worker", [])[-1:], *runs.get("worker_embeddings", [])[-1:]]:
        if run.drained is not None:
            stages = sorted(run.drained.stages_us.items(), key=lambda pair: -pair[1])
            print(
                f"learner thread, us an event ({name}): "
                + ", ".join(f"{s} {us:.2f}" for s, us in stages)
                + f"; ranking a user {run.drained.rank_us:.0f} us"
            )


def print_latency(name: str, found: Latencies) -> None:
    print(
        f"{name:<18}{found.rate:>10,.0f} events/s  p50 {found.p50_s:.3f} s  p95 {found.p95_s:.3f} s  "
        f"p99 {found.p99_s:.3f} s  ({found.snapshots:,} snapshots, {found.cpu_s:.1f} CPU s; "
        f"refreshed every {found.interval_s:.1f} s, held back p99 {found.held_back_p99_s:.2f} s)",
        flush=True,
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--large-events", type=int, default=4_000_000, help="0 leaves the large topic out")
    parser.add_argument("--large-users", type=int, default=300_000)
    parser.add_argument("--large-items", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="window of each measurement")
    parser.add_argument("--latency-seconds", type=float, default=15.0, help="0 leaves latencies out")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--engines",
        default=",".join(ENGINES),
        help="some of %(default)s; plain_faust and worker are also those of the large topic",
    )
    parser.add_argument(
        "--bench-python",
        default=BENCH_PYTHON,
        help="has quix-streams and bytewax; without it they are left out",
    )
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    engines = [engine for engine in ENGINES if engine in arguments.engines.split(",")]
    if not Path(arguments.bench_python).exists():
        engines = [engine for engine in engines if engine not in STATE_ENGINES]
        print(f"no {arguments.bench_python}: quix-streams and bytewax are left out", flush=True)
    options: dict[str, Any] = {
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "python": arguments.bench_python,
    }
    large: dict[str, list[Run]] = {}
    steady = half = None
    with (
        tempfile.TemporaryDirectory(prefix="reelflow-bench-") as name,
        LocalBroker(Path(name) / "kafka", heap_mb=HEAP_MB) as broker,
    ):
        folder = Path(name)

        def settings(prefix: str) -> KafkaSettings:
            return KafkaSettings(bootstrap=broker.bootstrap, prefix=prefix, partitions=arguments.partitions)

        def filled(prefix: str, events: int, users: int, items: int) -> Topic:
            kafka = settings(prefix)
            create_topics(kafka)
            took = fill(kafka, Events(users, items, arguments.seed), events)
            print(
                f"{events:,} events, {users:,} users, {items:,} items: produced in {took:.1f} s", flush=True
            )
            return Topic(kafka=kafka, events=events, users=users, items=items)

        topic = filled("bench", arguments.events, arguments.users, arguments.items)
        runs = compare(topic, engines, folder, **options)
        print_profile(f"{arguments.users:,} users", runs)
        if arguments.large_events:
            topic = filled("large", arguments.large_events, arguments.large_users, arguments.large_items)
            large = compare(topic, [e for e in LARGE_ENGINES if e in engines], folder, **options)
            print_profile(f"{arguments.large_users:,} users", large)
        if arguments.latency_seconds and runs.get("worker"):
            rates = {"steady": STEADY_RATE, "half": (rate(runs, "worker") or 0) / 2}
            found = {
                what: paced(
                    settings(what),
                    folder,
                    rate=wanted,
                    seconds=arguments.latency_seconds,
                    users=arguments.users,
                    items=arguments.items,
                    seed=arguments.seed + 1,
                )
                for what, wanted in rates.items()
            }
            steady, half = found["steady"], found["half"]
            print_latency("20 000 events/s", steady)
            print_latency("half capacity", half)
    best = max(STATE_ENGINES, key=lambda engine: rate(runs, engine) or 0)
    workers = [run for engine in ("worker",) for run in runs.get(engine, [])]
    result = {
        **{engine: rate(runs, engine) for engine in ENGINES},
        "worker_over_plain": ratio(runs, "worker", "plain_faust"),
        "worker_embeddings_over_plain": ratio(runs, "worker_embeddings", "plain_faust"),
        "worker_embeddings_stepped": share(runs, "stepped_ratio"),
        "worker_embeddings_taught": share(runs, "taught_ratio"),
        "worker_over_best_engine": ratio(runs, "worker", best),
        "snapshots_per_s": snapshots(runs),
        "p50_s_20k": None if steady is None else round(steady.p50_s, 4),
        "p99_s_20k": None if steady is None else round(steady.p99_s, 4),
        "p99_s_half": None if half is None else round(half.p99_s, 4),
        "peak_mib": round(max(run.peak_mib for run in workers)) if workers else None,
        "worker_over_plain_300k": ratio(large, "worker", "plain_faust"),
        "snapshots_per_s_300k": snapshots(large),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
