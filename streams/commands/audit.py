"""`reelflow audit`."""

from __future__ import annotations

import sys

import click
import msgspec

from ..context import settings_from, state_folder, state_url


@click.command
@click.option("--live", metavar="URL", help="Also compare with a running worker, by its port.")
@click.option("--role", type=click.Choice(["worker", "learner"]), default="worker", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the whole report as one JSON object.")
@click.pass_context
def command(ctx: click.Context, live: str | None, role: str, as_json: bool) -> None:
    """Prove from outside that the state is the fold of the log, each event once.

    Reads the checkpoint store and the topics; changes nothing. Exits 1 when anything is wrong.
    """
    settings = settings_from(ctx)
    from ..audit import Digests, audit
    from ..checkpoint.history import History
    from ..checkpoint.store import open_store
    from ..log_reader import KafkaLogReader
    from ..processes import http_json

    told = None
    if live is not None:
        told = msgspec.convert(http_json(f"{live.rstrip('/')}/digest", timeout_s=90), Digests)
    history = History(open_store(state_url(settings)).sub(state_folder(settings, role)))
    reader = KafkaLogReader(settings.kafka)
    try:
        report = audit(history, settings, reader, told)
    finally:
        reader.close()
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    else:
        click.echo(f"folded from {report.base} to {report.upto} (sequence {report.sequence}):")
        click.echo(f"{report.n_entries} journal entries, {report.n_records} records")
        if not report.same_build:
            click.echo("the state was written by another build: bit-by-bit equality is not promised")
        for name in report.not_compared:
            click.echo(f"not compared, user state and counts are: {name}")
        for problem in report.problems:
            click.echo(f"PROBLEM: {problem}")
        click.echo("clean" if not report.problems else f"{len(report.problems)} problems")
    sys.exit(1 if report.problems else 0)
