"""Proof from outside that the state is the fold of the log, each event once.

Three things are checked, with the checkpoint store, the journal and the log alone:

1. *Once each.* Ranges of the journal follow each other without hole or overlap, from the base on.
2. *All accounted for.* What the newest checkpoint counts as applied, duplicate and dead-lettered
   since the base is the number of records that the log has in those ranges.
3. *Same state.* Folding those ranges again in the journal's order, on top of the base, gives the
   digests of the newest checkpoint (and of the live process, where it is asked), bit by bit. A
   model that was learned on another device (a GPU that is not here) is not compared, and named.

The base is the oldest kept checkpoint that the log still covers, or nothing where journal and log
go back to the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry

from schemas.errors import DamagedError, StateError
from schemas.settings import Settings
from serving.metrics import WorkerMetrics

from .checkpoint.format import Checkpoint
from .checkpoint.history import History
from .checkpoint.journal import JournalEntry
from .core import WorkerCore
from .cut import DEVICE, build, restore, settings_of_fold
from .device import use_half_the_cores
from .log_reader import LogReader, Place
from .partition import Counts
from .recovery import refold, starts_of
from .warm_up import NullSink


class Digests(Struct, kw_only=True):
    """Digests of a whole state at a sequence."""

    sequence: int
    model: str
    users: dict[str, str]  # by partition
    counts: dict[str, Any]  # by partition
    device: str = ""
    """What the model was learned on, where that is known; sums differ from one to another."""


class Report(Struct, kw_only=True):
    """What an audit found; `problems` is empty when all is well."""

    base: str
    upto: str
    sequence: int
    n_entries: int = 0
    n_records: int = 0
    same_build: bool = True
    not_compared: list[str] = msgspec.field(default_factory=list)
    """Models that were learned on something else than what is here."""

    problems: list[str] = msgspec.field(default_factory=list)
    digests: dict[str, Any] = msgspec.field(default_factory=dict)


def digests_of(core: WorkerCore) -> Digests:
    """Digests of what a core holds now."""
    items = core.model.items.ids
    return Digests(
        sequence=core.sequence,
        model=core.model.digest(),
        users={str(index): part.state.digest(items) for index, part in sorted(core.partitions.items())},
        counts={
            str(index): msgspec.to_builtins(part.counts) for index, part in sorted(core.partitions.items())
        },
        device=core.model.device_name,
    )


def scratch_core(settings: Settings) -> WorkerCore:
    """A core that only folds: tells nobody, keeps nothing. On a GPU where there is one, if settings allow."""
    if settings.learner.embeddings:
        use_half_the_cores()  # sums depend on the number of threads
    if settings.learner.device != "cpu":
        learner = msgspec.structs.replace(settings.learner, device="auto")
        settings = msgspec.structs.replace(settings, learner=learner)
    return WorkerCore(settings, NullSink(), WorkerMetrics(CollectorRegistry()), tells=False)


def core_at(settings: Settings, checkpoint: Checkpoint | None) -> WorkerCore:
    """A scratch core with the state of a checkpoint."""
    core = scratch_core(settings)
    if checkpoint is not None:
        restore(core, checkpoint.sequence, checkpoint.meta, checkpoint.units)
    return core


def audit(history: History, settings: Settings, reader: LogReader, live: Digests | None = None) -> Report:
    """Check the state of one writer; see the module's docstring.

    Parameters
    ----------
    history : History
        Of the state's store.
    settings : Settings
    reader : LogReader
    live : Digests, optional
        What the running process says of itself.
    """
    newest = history.newest()
    base = base_of(history, reader)
    upto = max(0 if newest is None else newest.sequence, 0 if live is None else live.sequence)
    entries = list(history.entries(after=0 if base is None else base.sequence, upto=upto))
    report = Report(
        base="the beginning of the log" if base is None else base.name,
        upto="the live process" if live is not None else "nothing" if newest is None else newest.name,
        sequence=upto,
        n_entries=len(entries),
    )
    reader.start(starts_of(entries))
    core = core_at(settings, base)
    report.problems += holes(core.held.positions(), entries)
    if newest is not None:
        report.same_build = newest.meta["build"] == build(core.model.device_name)
        fold_then, fold_now = newest.meta["fold"], settings_of_fold(settings)
        report.problems += [
            f"{name} is {fold_now[name]!r} here and was {fold_then[name]!r}: the fold will differ"
            for name in fold_now
            if fold_then.get(name) != fold_now[name]
        ]
    targets: dict[int, tuple[str, Digests]] = {}
    if newest is not None:
        wanted = digests_of(core_at(settings, newest))
        wanted.device = newest.meta["build"].get(DEVICE, "")
        targets[newest.sequence] = (newest.name, wanted)
    if live is not None:
        targets.setdefault(live.sequence, ("the live process", live))
    report.not_compared = [
        f"{name}: its model was learned on {wanted.device}, this is {core.model.device_name}"
        for name, wanted in targets.values()
        if not comparable(wanted.device, core.model.device_name)
    ]
    for entry in entries:
        n, n_lost = refold(core, [entry], reader)
        report.n_records += n
        if n_lost:
            report.problems.append(f"entry {entry.sequence}: retention has removed {n_lost} of its records")
        if entry.sequence in targets:
            report.problems += differences(*targets[entry.sequence], digests_of(core))
    if base is not None and base.sequence in targets:
        report.problems += differences(*targets[base.sequence], digests_of(core))
    if live is not None and live.sequence != upto:
        report.problems.append(f"the live process is at {live.sequence}, the journal ends at {upto}")
    report.digests = msgspec.to_builtins(digests_of(core))
    return report


def base_of(history: History, reader: LogReader) -> Checkpoint | None:
    """The oldest state to fold on from: nothing, where journal and log go back that far.

    Raises
    ------
    StateError
        The log covers the journal of no kept checkpoint.
    """
    for base in chain([None], history.oldest_first()):
        try:
            first = starts_of(history.entries(after=0 if base is None else base.sequence))
        except DamagedError:
            continue  # journal before the oldest checkpoint is removed with the checkpoint it followed
        if all(reader.begins(*place) <= offset for place, offset in first.items()):
            return base
    raise StateError("retention has removed records that the journal of every kept checkpoint names")


def holes(start: Mapping[Place, int], entries: Iterable[JournalEntry]) -> list[str]:
    """Where ranges do not follow each other: offsets that are in no entry, or in two."""
    position = dict(start)
    sequence: int | None = None
    problems = []
    for entry in entries:
        if sequence is not None and entry.sequence != sequence + 1:
            problems.append(f"entry {entry.sequence} follows entry {sequence}")
        sequence = entry.sequence
        for noted in entry.runs:
            place = (noted.topic, noted.partition)
            expected = position.get(place, noted.first)
            where = f"{noted.topic}[{noted.partition}]"
            if noted.first > expected:
                problems.append(f"{where}: offsets {expected} to {noted.first - 1} are in no entry")
            elif noted.first < expected:
                problems.append(f"{where}: offsets {noted.first} to {expected - 1} are in two entries")
            position[place] = max(expected, noted.next)
    return problems


def differences(name: str, wanted: Digests, found: Digests) -> list[str]:
    """What differs between a state and its fold; models only where both were learned on the same."""
    problems = []
    if comparable(wanted.device, found.device) and wanted.model != found.model:
        problems.append(f"{name}: the model is not the fold of the log")
    for partition in sorted({*wanted.users, *found.users}, key=int):
        counts = [wanted.counts.get(partition), found.counts.get(partition)]
        if None in counts and not any(map(n_counted, counts)):
            continue  # held, and nothing of it was read yet
        if wanted.users.get(partition) != found.users.get(partition):
            problems.append(f"{name}: user state of partition {partition} is not the fold of the log")
        if wanted.counts.get(partition) != found.counts.get(partition):
            problems.append(
                f"{name}: partition {partition} counts {wanted.counts.get(partition)},"
                f" the log gives {found.counts.get(partition)}"
            )
    return problems


def comparable(device: str, other: str) -> bool:
    """Whether sums on two devices give the same bits; one that is not known is taken to."""
    return not device or not other or device == other


def n_counted(counts: Any) -> int:
    """Records that the counts of a partition, or None, account for."""
    return 0 if counts is None else msgspec.convert(counts, Counts).read
