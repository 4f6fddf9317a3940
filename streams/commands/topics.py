"""`reelflow topics`: create, check and print the topics with their explicit configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import msgspec

from schemas.settings import Settings
from schemas.topics import DAY_MS, TopicSpec

from ..context import settings_from
from ..topics import check_topics, create_topics, specs_of


def _topic_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that override the [kafka] settings, and the model's name."""
    for option in (
        click.option("--model-name", help="Model whose topics are meant (worker.model_name)."),
        click.option("--replication", type=int, help="Replication factor."),
        click.option("--partitions", type=int, help="Partitions of each topic."),
        click.option("--prefix", help="First part of every topic name."),
        click.option("--bootstrap", help="Brokers, comma-separated host:port."),
    ):
        function = option(function)
    return function


def _settings(ctx: click.Context, overrides: dict[str, Any]) -> Settings:
    worker = {"model_name": overrides.pop("model_name")}
    return settings_from(ctx, kafka=overrides, worker=worker)


@click.group
def command() -> None:
    """Create, check or print the topics."""


@command.command
@_topic_options
@click.pass_context
def create(ctx: click.Context, /, **overrides: Any) -> None:
    """Create the topics that are missing; those that exist must be as asked for."""
    settings = _settings(ctx, overrides)
    kafka = settings.kafka
    created = create_topics(kafka, model=settings.worker.model_name)
    for name in created:
        click.echo(f"created {name}")
    if not created:
        click.echo(f"all topics of {kafka.prefix} exist as they should")


@command.command
@_topic_options
@click.pass_context
def check(ctx: click.Context, /, **overrides: Any) -> None:
    """Name every difference between the topics and what they should be; exit code 1 when there is one."""
    settings = _settings(ctx, overrides)
    kafka = settings.kafka
    differences = check_topics(kafka, model=settings.worker.model_name)
    for difference in differences:
        click.echo(difference)
    if not differences:
        click.echo(f"all topics of {kafka.prefix} are as they should be")
    ctx.exit(1 if differences else 0)


@command.command(name="print")
@_topic_options
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_context
def print_(ctx: click.Context, /, as_json: bool, **overrides: Any) -> None:
    """Print the topics as `create` would make them; asks no broker."""
    settings = _settings(ctx, overrides)
    kafka = settings.kafka
    specs = specs_of(kafka, settings.worker.model_name)
    if as_json:
        rows = [msgspec.to_builtins(spec) | {"replication": kafka.replication} for spec in specs]
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
        return
    for spec in specs:
        click.echo(_described(spec, kafka.replication))


def _described(spec: TopicSpec, replication: int) -> str:
    lines = [
        f"{spec.name}",
        f"  {spec.what}",
        f"  key {spec.key}, partitions {spec.partitions}, replication {replication}",
    ]
    lines += [f"  {name} = {value}{_in_days(name, value)}" for name, value in sorted(spec.configs.items())]
    return "\n".join(lines) + "\n"


def _in_days(name: str, value: str) -> str:
    return f" ({int(value) / DAY_MS:g} days)" if name == "retention.ms" else ""
