"""`reelflow demo`: broker, topics, worker, gateway and real events, then a report.

Every process is a child that ends with this one; the broker's data lies in a temporary folder.
"""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from learners.evaluation import STREAM_METRICS
from schemas.errors import UnavailableError
from schemas.settings import Settings

from .broker import LocalBroker
from .processes import Child, http_json
from .sources import Pacing, Source, replay, select
from .sources.selection import span_ms
from .topics import create_topics

CONTENDERS: Final = {
    "reelflow": "reelflow",
    "popularity": "popularity",
    "markov": "first-order Markov",
}
READY_TIMEOUT_S = 300.0  # the first start compiles
DRAIN_TIMEOUT_S = 60.0


class DemoReport(Struct, frozen=True, kw_only=True):
    """The last line of `reelflow demo`; rates are fractions, times seconds."""

    events_in: int
    events_learned: int
    duplicates: int
    dead_letters: dict[str, int]
    users_with_snapshot: int
    snapshots: int
    event_to_snapshot_p50_s: float | None
    event_to_snapshot_p99_s: float | None
    event_to_snapshot_held_back_p99_s: float | None
    events_scored: int
    quality: dict[str, dict[str, float | None]]
    """By contender and metric, over all events scored."""
    hit_rate_10: float | None
    hit_rate_10_popularity: float | None
    hit_rate_10_markov: float | None
    wall_s: float


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_demo(
    settings: Settings,
    source: Source,
    *,
    config: Path | None,
    rate: float,
    duration_s: float | None,
    say: Callable[[str], None],
    show: Callable[[dict[str, Any]], None],
    stop: threading.Event,
) -> DemoReport:
    """Run until `duration_s` is over or `stop` is set; returns the report.

    Parameters
    ----------
    config : Path or None
        The settings file, for the children.
    say : Callable[[str], None]
        Takes one line about what happens.
    show : Callable[[dict], None]
        Takes the worker's statistics about once a second.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reelflow-demo-")))
        say("starting Apache Kafka (the first time, its jars are fetched from Maven Central)")
        broker = stack.enter_context(LocalBroker(folder / "kafka"))
        kafka = msgspec.structs.replace(settings.kafka, bootstrap=broker.bootstrap, replication=1)
        create_topics(kafka)
        worker_url = f"http://{settings.worker.host}:{settings.worker.port or free_port()}"
        gateway_url = f"http://{settings.gateway.host}:{settings.gateway.port or free_port()}"
        environ = {
            "REELFLOW_WORKER_STATE_DIR": str(folder / "state"),
            "REELFLOW_KAFKA_BOOTSTRAP": kafka.bootstrap,
            "REELFLOW_WORKER_PORT": worker_url.rsplit(":", 1)[1],
            "REELFLOW_GATEWAY_PORT": gateway_url.rsplit(":", 1)[1],
            "REELFLOW_GATEWAY_WORKER_URL": worker_url,
        }
        if config is not None:
            environ["REELFLOW_CONFIG"] = str(config.resolve())
        say("starting the worker (the first time, its kernels are compiled: up to a minute)")
        worker = stack.enter_context(Child("worker", ["worker"], log=folder / "worker.log", environ=environ))
        gateway = stack.enter_context(
            Child("gateway", ["gateway"], log=folder / "gateway.log", environ=environ)
        )
        worker.wait_ready(f"{worker_url}/health/ready", READY_TIMEOUT_S)
        gateway.wait_ready(f"{gateway_url}/health/ready", READY_TIMEOUT_S)
        say(f"ready: open {gateway_url}/ to watch it live")
        feeder = _Feeder(_ending_now(source), kafka, rate)
        feeder.start()
        try:
            _watch(
                feeder, (worker, gateway), worker_url, duration_s=duration_s, show=show, say=say, stop=stop
            )
        finally:
            feeder.stop()
        stats = _drained(feeder.events, worker, worker_url)
        wall_s = time.monotonic() - started
    return _report(_dealt_with(stats), stats, wall_s)


def _ending_now(source: Source) -> Source:
    """The source with its times moved so that its last event is of now.

    Someone who tries the page or posts an event of this moment must not make the rest of the
    sample late.
    """
    _, last_ms = span_ms(source)
    return select(source, shift_ms=int(time.time() * 1000) - last_ms)


class _Feeder:
    """Replays the source on a thread of its own."""

    def __init__(self, source: Source, kafka: Any, rate: float) -> None:
        self.events = 0
        self.error: BaseException | None = None
        self._halt = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(source, kafka, rate), name="replay", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> None:
        self._halt.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self, source: Source, kafka: Any, rate: float) -> None:
        try:
            report = replay(source, kafka, Pacing.at_rate(rate), stop=self._halt)
            self.events = report.events
        except BaseException as error:  # noqa: BLE001 - handed to the main thread by stop()
            self.error = error


def _watch(
    feeder: _Feeder,
    children: tuple[Child, ...],
    worker_url: str,
    *,
    duration_s: float | None,
    show: Callable[[dict[str, Any]], None],
    say: Callable[[str], None],
    stop: threading.Event,
) -> None:
    deadline = None if duration_s is None else time.monotonic() + duration_s
    told = False
    while not stop.wait(1.0 if deadline is None else max(0.0, min(1.0, deadline - time.monotonic()))):
        for child in children:
            child.check()
        if feeder.error is not None:
            return
        with suppress(UnavailableError):  # busy; the next second will do
            show(http_json(f"{worker_url}/stats"))
        if feeder.done and not told:
            told = True
            say(
                "all events are in; the page stays live until Ctrl-C"
                if deadline is None
                else "all events are in"
            )
        if deadline is not None and time.monotonic() >= deadline:
            return


def _drained(events_in: int, worker: Child, worker_url: str) -> dict[str, Any]:
    """Statistics once everything sent has been dealt with and every touched user has a list."""
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while True:
        worker.check()
        try:
            stats = http_json(f"{worker_url}/stats")
        except UnavailableError as error:
            state = str(error)
        else:
            if _dealt_with(stats) >= events_in and not stats["pending_snapshots"]:
                return stats
            state = f"{_dealt_with(stats)} events dealt with, {stats['pending_snapshots']} lists owed"
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"{events_in} events were sent, and {DRAIN_TIMEOUT_S:.0f} s later the worker says: {state}"
            )
        time.sleep(0.1)


def _dealt_with(stats: dict[str, Any]) -> int:
    """Events that the worker read; more than were replayed when someone posted some of their own."""
    return int(stats["events_learned"] + stats["duplicates"] + sum(stats["dead_letters"].values()))


def _report(events_in: int, stats: dict[str, Any], wall_s: float) -> DemoReport:
    rates = stats["hit_rate_10"]
    return DemoReport(
        events_in=events_in,
        events_learned=stats["events_learned"],
        duplicates=stats["duplicates"],
        dead_letters=stats["dead_letters"],
        users_with_snapshot=stats["users_with_snapshot"],
        snapshots=stats["snapshots"],
        event_to_snapshot_p50_s=stats["event_to_snapshot_p50_s"],
        event_to_snapshot_p99_s=stats["event_to_snapshot_p99_s"],
        event_to_snapshot_held_back_p99_s=stats["event_to_snapshot_held_back_p99_s"],
        events_scored=stats["n_scored"],
        quality=stats["quality"],
        hit_rate_10=rates["reelflow"],
        hit_rate_10_popularity=rates["popularity"],
        hit_rate_10_markov=rates["markov"],
        wall_s=round(wall_s, 2),
    )


def report_text(report: DemoReport) -> str:
    """The report for people."""

    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value * 1000:.0f} ms"

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{value:.2%}"

    letters = ", ".join(f"{reason} {n}" for reason, n in sorted(report.dead_letters.items())) or "none"
    rows = [
        ("events in", f"{report.events_in:,}"),
        ("events learned", f"{report.events_learned:,}"),
        ("duplicates", f"{report.duplicates:,}"),
        ("dead letters", letters),
        ("users with a snapshot", f"{report.users_with_snapshot:,}"),
        ("snapshots published", f"{report.snapshots:,}"),
        (
            "event to snapshot, p50 / p99",
            f"{seconds(report.event_to_snapshot_p50_s)} / {seconds(report.event_to_snapshot_p99_s)}",
        ),
        ("  users held back by the interval, p99", seconds(report.event_to_snapshot_held_back_p99_s)),
        (f"next watched item (n = {report.events_scored:,})", "recall@20 / hit rate@10 / nDCG@10 / MRR@20"),
        *(
            (f"  {title}", " / ".join(percent(report.quality[name][metric]) for metric in STREAM_METRICS))
            for name, title in CONTENDERS.items()
        ),
        ("wall time", f"{report.wall_s:.1f} s"),
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows)


def report_json(report: DemoReport) -> str:
    """The report for programs, one line."""
    return json.dumps(msgspec.to_builtins(report))
