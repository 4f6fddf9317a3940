"""Which offsets may be committed: those whose every consequence the broker has acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Positions = dict[tuple[str, int], int]
"""(topic, partition) to the offset next to read."""


class CommitGate:
    """Lets captured positions pass once nothing older is pending or in flight.

    Each batch of input has an apply sequence. Positions captured at sequence s are safe when no
    user touched at or before s still owes a snapshot and no message sent for a batch at or
    before s is unacknowledged.

    >>> gate = CommitGate()
    >>> done = gate.sent(1)
    >>> gate.advance(1, {("t", 0): 10}, None)      # captured
    {}
    >>> gate.advance(2, {("t", 0): 20}, None)      # message of batch 1 still in flight
    {}
    >>> done()
    >>> gate.advance(2, {("t", 0): 20}, None)
    {('t', 0): 10}
    """

    def __init__(self) -> None:
        self._in_flight: dict[int, int] = {}
        self._captured: tuple[int, Positions] | None = None

    @property
    def n_in_flight(self) -> int:
        """Sends that are not acknowledged."""
        return sum(self._in_flight.values())

    def sent(self, sequence: int) -> Callable[[], None]:
        """Note that something was sent for batch `sequence`; call the result when acknowledged."""
        self._in_flight[sequence] = self._in_flight.get(sequence, 0) + 1

        def done() -> None:
            left = self._in_flight[sequence] - 1
            if left:
                self._in_flight[sequence] = left
            else:
                del self._in_flight[sequence]

        return done

    def advance(
        self, sequence: int, positions: Mapping[tuple[str, int], int], pending: int | None
    ) -> Positions:
        """Positions that have become safe; captures `positions` of `sequence` for the next call.

        Parameters
        ----------
        pending : int or None
            Oldest apply sequence that some user's snapshot still has to tell.
        """
        safe: Positions = {}
        if self._captured is not None:
            captured, held = self._captured
            oldest = min(self._in_flight, default=captured + 1)
            if oldest <= captured or (pending is not None and pending <= captured):
                return safe
            safe = held
        self._captured = (sequence, dict(positions))
        return safe
