"""What the commands `replay` and `simulate` share: options, signals, progress bar, report."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec

from .pacing import Pacing
from .producer import ReplayProgress, ReplayReport


class _Time(click.ParamType):
    """ISO 8601; UTC where it names no offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not an ISO 8601 time such as 2022-04-25T12:00", param, ctx)
        return time if time.tzinfo else time.replace(tzinfo=UTC)


TIME: Final = _Time()


def to_ms(time: datetime | None) -> int | None:
    """Milliseconds since 1970."""
    return None if time is None else round(time.timestamp() * 1000)


def pacing_from(rate: float | None, speed: float | None, as_fast: bool) -> Pacing:
    """Pacing of the three options that exclude each other.

    Raises
    ------
    click.UsageError
        More than one is given.
    ConfigurationError
        The number is not positive.
    """
    if sum((rate is not None, speed is not None, as_fast)) > 1:
        raise click.UsageError("--rate, --speed and --as-fast exclude each other")
    if rate is not None:
        return Pacing.at_rate(rate)
    return Pacing.as_fast() if speed is None else Pacing.at_speed(speed)


def stop_on_signals() -> threading.Event:
    """Event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def handle(*_: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return stop


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Callable[[ReplayProgress], None] | None]:
    """Progress bar on standard error if that is a terminal, nothing otherwise."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(show_speed=True),
        TextColumn("{task.fields[clock]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, clock="")

        def show(at: ReplayProgress) -> None:
            clock = (
                "" if at.ts_ms is None else f"{datetime.fromtimestamp(at.ts_ms / 1000, UTC):%Y-%m-%d %H:%M}"
            )
            progress.update(task, completed=at.events, clock=clock)

        yield show


def exit_with(
    ctx: click.Context, report: ReplayReport, as_json: bool, *, to_stderr: bool = False, **more: Any
) -> None:
    """Print the report; exit with 1 if the broker refused a message.

    `more` are further keys of the JSON line.
    """
    line = msgspec.json.encode(msgspec.to_builtins(report) | more) if as_json else report_text(report)
    click.echo(line, err=to_stderr)
    if report.failed:
        click.echo(
            f"error: {report.failed} messages were not delivered; the first: {report.first_failure}", err=True
        )
        ctx.exit(1)


def report_text(report: ReplayReport) -> str:
    """The report for people, one line."""
    ending = "; stopped before the end" if report.stopped else ""
    return (
        f"{report.events:,} events and {report.items:,} catalogue messages delivered in "
        f"{report.wall_s:.1f} s ({report.events_per_s:,.0f} events/s){ending}"
    )
