"""`reelflow refold`."""

from __future__ import annotations

import click
import msgspec

from ..context import settings_from


@click.command
@click.option("--digest", "with_digest", is_flag=True, help="Print digests of what the log folds to.")
@click.pass_context
def command(ctx: click.Context, with_digest: bool) -> None:
    """Fold the whole log anew, in a scratch process, and print what it gives.

    Partitions are folded one after the other. User state does not depend on that order, so its
    digests are those of any worker that has read as far; the model's depends on it (`reelflow
    audit` folds in the journal's order). Nothing is written anywhere.
    """
    settings = settings_from(ctx)
    from ..refold import refold_log

    digests = refold_log(settings, with_digest=with_digest)
    click.echo(msgspec.json.format(msgspec.json.encode(digests)).decode())
