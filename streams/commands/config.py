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
    if settings["kafka"]["sasl_password"] is not None:
        settings["kafka"]["sasl_password"] = "***"  # noqa: S105 - a mask, not a password
    click.echo(msgspec.json.format(msgspec.json.encode(settings), indent=2).decode())
