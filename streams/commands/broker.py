"""`reelflow broker`: a local Apache Kafka broker, in the background or in the foreground."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from ..broker import LocalBroker
from ..context import home_dir

DEFAULT_PORT = 9092  # where clients look by default, see KafkaSettings.bootstrap


def _data_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        help="Data folder [default: broker in the cache folder, see REELFLOW_HOME].",
    )(function)


def _folder(data: Path | None) -> Path:
    return data if data is not None else home_dir() / "broker"


@click.group
def command() -> None:
    """Run a local Apache Kafka broker: one node, on loopback only."""


@command.command
@_data_option
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port on 127.0.0.1; 0 picks a free one.",
)
@click.option(
    "--heap",
    "heap_mb",
    type=click.IntRange(min=128),
    default=256,
    show_default=True,
    help="Largest Java heap, MiB.",
)
@click.option("--foreground", is_flag=True, help="Stay until Ctrl-C, then stop the broker.")
def start(data: Path | None, port: int, heap_mb: int, foreground: bool) -> None:
    """Start the broker; returns when it answers. The first time, its jars are fetched."""
    broker = LocalBroker(_folder(data), port=port, heap_mb=heap_mb, detached=not foreground)
    if foreground:
        _stay(broker)
        return
    broker.start()
    click.echo(f"broker ready at {broker.bootstrap} (data in {broker.folder.path})")


@command.command
@_data_option
def stop(data: Path | None) -> None:
    """Stop the broker; returns when its process is gone. Its data stays."""
    LocalBroker(_folder(data)).stop()
    click.echo("broker stopped")


@command.command
@_data_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def status(ctx: click.Context, data: Path | None, as_json: bool) -> None:
    """Tell whether the broker runs and answers; exit code 1 when it does not run."""
    found = LocalBroker(_folder(data)).status()
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        state = ("ready" if found.ready else "running, not ready") if found.running else "not running"
        click.echo(f"broker {state}")
        for name, value in msgspec.to_builtins(found).items():
            if name not in {"running", "ready"} and value is not None:
                click.echo(f"  {name:<11} {value}")
    ctx.exit(0 if found.running else 1)


@command.command
@_data_option
def clean(data: Path | None) -> None:
    """Stop the broker if it runs, and delete its data folder."""
    folder = _folder(data)
    removed = LocalBroker(folder).clean()
    click.echo(f"removed {folder}" if removed else f"nothing to remove in {folder}")


def _stay(broker: LocalBroker) -> None:
    """Run until a signal asks to end.

    Raises
    ------
    BrokerError
        When the broker dies by itself.
    """
    ended = threading.Event()
    with broker:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        click.echo(f"broker ready at {broker.bootstrap}; Ctrl-C stops it")
        while not ended.wait(0.2):
            broker.check()
    click.echo("broker stopped")
