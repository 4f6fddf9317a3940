"""How often a user gets a list: once an interval, which grows when there are more users than time.

A worker that is asked for more lists than it can make would let users wait in a growing queue. It
refreshes everybody less often instead: while somebody who is due has waited longer than 0.1 s the
interval t grows, and falls back to the configured one when nobody waits::

    dt / ds = +t  (wait > 0.1 s)      dt / ds = -t / 3  (wait < 0.04 s)        s in seconds

So waiting stays short, everyone is refreshed at an even pace, and `reelflow_refresh_interval_seconds`
says at which. Newest events are never lost by it: a list knows all of its user's events so far.
"""

from __future__ import annotations

from math import exp
from typing import Final

LONG_WAIT_S: Final = 0.1
SHORT_WAIT_S: Final = 0.04
GROWTH_PER_S: Final = 1.0
DECAY_PER_S: Final = 1.0 / 3.0
LEAST_GROWING_S: Final = 0.1
MOST_S: Final = 600.0
MOST_STEP_S: Final = 1.0


class RefreshInterval:
    """See the module's docstring.

    Parameters
    ----------
    least_s : float
        The configured interval, seconds.

    >>> refresh = RefreshInterval(0.5)
    >>> for second in range(5):
    ...     refresh.adapt(now_s=float(second), wait_s=2.0)
    >>> round(refresh.interval_s, 1)
    27.3
    """

    def __init__(self, least_s: float) -> None:
        self.interval_s = least_s
        self._least_s = least_s
        self._adapted_s: float | None = None

    @property
    def stretched_s(self) -> float:
        """By how much it is longer than configured."""
        return self.interval_s - self._least_s

    def adapt(self, now_s: float, wait_s: float) -> None:
        """Follow what the user who waits longest, of those who are due, has waited; any clock."""
        step_s = 0.0 if self._adapted_s is None else min(max(now_s - self._adapted_s, 0.0), MOST_STEP_S)
        self._adapted_s = now_s
        if wait_s > LONG_WAIT_S:
            grown_s = max(self.interval_s, LEAST_GROWING_S) * exp(GROWTH_PER_S * step_s)
            self.interval_s = min(grown_s, max(MOST_S, self._least_s))
        elif wait_s < SHORT_WAIT_S:
            self.interval_s = max(self.interval_s * exp(-DECAY_PER_S * step_s), self._least_s)
