"""The `reelflow` command: a group whose subcommands are imported when they are used."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from pathlib import Path

import click
import structlog

from schemas.errors import ReelflowError

from .device import spare_cores

COMMANDS = {
    "audit": "prove that the state is the fold of the log, each event once",
    "broker": "run a local Apache Kafka broker",
    "checkpoint": "list, inspect, verify and restore stored state",
    "config": "print the resolved settings",
    "content-worker": "read what items are: vectors and tags of titles, covers, sounds and videos",
    "demo": "broker, topics, worker, gateway and real events, all at once",
    "dlq": "look at dead letters, send them again",
    "evaluate": "measure how well learners rank what comes next",
    "evaluate-content": "measure how well new items are found by what they are",
    "gateway": "serve recommendations and accept events over HTTP",
    "learner": "learn a model from events and publish it for rankers",
    "ranker": "publish recommendations with a learner's model",
    "recommendations": "print a user's current list",
    "refold": "fold the whole log anew and print its digests",
    "replay": "stream a data set to the topics",
    "schemas": "print JSON Schemas and the AsyncAPI document",
    "simulate": "generate a believable platform's events",
    "tail": "follow the recommendations topic",
    "topics": "create, check or print the topics",
    "worker": "learn from events and publish recommendations",
}


class LazyGroup(click.Group):
    """Imports ``streams.commands.<name>`` on use, so that ``--help`` does not load torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, without importing them."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command when it is asked for."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"streams.commands.{cmd_name.replace('-', '_')}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"streams.commands.{cmd_name}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table above; click would import each for its help."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file with settings (or REELFLOW_CONFIG).",
)
@click.version_option(version("reelflow"), prog_name="reelflow")
def cli(config: Path | None) -> None:
    """Streaming recommender for audio and video."""


def main() -> None:
    """Entry point: logs go to stderr; a ReelflowError becomes one line there and exit code 1."""
    spare_cores()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        cli()
    except ReelflowError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
