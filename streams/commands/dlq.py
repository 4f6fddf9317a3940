"""`reelflow dlq`: what could not be used, why, and sending it again."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from typing import Any

import click
import msgspec

from schemas.deadletters import HEADER_FIELD, HEADER_MESSAGE, REASONS
from schemas.errors import ContractError, UnavailableError
from schemas.settings import KafkaSettings

from ..context import settings_from
from ..dlq import INPUTS, DeadLetters, Group, Identity, Letter, Selection, grouped, identity_of
from ..dlq_resend import Resender, ResendReport, chosen, verdict
from ..sources.options import TIME, to_ms

SHOWN_BYTES = 4_096


class _Identity(click.ParamType):
    """Input, partition and offset of an original."""

    name = "identity"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Identity:
        if isinstance(value, Identity):
            return value
        try:
            return identity_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that choose letters."""
    for option in (
        click.option("--bootstrap", help="Kafka bootstrap servers."),
        click.option("--json", "as_json", is_flag=True, help="JSON instead of text."),
        click.option("--until", type=TIME, help="Written before this time, ISO 8601."),
        click.option("--since", type=TIME, help="Written at this time or later."),
        click.option("--offset", type=click.IntRange(min=0), help="Offset of the original."),
        click.option("--partition", type=click.IntRange(min=0), help="Partition of the original."),
        click.option("--reason", "reasons", multiple=True, type=click.Choice(REASONS)),
        click.option("--input", "inputs", multiple=True, type=click.Choice(INPUTS), help="Default: all."),
    ):
        function = option(function)
    return function


def _selection(options: dict[str, Any]) -> Selection:
    if options["offset"] is not None and options["partition"] is None:
        raise click.UsageError("--offset needs --partition")
    return Selection(
        reasons=options["reasons"],
        partition=options["partition"],
        offset=options["offset"],
        since_ms=to_ms(options["since"]),
        until_ms=to_ms(options["until"]),
    )


def _opened(ctx: click.Context, options: dict[str, Any]) -> tuple[KafkaSettings, DeadLetters]:
    kafka = settings_from(ctx, kafka={"bootstrap": options["bootstrap"]}).kafka
    return kafka, DeadLetters(kafka, options["inputs"] or INPUTS)


@click.group
def command() -> None:
    """Look at dead letters, and send them again.

    A letter is named by where its original is, like behaviour/3/18735: the input, its partition, its
    offset. A letter that was written twice counts once.
    """


@command.command(name="list")
@_options
@click.option("--hourly", is_flag=True, help="A line an hour.")
@click.option("--letters", "each", is_flag=True, help="A line a letter.")
@click.option("--limit", type=click.IntRange(min=1), help="Most lines with --letters.")
@click.pass_context
def list_(ctx: click.Context, /, hourly: bool, each: bool, limit: int | None, **options: Any) -> None:
    """Count letters by input and reason, or list them one by one."""
    selection = _selection(options)
    _, letters = _opened(ctx, options)
    with letters:
        if each:
            _list_each(letters, selection, limit, as_json=options["as_json"])
            return
        groups = grouped(letters.letters(), selection, hourly=hourly)
    if options["as_json"]:
        _print_json(groups)
        return
    for group in groups:
        click.echo(_group_line(group))
    if not groups:
        click.echo("no dead letters")


def _list_each(letters: DeadLetters, selection: Selection, limit: int | None, *, as_json: bool) -> None:
    seen: set[Identity] = set()
    for letter in letters.letters():
        if letter.resent_ms is not None or letter.identity in seen or not selection.takes(letter):
            continue
        if len(seen) == limit:
            return
        seen.add(letter.identity)
        if as_json:
            click.echo(msgspec.json.encode(_facts(letter)))
        else:
            message = letter.headers.get(HEADER_MESSAGE, "")
            click.echo(f"{letter.identity!s:<24} {_when(letter.written_ms)}  {letter.reason:<16} {message}")


@command.command
@click.argument("identity", type=_Identity())
@click.option("--raw", is_flag=True, help="The original bytes and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--bootstrap", help="Kafka bootstrap servers.")
@click.pass_context
def show(ctx: click.Context, identity: Identity, raw: bool, as_json: bool, bootstrap: str | None) -> None:
    """Show one letter: headers, original bytes, and what the contract says of them today."""
    _, letters = _opened(ctx, {"bootstrap": bootstrap, "inputs": (identity.input,)})
    found: Letter | None = None
    resent_ms: int | None = None
    with letters:
        for letter in letters.letters():
            if letter.identity == identity:
                if letter.resent_ms is None:
                    found = letter
                else:
                    resent_ms = letter.resent_ms
    if found is None:
        raise UnavailableError(f"there is no dead letter {identity} (any more)")
    if raw:
        if found.value is None:
            raise UnavailableError(f"dead letter {identity} has no value")
        sys.stdout.buffer.write(found.value)
        return
    error = verdict(found)
    if as_json:
        facts = _facts(found) | {
            "key": None if found.key is None else found.key.decode("utf-8", "backslashreplace"),
            "value": None if found.value is None else found.value.decode("utf-8", "backslashreplace"),
            "resent_ms": resent_ms,
            "passes_now": error is None,
            "verdict": None if error is None else f"{error.reason}: {error}",
        }
        _print_json(facts)
        return
    click.echo(f"{identity}  written {_when(found.written_ms)}")
    if resent_ms is not None:
        click.echo(f"sent again {_when(resent_ms)}")
    for name, value in found.headers.items():
        click.echo(f"  {name}: {value}")
    click.echo(f"key:   {_shown(found.key)}")
    click.echo(f"value: {_shown(found.value)}")
    click.echo(f"today: {_words(error)}")


@command.command
@_options
@click.option("--all", "everything", is_flag=True, help="Needed where nothing else selects.")
@click.option("--limit", type=click.IntRange(min=1), help="Send at most this many.")
@click.option("--dry-run", is_flag=True, help="Send nothing; say what would be sent, and whether it passes.")
@click.option("--again", is_flag=True, help="Also letters that were sent again before.")
@click.option("--broken", is_flag=True, help="Also letters that break the contract today.")
@click.pass_context
def resend(  # noqa: PLR0913, RUF100  (one parameter an option)
    ctx: click.Context,
    /,
    everything: bool,
    limit: int | None,
    dry_run: bool,
    again: bool,
    broken: bool,
    **options: Any,
) -> None:
    """Send original bytes again, under their key, to the topic they came from.

    Left out are letters without a value, those sent again before, and those that break the contract
    today. Whether an event is late, in the future or a duplicate is for the worker to say.
    """
    selection = _selection(options)
    if selection == Selection() and not options["inputs"] and not everything and not dry_run:
        raise click.UsageError("choose letters, or say --all")
    report = ResendReport(by_reason={}, dry_run=dry_run)

    def tell(letter: Letter, error: ContractError | None) -> None:
        click.echo(f"{letter.identity!s:<24} {letter.reason:<16} {_words(error)}")

    kafka, letters = _opened(ctx, options)
    with letters:
        found = chosen(
            letters,
            selection,
            report,
            limit=limit,
            again=again,
            broken=broken,
            tell=tell if dry_run and not options["as_json"] else None,
        )
        if dry_run:
            report.sent = sum(1 for _ in found)
        else:
            for n in Resender(kafka).send(found):
                report.sent += n
    click.echo(msgspec.json.encode(report) if options["as_json"] else _report_line(report))


def _group_line(group: Group) -> str:
    counts = f"{group.letters} letters"
    if group.records > group.letters:
        counts += f" ({group.records} records)"
    if group.resent:
        counts += f", {group.resent} sent again"
    if group.without_value:
        counts += f", {group.without_value} without value"
    span = f"{_when(group.first_ms)} to {_when(group.last_ms)}"
    return f"{group.input:<10} {group.reason:<20} {span}  {counts}"


def _report_line(report: ResendReport) -> str:
    verb = "would be sent" if report.dry_run else "sent again and acknowledged"
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(report.by_reason.items()))
    left_out = [
        f"{n} {what}"
        for n, what in (
            (report.without_value, "without value"),
            (report.resent_before, "sent again before"),
            (report.broken, "broken today"),
        )
        if n
    ]
    line = f"{report.selected} selected, {report.sent} {verb}" + (f" ({reasons})" if reasons else "")
    return line + (f"; left out: {', '.join(left_out)}" if left_out else "")


def _facts(letter: Letter) -> dict[str, Any]:
    return {
        "identity": str(letter.identity),
        "reason": letter.reason,
        "field": letter.headers.get(HEADER_FIELD, ""),
        "message": letter.headers.get(HEADER_MESSAGE, ""),
        "written_ms": letter.written_ms,
        "bytes": None if letter.value is None else len(letter.value),
        "headers": letter.headers,
    }


def _words(error: ContractError | None) -> str:
    return "passes" if error is None else f"{error.reason}: {error}"


def _shown(data: bytes | None) -> str:
    if data is None:
        return "(none)"
    more = f" ... ({len(data)} bytes; --raw has all)" if len(data) > SHOWN_BYTES else ""
    return data[:SHOWN_BYTES].decode("utf-8", "backslashreplace") + more


def _when(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat(" ", "seconds")


def _print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
