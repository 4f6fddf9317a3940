"""`reelflow schemas`: the contracts, printed, written to files, and checked against messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

import click
from msgspec import Struct

from schemas.asyncapi import asyncapi_document
from schemas.checks import ERASURES, EVENTS, ITEMS
from schemas.codec import SNAPSHOTS
from schemas.content import CONTENTS, TAGS
from schemas.errors import ContractError
from schemas.jsonschema import KINDS, all_schemas, json_schema, pretty

from ..context import settings_from

_DECODERS: dict[str, Callable[[bytes], Struct]] = {
    "event": EVENTS.decode,
    "item": ITEMS.decode,
    "erasure": ERASURES.decode,
    "snapshot": SNAPSHOTS.decode,
    "item-content": CONTENTS.decode,
    "item-tags": TAGS.decode,
}


@click.group
def command() -> None:
    """Print JSON Schemas and the AsyncAPI document."""


@command.command(name="print")
@click.argument("name", required=False, type=click.Choice(KINDS))
def print_(name: str | None) -> None:
    """Print one JSON Schema, or all as one object by name."""
    click.echo(pretty(all_schemas() if name is None else json_schema(name)), nl=False)


@command.command
@click.pass_context
def asyncapi(ctx: click.Context) -> None:
    """Print the AsyncAPI document for the configured prefix, partitions and brokers."""
    settings = settings_from(ctx)
    kafka, model = settings.kafka, settings.worker.model_name
    document = asyncapi_document(kafka.prefix, kafka.partitions, kafka.replication, kafka.bootstrap, model)
    click.echo(pretty(document), nl=False)


@command.command
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def write(directory: Path) -> None:
    """Write <kind>.schema.json and asyncapi.json (with default settings) into DIRECTORY."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in contract_files().items():
        (directory / name).write_text(text, encoding="utf-8")
        click.echo(directory / name)


@command.command
@click.argument("kind", type=click.Choice(tuple(_DECODERS)))
@click.argument("file", type=click.File("rb"))
def validate(kind: str, file: IO[bytes]) -> None:
    """Check FILE (JSON lines, or - for standard input) as the worker would.

    Prints one line for each message that would go to the dead letters, and exits 1 if there are
    any. Record keys are not looked at.
    """
    n_messages = n_broken = 0
    for number, line in _messages(file):
        n_messages += 1
        try:
            _DECODERS[kind](line)
        except ContractError as error:
            n_broken += 1
            click.echo(f"{file.name}:{number}: {error.reason}: {error}")
    if n_broken:
        raise ContractError(f"{n_broken} of {n_messages} messages break the contract", reason="bad_value")
    click.echo(f"{n_messages} messages keep the contract", err=True)


def contract_files() -> dict[str, str]:
    """Text of every generated file by name; docs/contracts holds the same."""
    files = {f"{kind}.schema.json": pretty(schema) for kind, schema in all_schemas().items()}
    return files | {"asyncapi.json": pretty(asyncapi_document())}


def _messages(lines: Iterable[bytes]) -> Iterable[tuple[int, bytes]]:
    """Lines that are not blank, numbered from 1, without their ends."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line.rstrip(b"\r\n")
