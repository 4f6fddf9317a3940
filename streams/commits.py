"""What was sent and is not acknowledged yet, by the batch of input it followed from."""

from __future__ import annotations

from collections.abc import Callable

Positions = dict[tuple[str, int], int]
"""(topic, partition) to the offset next to read."""


class CommitGate:
    """Tells whether everything sent for batches up to a sequence has been acknowledged.

    A checkpoint may stand for its input only when the broker has every dead letter of it: after a
    crash nobody would write them again.

    >>> gate = CommitGate()
    >>> done = gate.sent(1)
    >>> gate.clear(1), gate.clear(0)
    (False, True)
    >>> done()
    >>> gate.clear(1)
    True
    """

    def __init__(self) -> None:
        self._in_flight: dict[int, int] = {}

    @property
    def n_in_flight(self) -> int:
        """Sends that are not acknowledged."""
        return sum(self._in_flight.values())

    def clear(self, sequence: int) -> bool:
        """Whether nothing sent for batch `sequence` or an earlier one is in flight."""
        return min(self._in_flight, default=sequence + 1) > sequence

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
