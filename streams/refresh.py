"""How often a user gets a list: once an interval, which grows when there are more users than time.

A worker that is asked for more lists than it can make would let users wait in a growing queue. It
refreshes everybody less often instead: while somebody who is due has waited longer than 0.05 s the
interval t grows, and falls back to the configured one when nobody waits::

    dt / ds = +t  (wait > 0.05 s)     dt / ds = -t / 3  (wait < 0.02 s)        s in seconds

and never above 1.2 n / r, with n users known and r lists a second made lately: the time in which all
of them get one. (Many new users at once make a long queue, and no reason to rest for minutes after it.)

So waiting stays short, everyone is refreshed at an even pace, and `reelflow_refresh_interval_seconds`
says at which. A user is due at the end of the interval as it is when the list is made; what a longer
one adds is in the histogram of those held back, which counts from the event on. Newest events are
never lost by it: a list knows all of its user's events so far.
"""

from __future__ import annotations

from math import exp
from typing import Final

LONG_WAIT_S: Final = 0.05
SHORT_WAIT_S: Final = 0.02
GROWTH_PER_S: Final = 1.0
DECAY_PER_S: Final = 1.0 / 3.0
LEAST_GROWING_S: Final = 0.1
MOST_S: Final = 600.0
MOST_STEP_S: Final = 1.0
MOST_ROUNDS: Final = 1.2
RATE_MEMORY_S: Final = 1.0


class RefreshInterval:
    """See the module's docstring.

    Parameters
    ----------
    least_s : float
        The configured interval, seconds.

    >>> refresh = RefreshInterval(0.5)
    >>> for second in range(5):
    ...     refresh.adapt(now_s=float(second), wait_s=2.0, n_users=10_000, n_lists=1_000 * second)
    >>> round(refresh.interval_s, 1)
    12.2
    """

    def __init__(self, least_s: float) -> None:
        self.interval_s = least_s
        self._least_s = least_s
        self._adapted_s: float | None = None
        self._rate = 0.0
        self._n_lists = 0

    @property
    def stretched_s(self) -> float:
        """By how much it is longer than configured."""
        return self.interval_s - self._least_s

    def adapt(self, now_s: float, wait_s: float, n_users: int, n_lists: int) -> None:
        """Follow what the user who waits longest, of those who are due, has waited.

        Parameters
        ----------
        now_s : float
            Any clock that does not go back.
        wait_s : float
        n_users, n_lists : int
            Users known, and lists made so far.
        """
        passed_s = 0.0 if self._adapted_s is None else max(now_s - self._adapted_s, 0.0)
        self._adapted_s = now_s
        if passed_s > 0.0:
            newest = exp(-passed_s / RATE_MEMORY_S)
            self._rate = newest * self._rate + (1.0 - newest) * (n_lists - self._n_lists) / passed_s
            self._n_lists = n_lists
        step_s = min(passed_s, MOST_STEP_S)
        if wait_s > LONG_WAIT_S:
            grown_s = max(self.interval_s, LEAST_GROWING_S) * exp(GROWTH_PER_S * step_s)
            round_s = MOST_ROUNDS * n_users / max(self._rate, 1.0)
            self.interval_s = max(min(grown_s, round_s, MOST_S), self._least_s)
        elif wait_s < SHORT_WAIT_S:
            self.interval_s = max(self.interval_s * exp(-DECAY_PER_S * step_s), self._least_s)
