"""How much of the learner thread publishing gets.

Learning and publishing share one thread. A list is worth little when it comes late, and nothing
becomes fresh without learning, so the share s follows how far publishing is behind: what the user who
waits longest has waited, and by how much the refresh interval is stretched (`streams.refresh`)::

    s = 0.5 up to 1 s,  0.85 from 3 s on,  linear in between

With many users the longest wait is long, and lists get most of the thread: a seventh of it still
learns ten times what plain consumers read.

With embeddings the share is 0.125 while the worker is far behind its log (`streams.overload`): a list
made then lacks the events still to be read.

Of time spent learning, publishing earns ``learned s / (1 - s)``: s of the two together. Time in which
the thread had nothing to learn is free. What a chunk takes beyond its time is owed to the next tick.
"""

from __future__ import annotations

from typing import Final

LEAST_SHARE: Final = 0.5
MOST_SHARE: Final = 0.85
BACKLOG_SHARE: Final = 0.125
AT_EASE_S: Final = 1.0
IN_HASTE_S: Final = 3.0
MOST_IDLE_S: Final = 0.1
"""Free time that counts at most, so that a tick ends before the next events have waited long."""

MOST_OWED_S: Final = 0.1


def share_of(wait_s: float, most: float = MOST_SHARE) -> float:
    """Share of the thread's busy time that publishing gets when it is `wait_s` behind, at most `most`.

    >>> [round(share_of(wait_s), 3) for wait_s in (0.0, 2.0, 3.0, 60.0)]
    [0.5, 0.675, 0.85, 0.85]
    >>> share_of(60.0, most=BACKLOG_SHARE)
    0.125
    """
    haste = min(max((wait_s - AT_EASE_S) / (IN_HASTE_S - AT_EASE_S), 0.0), 1.0)
    least = min(LEAST_SHARE, most)
    return least + haste * (most - least)


class PublishShare:
    """Turns time spent learning into time to publish; one a thread.

    Times are of one monotonic clock, in seconds.
    """

    def __init__(self) -> None:
        self._ended_s: float | None = None
        self._left_s = 0.0

    def begin(
        self,
        now_s: float,
        learned_s: float,
        wait_s: float,
        most: float = MOST_SHARE,
    ) -> float:
        """A tick begins; returns until when it may publish. One chunk is always allowed.

        Parameters
        ----------
        now_s : float
        learned_s : float
            Time spent learning since the last tick.
        wait_s : float
            How far publishing is behind.
        most : float
            As in `share_of`.
        """
        share = share_of(wait_s, most)
        idle_s = MOST_IDLE_S if self._ended_s is None else now_s - self._ended_s - learned_s
        self._left_s += learned_s * share / (1.0 - share) + min(max(idle_s, 0.0), MOST_IDLE_S)
        return now_s + max(self._left_s, 0.0)

    def end(self, began_s: float, now_s: float) -> None:
        """The tick that began at `began_s` has published what it could; time not used is given up."""
        self._left_s = max(min(self._left_s - (now_s - began_s), 0.0), -MOST_OWED_S)
        self._ended_s = now_s
