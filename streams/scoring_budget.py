"""How much scoring the learner thread can afford.

Scoring only reports: what is learned does not depend on it, so it may be sampled by what it takes.
Every event learned earns `us_per_event` of time; a micro-batch is scored while there is time left,
and what it took is paid, in CPU time of the thread: what others take of the machine does not count.
Beside that `FREE_SHARE` of a thread's time may always be spent: where few events come, scoring them
all costs more an event and matters to nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

FREE_SHARE: Final = 0.05
MOST_SAVED_S: Final = 0.05
"""Time saved up at most, and at first: scoring must not hold up learning after a pause."""

FADING: Final = 0.99999
"""An event's weight in `share` falls by this factor with every later one: looks back 100 000 events."""


class ScoringBudget:
    """One a learner thread.

    Parameters
    ----------
    us_per_event : float
    clock : Callable[[], float]
        Monotonic seconds.
    spent : Callable[[], float]
        Seconds that the calling thread has computed.

    >>> budget = ScoringBudget(10.0, clock=lambda: 0.0, spent=iter([0.0, 0.053]).__next__)
    >>> budget.offer(100)
    True
    >>> with budget.spending():
    ...     pass
    >>> budget.offer(100)  # had 50 ms, earned 1, paid 53
    False
    >>> round(budget.share, 2)
    0.5
    """

    def __init__(
        self,
        us_per_event: float,
        clock: Callable[[], float] = time.perf_counter,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self._s_per_event = us_per_event * 1e-6
        self._clock = clock
        self._spent = spent
        self._left_s = MOST_SAVED_S
        self._earned_at_s: float | None = None
        self._offered = 0.0
        self._taken = 0.0
        self.spent_s = 0.0
        """Seconds spent so far."""

    @property
    def share(self) -> float:
        """Share of the events offered lately that were in micro-batches to be scored; 0 without any."""
        return self._taken / self._offered if self._offered else 0.0

    def offer(self, n_events: int, *, wanted: bool = True) -> bool:
        """A micro-batch is about to be learned; whether it may be scored.

        One that is not `wanted` for other reasons earns, and counts as not scored.
        """
        now_s = self._clock()
        free_s = 0.0 if self._earned_at_s is None else (now_s - self._earned_at_s) * FREE_SHARE
        self._earned_at_s = now_s
        self._left_s = min(self._left_s + n_events * self._s_per_event + free_s, MOST_SAVED_S)
        affordable = wanted and self._left_s >= 0.0
        decay = FADING**n_events
        self._offered = self._offered * decay + n_events
        self._taken = self._taken * decay + n_events * affordable
        return affordable

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Pay for the time spent inside."""
        began_s = self._spent()
        try:
            yield
        finally:
            spent_s = self._spent() - began_s
            self._left_s -= spent_s
            self.spent_s += spent_s
