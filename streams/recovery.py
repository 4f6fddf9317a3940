"""State made again: the newest checkpoint, then the journalled tail in the journal's order.

What an entry names is read again from the broker, or stands in the entry by value. Offsets that
retention has removed meanwhile are counted as lost; the rest of the entry is folded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import structlog
from msgspec import Struct

from schemas.runs import RecordRun
from schemas.settings import KafkaSettings

from .checkpoint.epochs import Tenure
from .checkpoint.journal import JournalEntry, JournalRun
from .core import WorkerCore
from .cut import restore
from .log_reader import KafkaLogReader, LogReader, Place

log = structlog.get_logger(__name__)

TELL_EVERY_S = 1.0


class Recovered(Struct, kw_only=True):
    """What a recovery did."""

    sequence: int  # of the newest entry folded
    n_entries: int
    n_events: int
    n_lost: int
    seconds: float


def recover(core: WorkerCore, tenure: Tenure, kafka: KafkaSettings) -> Recovered:
    """Bring an empty core to where the last writer's journal ends. Blocks; not for the event loop.

    Raises
    ------
    StateError
        The state does not fit the settings, or the log is not the one it was made from.
    UnavailableError
        The broker does not answer.
    """
    started = time.monotonic()
    base = tenure.base
    if base is not None:
        restore(core, base.sequence, base.meta, base.units)
        base.units.clear()  # the tenure stays for as long as the process
        log.info("checkpoint_loaded", name=base.name, sequence=base.sequence)
    entries = list(tenure.tail())
    reader = KafkaLogReader(kafka)
    reader.start(starts_of(entries))

    def tell(done: int) -> None:
        log.info("refolding", entries=done, of=len(entries))

    try:
        n_events, n_lost = refold(core, entries, reader, tell)
    finally:
        reader.close()
    for part in core.partitions.values():
        part.first_offset = part.end_at_start = part.next_offset
    return Recovered(
        sequence=core.sequence,
        n_entries=len(entries),
        n_events=n_events,
        n_lost=n_lost,
        seconds=time.monotonic() - started,
    )


def refold(
    core: WorkerCore,
    entries: Iterable[JournalEntry],
    reader: LogReader,
    tell: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Fold journalled entries again; returns how many records were folded, and how many were lost."""
    n_events = n_lost = 0
    next_tell_s = time.monotonic() + TELL_EVERY_S
    for done, entry in enumerate(entries):
        runs = []
        for noted in entry.runs:
            run = run_of(noted, reader)
            if noted.keys is None:
                n_lost += max(0, min(reader.begins(noted.topic, noted.partition), noted.next) - noted.first)
            n_events += len(run)
            runs.append(run)
        core.refold(entry, runs)
        if tell is not None and time.monotonic() >= next_tell_s:
            next_tell_s = time.monotonic() + TELL_EVERY_S
            tell(done)
    return n_events, n_lost


def run_of(noted: JournalRun, reader: LogReader) -> RecordRun:
    """The records that a journalled range names."""
    if noted.keys is None or noted.values is None:
        return reader.read(noted.topic, noted.partition, noted.first, noted.next)
    return RecordRun(
        topic=noted.topic,
        partition=noted.partition,
        keys=noted.keys,
        values=noted.values,
        offsets=np.array(noted.offsets, dtype=np.int64),
        timestamps_ms=np.array(noted.timestamps, dtype=np.int64),
        next_offset=noted.next,
    )


def starts_of(entries: Iterable[JournalEntry]) -> dict[Place, int]:
    """First offset that the entries name of each partition that has to be read again."""
    starts: dict[Place, int] = {}
    for noted in ranges_of(entries):
        if noted.keys is None:
            starts.setdefault((noted.topic, noted.partition), noted.first)
    return starts


def ranges_of(entries: Iterable[JournalEntry]) -> Iterator[JournalRun]:
    """All ranges, in the journal's order."""
    for entry in entries:
        yield from entry.runs
