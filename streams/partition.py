"""Input partitions as a role holds them: state, positions, counts, and how far recovery has come."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec import Struct, field

from learners.growth import grown
from learners.signals import signal_table
from learners.user_state import PartitionState
from schemas.errors import StateError
from schemas.runs import Int32
from schemas.settings import Settings
from schemas.topics import topic_names

from .listed import ListedItems
from .outbox import Outbox


class Counts(Struct, kw_only=True):
    """What became of the records of one partition; part of its state, so no record counts twice."""

    applied: int = 0
    duplicates: int = 0
    dead: dict[str, int] = field(default_factory=dict)  # by reason

    @property
    def read(self) -> int:
        """Records dealt with."""
        return self.applied + self.duplicates + sum(self.dead.values())

    def bury(self, reason: str) -> None:
        """Count a dead letter."""
        self.dead[reason] = self.dead.get(reason, 0) + 1

    def add(self, other: Counts) -> None:
        """Take in the counts of another partition."""
        self.applied += other.applied
        self.duplicates += other.duplicates
        for reason, n in other.dead.items():
            self.dead[reason] = self.dead.get(reason, 0) + n


class Partition(Struct, kw_only=True):
    """A behaviour partition; every offset is *next to read*."""

    state: PartitionState
    outbox: Outbox
    model_users: Int32  # (users,) model user slot, -1 before the first event
    listed: ListedItems = field(default_factory=ListedItems)
    counts: Counts = field(default_factory=Counts)
    live_from: int = 0  # offsets below were dealt with before the state was lost
    end_at_start: int = 0  # recovery ends here
    end_seen: int = 0  # newest log end that was reported
    last_broker_ts_ms: int = 0
    first_offset: int = 0  # where this process began

    def grow(self) -> None:
        """Room in `model_users` for all local users."""
        self.model_users = grown(self.model_users, len(self.state.users), -1)

    def make_room(self) -> None:
        """Make the memory of cuts as large as the next one will want it."""
        self.state.make_room()
        self.listed.make_room()

    @property
    def copied_bytes(self) -> int:
        """Memory of copies: about what `copy_ahead` copies in all."""
        return self.state.copies.nbytes + self.listed.copies.nbytes

    def copy_ahead(self, place: int, of: int) -> None:
        """Copy a slice of what the next cut will hold, see `learners.row_copies`."""
        self.state.copy_ahead(place, of)
        self.listed.copy_ahead(place, of)

    def model_user(self, user_id: str) -> int:
        """Model slot of a user, -1 where there is none."""
        local = self.state.users.find(user_id)
        return int(self.model_users[local]) if 0 <= local < len(self.model_users) else -1

    @property
    def next_offset(self) -> int:
        """Position next to read."""
        return self.state.next_offset

    @property
    def lag(self) -> int:
        """Records behind the log end as last seen."""
        return max(0, self.end_seen - self.next_offset)

    @property
    def caught_up(self) -> bool:
        """Whether the log at start has been folded."""
        return self.next_offset >= self.end_at_start


class Shelf(Struct, kw_only=True):
    """A partition of the catalogue, or of what was made of it; offsets as in `Partition`."""

    next_offset: int
    live_from: int = 0
    end_at_start: int = 0
    end_seen: int = 0


def shelved_topics(settings: Settings) -> tuple[str, ...]:
    """Compacted inputs that a model is folded from beside behaviour; the catalogue first."""
    names = topic_names(settings.kafka.prefix)
    made_of_it = (names.item_content, names.item_tags) if settings.learner.content else ()
    return (names.catalogue, *made_of_it)


class Readiness(Struct, frozen=True, kw_only=True):
    """What the learner thread last said of itself; other threads read this and no state."""

    ready: bool = False
    partitions: int = 0
    recovered: float = 0.0
    reason: str = ""


class Holdings:
    """All partitions that a role holds.

    Parameters
    ----------
    settings : Settings
    published_before : bool
        Whether there may be lists on the recommendations topic: then a partition without state
        is quiet until its log at start has been folded, for `knows.offset` must not fall.
    """

    def __init__(self, settings: Settings, *, published_before: bool = True) -> None:
        self.partitions: dict[int, Partition] = {}
        self.shelves: dict[int, Shelf] = {}
        self._settings = settings
        self._signals = signal_table(settings.signals)
        self.shelved = {topic: dict[int, Shelf]() for topic in shelved_topics(settings)}
        """Partitions of each compacted input."""
        self.shelved[topic_names(settings.kafka.prefix).catalogue] = self.shelves
        self._names = topic_names(settings.kafka.prefix)
        self._published_before = published_before

    def assign(self, topic: str, partition: int, *, start: int, committed: int | None, end: int) -> int:
        """Take a partition, or go on with one whose state is there; its records come from `start` on.

        Returns
        -------
        int
            Events that retention removed before this process could fold them.

        Raises
        ------
        StateError
            Committed is what this worker never read: another one wrote meanwhile, or the topic
            was created anew.
        """
        shelves = self.shelved.get(topic)
        held = self._of(topic, partition)
        if committed is not None and committed > end:
            raise StateError(
                f"{topic}[{partition}] ends at offset {end} but {committed} is committed: the topic was"
                " created anew; choose another worker.group_id or delete the old group's offsets"
            )
        if held is not None:
            position = held.next_offset
            if committed is not None and committed > position:
                raise StateError(
                    f"{topic}[{partition}] was committed up to {committed} by another worker of this group;"
                    f" this one has read up to {position} and ends"
                )
            held.end_seen = max(held.end_seen, end)
            if isinstance(held, Shelf):
                held.end_at_start = max(held.end_at_start, end)
            return max(0, start - position)
        if shelves is not None:
            # Lists wait for the catalogue however new it is: it says what was withdrawn.
            shelves[partition] = Shelf(
                next_offset=start, live_from=committed or 0, end_at_start=end, end_seen=end
            )
            return 0  # a compacted log keeps every key
        part = self.begin(partition, start)
        part.live_from = committed or 0
        part.end_at_start = start if committed is None and not self._published_before else end
        part.end_seen = end
        return max(0, start - committed) if committed is not None else 0

    def begin(self, partition: int, start: int) -> Partition:
        """A partition without state, whose records come from `start` on."""
        part = Partition(
            state=self.new_state(partition, start),
            outbox=Outbox(),
            model_users=np.full(1024, -1, dtype=np.int32),
            first_offset=start,
        )
        self.partitions[partition] = part
        return part

    def new_state(self, partition: int, start: int) -> PartitionState:
        """Empty user state with the settings' limits."""
        worker, learner = self._settings.worker, self._settings.learner
        n = self._settings.kafka.partitions
        return PartitionState(
            partition,
            n_partitions=n,
            history=learner.history,
            seen=learner.seen,
            dedup_window=worker.dedup_window,
            lateness_ms=worker.lateness_ms,
            future_skew_ms=worker.future_skew_ms,
            session_gap_ms=worker.session_gap_ms,
            max_users=max(1, learner.max_users // n),
            next_offset=start,
            household_hours=learner.household_hours,
            signals=self._signals,
        )

    def _of(self, topic: str, partition: int) -> Partition | Shelf | None:
        if topic == self._names.behaviour:
            return self.partitions.get(partition)
        return self.shelved.get(topic, {}).get(partition)

    def position(self, topic: str, partition: int) -> int | None:
        """Offset next to read, None before the partition was ever held."""
        held = self._of(topic, partition)
        return None if held is None else held.next_offset

    def positions(self) -> dict[tuple[str, int], int]:
        """Position next to read of everything held."""
        behaviour = self._names.behaviour
        return {(behaviour, index): part.next_offset for index, part in self.partitions.items()} | {
            (topic, index): shelf.next_offset
            for topic, shelves in self.shelved.items()
            for index, shelf in shelves.items()
        }

    def see_end(self, topic: str, partition: int, end: int) -> None:
        """Note the log end that the consumer knows."""
        held = self._of(topic, partition)
        if held is not None:
            held.end_seen = max(held.end_seen, end)

    @property
    def caught_up(self) -> bool:
        """Whether every partition held, of both topics, was folded up to its end at start."""
        return (
            bool(self.partitions)
            and all(part.caught_up for part in self.partitions.values())
            and all(
                shelf.next_offset >= shelf.end_at_start
                for shelves in self.shelved.values()
                for shelf in shelves.values()
            )
        )

    def recovered_ratio(self) -> float:
        """Share of the log at start that has been folded; 1 when caught up."""
        parts = self.partitions.values()
        total = sum(max(0, part.end_at_start - part.first_offset) for part in parts)
        left = sum(max(0, part.end_at_start - part.next_offset) for part in parts)
        return 1.0 - left / total if total else 1.0

    def counts(self) -> Counts:
        """Counts of all partitions together."""
        total = Counts()
        for part in self.partitions.values():
            total.add(part.counts)
        return total

    def watermarks(self) -> Iterator[int]:
        """Watermark of each partition that has one."""
        for part in self.partitions.values():
            if part.state.watermark_ms >= 0:
                yield part.state.watermark_ms
