"""`reelflow demo`."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from ..context import settings_from
from ..demo import report_json, report_text, run_demo
from ..sources import open_source


@click.command
@click.option("--duration", type=click.FloatRange(min=1), help="Seconds of events; without it, until Ctrl-C.")
@click.option(
    "--rate", type=click.FloatRange(min=1), default=500.0, show_default=True, help="Events a second."
)
@click.option("--format", "format_", default="sample", show_default=True, help="As of `reelflow replay`.")
@click.option("--input", "path", type=click.Path(path_type=Path), help="Data of another format than sample.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the page (0: any free one).")
@click.pass_context
def command(
    ctx: click.Context, duration: float | None, rate: float, format_: str, path: Path | None, port: int | None
) -> None:
    """Run the whole product on one machine and watch it: broker, worker, gateway, real events.

    The last line printed is the report as one JSON object.
    """
    settings = settings_from(ctx, gateway={"port": port})
    source = open_source(format_, path)
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    console = Console(stderr=True)
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def show(stats: dict[str, Any]) -> None:
            live.update(_table(stats))

        report = run_demo(
            settings,
            source,
            config=ctx.find_root().params.get("config"),
            rate=rate,
            duration_s=duration,
            say=console.print,
            show=show,
            stop=stop,
        )
    click.echo(report_text(report))
    click.echo(report_json(report))


def _table(stats: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False)
    p50, p99 = stats["event_to_snapshot_p50_s"], stats["event_to_snapshot_p99_s"]
    rates = {name: "-" if rate is None else f"{rate:.2%}" for name, rate in stats["hit_rate_10"].items()}
    rows = {
        "events/s": f"{stats['events_per_s']:,.0f}",
        "events learned": f"{stats['events_learned']:,}",
        "users with a snapshot": f"{stats['users_with_snapshot']:,}",
        "event to snapshot p50 / p99": "-" if p50 is None else f"{p50 * 1000:.0f} / {p99 * 1000:.0f} ms",
        "hit rate@10 reelflow / popularity / Markov": " / ".join(
            rates[name] for name in ("reelflow", "popularity", "markov")
        ),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
