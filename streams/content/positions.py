"""Up to where the catalogue is done, while items are finished out of order."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from msgspec import Struct, field

from ..commits import Positions


class Hold(Struct, kw_only=True, eq=False):
    """One tenure of a catalogue partition; offsets are *next to read*."""

    partition: int
    next_offset: int
    end_at_start: int = 0
    end_seen: int = 0
    open: dict[int, None] = field(default_factory=dict)
    """Offsets read and not done, ascending."""

    @property
    def safe(self) -> int:
        """Where to read on after a crash."""
        return next(iter(self.open), self.next_offset)


class Holds:
    """The partitions held now; from any thread.

    >>> holds = Holds("c")
    >>> hold = holds.take(0, start=5, end=8)
    >>> holds.begin(hold, 5), holds.begin(hold, 6), holds.read_to(hold, 7)
    (None, None, None)
    >>> holds.done(hold, 6); holds.safe()
    {('c', 0): 5}
    >>> holds.done(hold, 5); holds.safe()
    {('c', 0): 7}
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._lock = threading.Lock()
        self._held: dict[int, Hold] = {}

    def take(self, partition: int, *, start: int, end: int) -> Hold:
        """Begin a tenure; what is left of one before it is nobody's any more."""
        hold = Hold(partition=partition, next_offset=start, end_at_start=end, end_seen=end)
        with self._lock:
            self._held[partition] = hold
        return hold

    def release(self, partitions: Iterable[int]) -> None:
        """End tenures."""
        with self._lock:
            for partition in partitions:
                self._held.pop(partition, None)

    def of(self, partition: int) -> Hold | None:
        """The tenure of a partition."""
        with self._lock:
            return self._held.get(partition)

    def holds(self, hold: Hold) -> bool:
        """Whether a tenure goes on."""
        with self._lock:
            return self._held.get(hold.partition) is hold

    def begin(self, hold: Hold, offset: int) -> None:
        """A record is under way."""
        with self._lock:
            hold.open[offset] = None

    def done(self, hold: Hold, offset: int) -> None:
        """All that follows from a record is stored, or it asked for nothing."""
        with self._lock:
            hold.open.pop(offset, None)

    def read_to(self, hold: Hold, offset: int) -> None:
        """Everything below `offset` is under way or done."""
        with self._lock:
            hold.next_offset = max(hold.next_offset, offset)

    def see_end(self, topic: str, partition: int, end: int) -> None:
        """Note the log end that the consumer knows."""
        with self._lock:
            hold = self._held.get(partition) if topic == self._topic else None
            if hold is not None:
                hold.end_seen = max(hold.end_seen, end)

    def safe(self) -> Positions:
        """What may be committed."""
        with self._lock:
            return {(self._topic, partition): hold.safe for partition, hold in self._held.items()}

    @property
    def partitions(self) -> list[int]:
        """Numbers of the partitions held."""
        with self._lock:
            return sorted(self._held)

    def lag(self) -> int:
        """Records not read yet."""
        with self._lock:
            return sum(max(0, hold.end_seen - hold.next_offset) for hold in self._held.values())

    def caught_up(self) -> bool:
        """Whether something is held, and what its log had at the start is done."""
        with self._lock:
            return bool(self._held) and all(hold.safe >= hold.end_at_start for hold in self._held.values())
