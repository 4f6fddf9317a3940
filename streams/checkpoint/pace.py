"""Checkpoints are written evenly: not as fast as the disk takes them, while everybody else waits for it.

80 MB at once are a third of a second in which the disk and half of a core are the writer's, the journal's
syncs wait behind it, and lists come late. Spread over a part of the checkpoint interval they are not
noticed. (PostgreSQL does so by `checkpoint_completion_target`.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

PIECE_BYTES: Final = 1 << 20
"""Written between two calls of a pace, at most."""

SYNC_BYTES: Final = 4 << 20
"""Made durable together: left to the end, the disk would have all of it at once after all."""


class Pace(Protocol):
    """Called by who writes, after every piece."""

    def __call__(self, n_bytes: int, /) -> bool:
        """`n_bytes` more have been written; may wait before the next. Whether there is time to be even."""


class EvenPace:
    """Lets `n_bytes` take `over_s` seconds; what is slow anyway does not wait.

    Parameters
    ----------
    n_bytes : int
        In all; more than that are not held up.
    over_s : float
    hurry : threading.Event
        Once set, nobody waits any more.
    monotonic : Callable[[], float]
        Seconds.

    Attributes
    ----------
    waited_s : float
        Spent waiting so far.
    """

    def __init__(
        self,
        n_bytes: int,
        over_s: float,
        hurry: threading.Event,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.waited_s = 0.0
        self._per_byte_s = over_s / max(n_bytes, 1)
        self._over_s = over_s
        self._hurry = hurry
        self._monotonic = monotonic
        self._began_s = monotonic()
        self._n_bytes = 0

    def __call__(self, n_bytes: int, /) -> bool:
        """See `Pace`."""
        self._n_bytes += n_bytes
        due_s = self._began_s + min(self._n_bytes * self._per_byte_s, self._over_s)
        before_s = self._monotonic()
        if due_s > before_s and not self._hurry.is_set():
            self._hurry.wait(due_s - before_s)
            self.waited_s += self._monotonic() - before_s
        return not self._hurry.is_set()
