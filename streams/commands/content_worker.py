"""`reelflow content-worker`."""

from __future__ import annotations

import click

from ..context import collect_rarely, settings_from
from ..logs import configure_logging


@click.command
@click.option("--bootstrap", help="Brokers, host:port (kafka.bootstrap).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port for metrics and health (worker.port).")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.pass_context
def command(ctx: click.Context, bootstrap: str | None, port: int | None, log_level: str) -> None:
    """Read titles, covers, sounds and videos of the catalogue, and publish vectors and tags.

    Needs the extra: pip install 'reelflow[content]'. Runs until SIGTERM or Ctrl-C. Exits 0 after a signal,
    and non-zero with the cause in its log after anything else.
    """
    settings = settings_from(ctx, kafka={"bootstrap": bootstrap}, worker={"port": port})
    configure_logging(log_level)
    collect_rarely()
    from ..content_worker import run_content_worker  # torch, models and Faust load here

    run_content_worker(settings)
