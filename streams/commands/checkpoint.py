"""`reelflow checkpoint`: look at stored state, verify it, go back to an older one."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import click
import msgspec

from schemas.errors import StateError

from ..checkpoint.history import (
    History,
    manifest_names,
    read_checkpoint,
    read_manifest,
    split_name,
)
from ..checkpoint.owners import Owner, holder_of
from ..checkpoint.restore import restore as restore_checkpoint
from ..checkpoint.store import Store, open_store
from ..context import settings_from, state_folder, state_url

MIB = 2**20


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that choose a state."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON value."),
        click.option(
            "--state", metavar="FOLDER", help="State within the store; default <prefix>/<role>/<model>."
        ),
        click.option("--role", type=click.Choice(["worker", "learner"]), default="worker", show_default=True),
        click.option("--store", "url", metavar="URL", help="Folder or URL of the store (worker.state_dir)."),
    ):
        function = option(function)
    return function


def _store(
    ctx: click.Context, url: str | None, role: str, state: str | None, *, write: bool = False
) -> Store:
    settings = settings_from(ctx, worker={"state_dir": url})
    store = open_store(state_url(settings), probe=write)
    return store.sub((state or state_folder(settings, role)).strip("/"))


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _when(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat(" ", "seconds")


@click.group
def command() -> None:
    """Look at checkpoints and journals of a worker or learner, verify them, go back to an older one.

    All but `restore` only read, and may run beside the writer.
    """


@command.command(name="list")
@_options
@click.pass_context
def list_(ctx: click.Context, url: str | None, role: str, state: str | None, as_json: bool) -> None:
    """Print the checkpoints, oldest first, and who writes them."""
    store = _store(ctx, url, role, state)
    current, problem = _current(store)
    rows = [_row(store, name, current) for name in manifest_names(store)]
    holder = holder_of(store, time.time())
    if as_json:
        _print_json({"checkpoints": rows, "writer": holder, "problem": problem})
        return
    for row in rows:
        size = "damaged" if row["problem"] else f"{row['n_bytes'] / MIB:.1f} MiB"
        when = "" if row["problem"] else f"  {_when(row['written_at_ms'])}"
        click.echo(f"{row['name']}  {size}{when}{'' if row['current'] else '  (not in the history)'}")
    if not rows:
        click.echo("no checkpoints")
    if problem is not None:
        click.echo(f"problem: {problem}")
    if holder is not None:
        seen = "ended" if holder.released else f"last seen {holder.age_s:.1f} s ago"
        click.echo(f"epoch {holder.epoch}: {holder.owner or 'unknown writer'}, {seen}")


def _current(store: Store) -> tuple[set[str], str | None]:
    """Checkpoints of the history, and why it cannot be read, if so."""
    try:
        return set(History(store).names()), None
    except StateError as error:
        return set(), str(error)


def _row(store: Store, name: str, current: set[str]) -> dict[str, Any]:
    epoch, sequence = split_name(name)
    row: dict[str, Any] = {"name": name, "epoch": epoch, "sequence": sequence, "current": name in current}
    try:
        manifest = read_manifest(store, name)
    except StateError as error:
        return row | {"n_bytes": None, "written_at_ms": None, "problem": str(error)}
    n_bytes = sum(info.n_bytes for info in manifest.units.values())
    return row | {"n_bytes": n_bytes, "written_at_ms": manifest.written_at_ms, "problem": None}


@command.command
@_options
@click.argument("name", required=False)
@click.pass_context
def inspect(
    ctx: click.Context, url: str | None, role: str, state: str | None, as_json: bool, name: str | None
) -> None:
    """Print what one checkpoint holds: its meta, and the arrays of each unit; the newest by default."""
    store = _store(ctx, url, role, state)
    checkpoint = read_checkpoint(store, name or _newest(store))
    units = {
        unit: {array: {"dtype": str(values.dtype), "shape": values.shape} for array, values in arrays.items()}
        for unit, arrays in checkpoint.units.items()
    }
    if as_json:
        _print_json({"name": checkpoint.name, "meta": checkpoint.meta, "units": units})
        return
    click.echo(f"{checkpoint.name}  {checkpoint.n_bytes / MIB:.1f} MiB  {_when(checkpoint.written_at_ms)}")
    click.echo(msgspec.json.format(msgspec.json.encode(checkpoint.meta), indent=2).decode())
    for unit, arrays in units.items():
        click.echo(unit)
        for array, described in arrays.items():
            click.echo(f"  {array}  {described['dtype']}{list(described['shape'])}")


def _newest(store: Store) -> str:
    names = History(store).names()
    if not names:
        raise StateError("there is no checkpoint")
    return names[-1]


@command.command
@_options
@click.argument("name", required=False)
@click.pass_context
def verify(
    ctx: click.Context, url: str | None, role: str, state: str | None, as_json: bool, name: str | None
) -> None:
    """Read one checkpoint, or all of them and the journal after the oldest, and check every byte.

    Exits 1 when anything is damaged or missing.
    """
    store = _store(ctx, url, role, state)
    rows = [_verified(store, checked) for checked in ([name] if name else manifest_names(store))]
    if not name:
        rows.append(_verified_journal(store))
    if as_json:
        _print_json(rows)
    else:
        for row in rows:
            click.echo(f"{row['name']}  {row['problem'] or 'intact'}")
    ctx.exit(1 if any(row["problem"] for row in rows) else 0)


def _verified(store: Store, name: str) -> dict[str, Any]:
    try:
        read_checkpoint(store, name)
    except StateError as error:
        return {"name": name, "problem": str(error)}
    return {"name": name, "problem": None}


def _verified_journal(store: Store) -> dict[str, Any]:
    """Read the journal after the oldest checkpoint, or all of it where it goes back to the beginning."""
    last, problem = 0, None
    try:
        history = History(store)
        names = history.names()
        last = 0 if history.from_the_beginning() or not names else split_name(names[0])[1]
        for entry in history.entries(after=last):
            last = entry.sequence
    except StateError as error:
        problem = str(error)
    return {"name": f"journal up to entry {last}", "problem": problem}


@command.command
@_options
@click.argument("name")
@click.pass_context
def restore(
    ctx: click.Context, url: str | None, role: str, state: str | None, as_json: bool, name: str
) -> None:
    """Make an older checkpoint what the next start goes on from; refuses while a writer lives.

    Begins an epoch of its own that names the checkpoint. Newer checkpoints and the journal after it are no
    part of the history any more, and go when the next checkpoint is written. The next start reads the log
    again from the checkpoint's positions: events that retention has removed since are lost.
    """
    store = _store(ctx, url, role, state, write=True)
    owner = Owner.here("reelflow checkpoint restore")
    restored = restore_checkpoint(store, name, owner=owner, now_s=time.time)
    if as_json:
        _print_json(restored)
        return
    click.echo(f"epoch {restored.epoch} goes on from {name}, sequence {restored.sequence}")
    click.echo(
        f"dropped: {len(restored.checkpoints)} newer checkpoints, {restored.n_entries} journal entries over"
        f" {restored.n_offsets} offsets, which are read from the log again"
    )
    if restored.problem:
        click.echo(f"note: {restored.problem}")
