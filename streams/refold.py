"""The whole log folded anew by a scratch core, partition after partition."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.runs import RecordRun
from schemas.settings import Settings

from .audit import digests_of, scratch_core
from .checkpoint.journal import JournalEntry, JournalRun
from .log_reader import KafkaLogReader, Place

AT_ONCE = 16_384


def refold_log(settings: Settings, *, with_digest: bool) -> dict[str, Any]:
    """Fold catalogue, what was made of it where that is learned, and behaviour from their beginnings on.

    Raises
    ------
    UnavailableError
        No broker answers.
    """
    core = scratch_core(settings)
    reader = KafkaLogReader(settings.kafka)
    try:
        bounds: dict[Place, tuple[int, int]] = {}
        for topic in (*core.held.shelved, core.names.behaviour):
            for partition in range(settings.kafka.partitions):
                bounds[topic, partition] = reader.begins(topic, partition), reader.ends(topic, partition)
        reader.start({place: first for place, (first, end) in bounds.items() if first < end})
        sequence = 0
        for (topic, partition), (first, end) in bounds.items():
            for start in range(first, end, AT_ONCE):
                sequence += 1
                next_offset = min(start + AT_ONCE, end)
                run: RecordRun = reader.read(topic, partition, start, next_offset)
                noted = JournalRun(topic=topic, partition=partition, first=start, next=next_offset)
                core.refold(JournalEntry(sequence=sequence, runs=[noted]), [run])
    finally:
        reader.close()
    counts = core.held.counts()
    result: dict[str, Any] = {
        "applied": counts.applied,
        "duplicates": counts.duplicates,
        "dead_letters": counts.dead,
        "users": sum(len(part.state.users) for part in core.partitions.values()),
        "items": len(core.model.items),
    }
    return result | ({"digests": msgspec.to_builtins(digests_of(core))} if with_digest else {})
