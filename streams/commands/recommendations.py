"""`reelflow recommendations USER`: one user's list as the topic has it now."""

from __future__ import annotations

import time

import click
import msgspec

from schemas.errors import UnavailableError
from schemas.records import Reason, Snapshot
from schemas.topics import topic_names

from ..context import kafka_python_config, settings_from

_WORDS = {
    "because_you_watched": "because you watched {item}",
    "similar_to": "similar to {item}",
    "popular": "popular now",
    "matches_your_taste": "matches your taste",
    "new": "new",
    "explore": "something different",
}


@click.command
@click.argument("user")
@click.option("--json", "as_json", is_flag=True, help="Print the snapshot as JSON.")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=30.0, show_default=True, help="Seconds.")
@click.option("--bootstrap", help="Kafka bootstrap servers.")
@click.pass_context
def command(ctx: click.Context, user: str, as_json: bool, timeout: float, bootstrap: str | None) -> None:
    """Print the current list of USER, read from the recommendations topic."""
    from serving.reader_scan import read_latest

    kafka = settings_from(ctx, kafka={"bootstrap": bootstrap}).kafka
    topic = topic_names(kafka.prefix).recommendations
    snapshot = read_latest(kafka_python_config(kafka), topic, user, timeout)
    if snapshot is None:
        raise UnavailableError(f"{topic} has no list of user {user} (yet, or no longer)")
    if as_json:
        click.echo(msgspec.json.encode(snapshot))
    else:
        click.echo(describe(snapshot, time.time_ns() // 1_000_000))


def describe(snapshot: Snapshot, now_ms: int) -> str:
    """A list for people to read: a receipt, then a line an item."""
    age_s = max(0, now_ms - snapshot.generated_at_ms) / 1000
    stale = " (stale)" if age_s * 1000 > snapshot.ttl_ms else ""
    receipt = (
        f"{snapshot.snapshot_id}  {age_s:.1f} s old{stale}, knows event {snapshot.knows.event_id} "
        f"(partition {snapshot.knows.partition}, offset {snapshot.knows.offset}), "
        f"model {snapshot.model.name}, fallback {snapshot.fallback}"
    )
    lines = [receipt]
    for rank, item in enumerate(snapshot.items, 1):
        reasons = ", ".join(_words(reason) for reason in item.reasons)
        lines.append(f"{rank:4}  {item.item_id:<24} {item.score:6.3f}  {item.source:<12} {reasons}".rstrip())
    return "\n".join(lines)


def _words(reason: Reason) -> str:
    words = _WORDS[reason.kind].format(item=reason.item_id or "something")
    return words if reason.viewers is None else f"{words} ({reason.viewers} viewers)"
