"""Options that several commands have."""

from __future__ import annotations

import click

limit_option = click.option("--limit", type=click.IntRange(min=1), help="Number of events.")
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="learner.NAME=VALUE",
    help="What reelflow learns with, by the names of docs/settings.md; may be repeated.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Report as one JSON line.")
