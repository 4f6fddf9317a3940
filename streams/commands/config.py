"""`reelflow config`: print the resolved settings."""

from __future__ import annotations

import click
import msgspec

from ..context import settings_from


@click.command
@click.pass_context
def command(ctx: click.Context) -> None:
    """Print the resolved settings as JSON; secrets are masked."""
    settings = msgspec.to_builtins(settings_from(ctx))
    for name in ("sasl_password",):
        if settings["kafka"][name] is not None:
            settings["kafka"][name] = "***"
    click.echo(msgspec.json.format(msgspec.json.encode(settings), indent=2).decode())
