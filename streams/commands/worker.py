"""`reelflow worker`."""

from __future__ import annotations

import click

from ..context import collect_later, settings_from
from ..logs import configure_logging


@click.command
@click.option("--bootstrap", help="Brokers, host:port (kafka.bootstrap).")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port for metrics, health and questions (worker.port)."
)
@click.option(
    "--take-over", is_flag=True, help="Become the writer although another process seems to be alive."
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.pass_context
def command(
    ctx: click.Context, bootstrap: str | None, port: int | None, take_over: bool, log_level: str
) -> None:
    """Learn from events and publish recommendations, until SIGTERM or Ctrl-C.

    Exits 0 after a signal, and non-zero with the cause in its log after anything else.
    """
    settings = settings_from(ctx, kafka={"bootstrap": bootstrap}, worker={"port": port})
    configure_logging(log_level)
    collect_later()
    from ..worker import run_worker  # torch, numba and Faust load here, after mistakes in settings

    run_worker(settings, take_over=take_over)
