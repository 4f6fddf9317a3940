"""`reelflow simulate`: a believable platform's events, to a file or to the topics."""

from __future__ import annotations

import gzip
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import click

from ..context import settings_from
from ..sources import ReplayReport, Source, replay, select
from ..sources.native import native_line
from ..sources.options import TIME, exit_with, pacing_from, progress_bar, stop_on_signals, to_ms
from ..sources.sim_config import START_MS, SimulatorConfig
from ..sources.simulator import Simulator

LIVE_STEP_MS = 5_000
_DEFAULTS = SimulatorConfig()


class _Start(click.ParamType):
    """ISO 8601, or now."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value == "now":
            return int(time.time() * 1000)
        at: datetime = TIME.convert(value, param, ctx)
        return to_ms(at) or 0


@click.command
@click.option("--users", type=int, default=_DEFAULTS.users, show_default=True)
@click.option("--items", type=int, default=_DEFAULTS.items, show_default=True, help="Alive at any time.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same bytes (not live).")
@click.option("--events", type=click.IntRange(min=1), help="Number of events.")
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds: with --rate so many seconds of that rate, otherwise of event time.",
)
@click.option("--output", help="File of JSON lines (.gz packs), or - for standard output; the default.")
@click.option("--to-kafka", is_flag=True, help="Send to the topics instead.")
@click.option("--rate", type=float, help="Kafka: events a second; without it as fast as possible.")
@click.option("--speed", type=float, help="Kafka: seconds of event time a second; 1 is real time.")
@click.option("--feedback", type=click.Choice(["none", "live"]), default="none", show_default=True)
@click.option("--start", type=_Start(), default=START_MS, help="First event time, ISO 8601 or now.")
@click.option("--duplicates", type=float, default=_DEFAULTS.duplicates, show_default=True)
@click.option("--late", type=float, default=_DEFAULTS.late, show_default=True)
@click.option("--late-by", type=float, default=_DEFAULTS.late_by_s, show_default=True, help="Mean, seconds.")
@click.option("--sessions-per-day", type=float, default=_DEFAULTS.sessions_per_day, show_default=True)
@click.option("--drift", type=float, default=_DEFAULTS.drift, show_default=True, help="Share of sessions.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON line.")
@click.option("--bootstrap", help="Kafka bootstrap servers.")
@click.pass_context
def command(  # noqa: PLR0913, RUF100  (one parameter an option)
    ctx: click.Context,
    users: int,
    items: int,
    seed: int,
    events: int | None,
    duration: float | None,
    output: str | None,
    to_kafka: bool,
    rate: float | None,
    speed: float | None,
    feedback: str,
    start: int,
    duplicates: float,
    late: float,
    late_by: float,
    sessions_per_day: float,
    drift: float,
    as_json: bool,
    bootstrap: str | None,
) -> None:
    """Generate the events of a platform that does not exist, with its catalogue.

    Users have tastes that drift, come in sessions on five surfaces, watch, like, skip and leave;
    items are born and die. Event time starts at 2026-01-01 and runs by itself, however fast the
    events are sent. With --feedback live users are shown what the recommendations topic says.
    """
    live = feedback == "live"
    _check(output=output, to_kafka=to_kafka, live=live, paced=rate is not None or speed is not None)
    config = SimulatorConfig(
        users=users,
        items=items,
        seed=seed,
        start_ms=start,
        duplicates=duplicates,
        late=late,
        late_by_s=late_by,
        sessions_per_day=sessions_per_day,
        drift=drift,
        step_ms=LIVE_STEP_MS if live else None,
    ).checked()
    pacing = pacing_from(rate, speed, as_fast=False)
    duration_ms = None
    if duration is not None and rate is not None:
        events = min(events or sys.maxsize, max(1, round(rate * duration)))
    elif duration is not None:
        duration_ms = max(1, round(1000 * duration))
    stop = stop_on_signals()
    if not to_kafka:
        if output not in {None, "-"} and events is None and duration_ms is None:
            raise click.UsageError("a file needs --events or --duration")
        source = Simulator(config, duration_ms=duration_ms)
        report = write_lines(select(source, limit=events), output or "-", stop)
        _finish(ctx, source, report, as_json, to_stderr=output in {None, "-"})
        return
    from ..sources.sim_lists import FollowedLists

    kafka = settings_from(ctx, kafka={"bootstrap": bootstrap}).kafka
    with FollowedLists(kafka, users) if live else nullcontext() as lists:
        source = Simulator(config, lists, duration_ms)
        with progress_bar(f"simulate {users:,} users", events) as on_progress:
            report = replay(select(source, limit=events), kafka, pacing, on_progress, stop)
    _finish(ctx, source, report, as_json, to_stderr=False)


def write_lines(source: Source, output: str, stop: threading.Event) -> ReplayReport:
    """Write a source as native JSON lines; the same source gives the same bytes, packed or not."""
    n = {"item": 0, "event": 0}
    first_ms: int | None = None
    last_ms: int | None = None
    started_s = time.monotonic()
    with _opened(output) as stream:
        for records in (source.items(), source.events()):
            for record in records:
                if stop.is_set():
                    break
                stream.write(native_line(record))
                n[record.kind] += 1
                if record.kind == "event":
                    first_ms = record.ts_ms if first_ms is None else min(first_ms, record.ts_ms)
                    last_ms = record.ts_ms if last_ms is None else max(last_ms, record.ts_ms)
    wall_s = time.monotonic() - started_s
    return ReplayReport(
        items=n["item"],
        events=n["event"],
        failed=0,
        first_failure=None,
        first_ts_ms=first_ms,
        last_ts_ms=last_ms,
        wall_s=round(wall_s, 3),
        events_per_s=round(n["event"] / max(wall_s, 1e-9), 1),
        stopped=stop.is_set(),
    )


@contextmanager
def _opened(output: str) -> Iterator[IO[bytes] | gzip.GzipFile]:
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with Path(output).open("wb") as file:
        if not output.endswith(".gz"):
            yield file
            return
        # Neither name nor time in the header, so that the same seed gives the same file.
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
            yield packed


def _check(*, output: str | None, to_kafka: bool, live: bool, paced: bool) -> None:
    if output is not None and to_kafka:
        raise click.UsageError("--output and --to-kafka exclude each other")
    if live and not to_kafka:
        raise click.UsageError("--feedback live needs --to-kafka")
    if live and not paced:
        raise click.UsageError("--feedback live needs --rate or --speed: lists take their time")


def _finish(
    ctx: click.Context, source: Simulator, report: ReplayReport, as_json: bool, *, to_stderr: bool
) -> None:
    shown = {} if source.platform is None else source.platform.shown
    views = {
        origin: {"views": part.views, "mean_interest": part.mean_interest} for origin, part in shown.items()
    }
    exit_with(ctx, report, as_json, to_stderr=to_stderr, shown=views)
