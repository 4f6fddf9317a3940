"""`reelflow ranker`."""

from __future__ import annotations

import click

from ..context import collect_later, settings_from
from ..logs import configure_logging


@click.command
@click.option("--bootstrap", help="Brokers, host:port (kafka.bootstrap).")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port for metrics, health and questions (worker.port)."
)
@click.option("--follow-model", help="Model to make lists with (ranker.follow_model).")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.pass_context
def command(
    ctx: click.Context, bootstrap: str | None, port: int | None, follow_model: str | None, log_level: str
) -> None:
    """Publish recommendations with a model that a learner publishes, until SIGTERM or Ctrl-C.

    Exits 0 after a signal, and non-zero with the cause in its log after anything else.
    """
    settings = settings_from(
        ctx,
        kafka={"bootstrap": bootstrap},
        worker={"port": port},
        ranker={"follow_model": follow_model},
    )
    configure_logging(log_level)
    collect_later()
    from ..ranker import run_ranker  # torch, numba and Faust load here, after mistakes in settings

    run_ranker(settings)
