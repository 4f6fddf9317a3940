"""`reelflow replay`: a data set to the topics."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import click

from ..context import settings_from
from ..sources import FORMATS, Pacing, Source, open_source, replay, select
from ..sources.options import TIME, exit_with, pacing_from, progress_bar, stop_on_signals, to_ms
from ..sources.selection import span_ms


@click.command
@click.option("--format", "format_", type=click.Choice(FORMATS), default="sample", show_default=True)
@click.option("--input", "path", type=click.Path(path_type=Path), help="Folder of the data set, or its file.")
@click.option("--catalogue", type=click.Path(path_type=Path), help="native: another file, of items.")
@click.option("--pass-invalid", is_flag=True, help="native: send broken lines too, for dead letters.")
@click.option("--history", is_flag=True, help="kuairand: the watch lists before the log first.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="kuairand: of the times given to them.")
@click.option("--rate", type=float, help="Events a second.")
@click.option("--speed", type=float, help="Seconds of event time a second; 1 is real time.")
@click.option("--as-fast", is_flag=True, help="As fast as the broker takes them; the default.")
@click.option("--since", type=TIME, help="First event time, ISO 8601 (UTC without an offset).")
@click.option("--until", type=TIME, help="Event time to stop before, ISO 8601.")
@click.option("--limit", type=click.IntRange(min=1), help="Number of events.")
@click.option(
    "--rebase-time/--original-time",
    help="Move the times so that the last event happens now (with --speed up to 1: the first).",
)
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON line.")
@click.option("--bootstrap", help="Kafka bootstrap servers.")
@click.pass_context
def command(  # noqa: PLR0913, RUF100  (one parameter an option)
    ctx: click.Context,
    format_: str,
    path: Path | None,
    catalogue: Path | None,
    pass_invalid: bool,
    history: bool,
    seed: int,
    rate: float | None,
    speed: float | None,
    as_fast: bool,
    since: datetime | None,
    until: datetime | None,
    limit: int | None,
    rebase_time: bool,
    as_json: bool,
    bootstrap: str | None,
) -> None:
    """Stream a data set to the topics: its catalogue first, then its events in time order.

    Ctrl-C ends it early: what was sent is flushed and reported. Exits with 1 when the broker did
    not take every message.
    """
    kafka = settings_from(ctx, kafka={"bootstrap": bootstrap}).kafka
    pacing = pacing_from(rate, speed, as_fast)
    source = open_source(
        format_, path, history=history, seed=seed, catalogue=catalogue, pass_invalid=pass_invalid
    )
    source = select(source, since_ms=to_ms(since), until_ms=to_ms(until), limit=limit)
    if rebase_time:
        source = rebased(source, pacing, now_ms=int(time.time() * 1000))
    stop = stop_on_signals()
    with progress_bar(f"replay {source.name}", source.n_events) as on_progress:
        report = replay(source, kafka, pacing, on_progress, stop)
    exit_with(ctx, report, as_json)


def rebased(source: Source, pacing: Pacing, now_ms: int) -> Source:
    """Times moved so that no event lies in the future when it is sent.

    In real time or slower the first event happens now; otherwise event time outruns the clock, so
    the last one does.
    """
    first_ms, last_ms = span_ms(source)
    slow = pacing.speed is not None and pacing.speed <= 1
    return select(source, shift_ms=now_ms - (first_ms if slow else last_ms))
