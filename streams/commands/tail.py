"""`reelflow tail`: snapshots as they are published."""

from __future__ import annotations

import time

import click
import msgspec

from schemas.errors import UnavailableError
from schemas.records import Snapshot
from schemas.topics import topic_names

from ..context import kafka_python_config, settings_from

_QUEUE = 10_000


@click.command
@click.option("--user", help="Only this user's snapshots.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after this many.")
@click.option("--timeout", type=click.FloatRange(min=0.1), help="Stop after so many seconds without one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--from-beginning", is_flag=True, help="Print what the topic holds first.")
@click.option("--bootstrap", help="Kafka bootstrap servers.")
@click.pass_context
def command(  # noqa: PLR0913, RUF100  (one parameter an option)
    ctx: click.Context,
    user: str | None,
    limit: int | None,
    timeout: float | None,
    as_json: bool,
    from_beginning: bool,
    bootstrap: str | None,
) -> None:
    """Follow the recommendations topic until Ctrl-C, the limit or the timeout."""
    from serving.reader import RecommendationsReader

    kafka = settings_from(ctx, kafka={"bootstrap": bootstrap}).kafka
    topic = topic_names(kafka.prefix).recommendations
    reader = RecommendationsReader(
        kafka_python_config(kafka), topic, max_users=1, from_beginning=from_beginning
    )
    printed = 0
    with reader.subscribe(user, maxsize=_QUEUE) as subscription, reader:
        try:
            reader.wait_ready(timeout or 30.0)
            if not as_json:
                click.echo(f"following {topic}; Ctrl-C stops", err=True)
            while limit is None or printed < limit:
                snapshot = subscription.get(timeout)
                if snapshot is None:
                    raise UnavailableError(f"no snapshot came in {timeout or 0:g} s")
                click.echo(msgspec.json.encode(snapshot) if as_json else line(snapshot))
                printed += 1
        except KeyboardInterrupt:
            pass
    if subscription.lost:
        click.echo(f"{subscription.lost} snapshots came faster than they could be printed", err=True)


def line(snapshot: Snapshot) -> str:
    """One snapshot on one line: when, for whom, what it knows, the first items."""
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.generated_at_ms / 1000))
    first = " ".join(item.item_id for item in snapshot.items[:5])
    more = f" +{len(snapshot.items) - 5}" if len(snapshot.items) > 5 else ""
    return (
        f"{clock}.{snapshot.generated_at_ms % 1000:03}  {snapshot.user_id:<16} "
        f"knows {snapshot.knows.event_id} @{snapshot.knows.offset}  {first}{more}"
    )
