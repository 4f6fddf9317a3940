"""How much of the learner thread publishing gets.

Learning and publishing share one thread. A list is worth little when it comes late, and nothing
becomes fresh without learning, so the share s follows how far publishing is behind: what the user who
waits longest has waited, and by how much the refresh interval is stretched (`streams.refresh`)::

    s = least up to 1 s,  most from `haste_s` on,  linear in between

==================  =====  =====  =========
                    least  most   haste_s
==================  =====  =====  =========
`CAUGHT_UP`         0.5    0.85   3
`BEHIND` its log    0.35   0.92   4
`HASTY`             0.125  0.125
==================  =====  =====  =========

A list that is made while events of more than a second ago are still to be read lacks them, so reading
comes first then, until users have waited for seconds. With many users the longest wait is long, and lists
get most of the thread: the rest still learns ten times what plain consumers read. `HASTY` is with
embeddings, far behind (`streams.overload`).

Of time spent learning, publishing earns ``learned s / (1 - s)``: s of the two together. Time in which
the thread had nothing to learn is free. What a chunk takes beyond its time is owed to the next tick.
"""

from __future__ import annotations

from typing import Final, NamedTuple

AT_EASE_S: Final = 1.0


class Shares(NamedTuple):
    """What publishing gets at least and at most of the thread's busy time, and from which wait on."""

    least: float
    most: float
    haste_s: float = 3.0


CAUGHT_UP: Final = Shares(0.5, 0.85)
BEHIND: Final = Shares(0.35, 0.92, 4.0)
HASTY: Final = Shares(0.125, 0.125)

BEHIND_S: Final = 1.0
"""Age of the newest applied event from which on a partition with more to read is behind."""

LIVE_RECORDS: Final = 4_096
"""Records of a batch where nothing is behind: users wait for the tick between two of them, and of so many
what a batch costs beforehand is a small part."""

MOST_IDLE_S: Final = 0.1
"""Free time that counts at most, so that a tick ends before the next events have waited long."""

MOST_OWED_S: Final = 0.1


def share_of(wait_s: float, shares: Shares = CAUGHT_UP) -> float:
    """Share of the thread's busy time that publishing gets when it is `wait_s` behind.

    >>> [round(share_of(wait_s), 3) for wait_s in (0.0, 2.0, 3.0, 60.0)]
    [0.5, 0.675, 0.85, 0.85]
    >>> [round(share_of(wait_s, BEHIND), 3) for wait_s in (0.0, 2.5, 60.0)]
    [0.35, 0.635, 0.92]
    """
    haste = min(max((wait_s - AT_EASE_S) / (shares.haste_s - AT_EASE_S), 0.0), 1.0)
    return shares.least + haste * (shares.most - shares.least)


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
        shares: Shares = CAUGHT_UP,
    ) -> float:
        """A tick begins; returns until when it may publish. One chunk is always allowed.

        Parameters
        ----------
        now_s : float
        learned_s : float
            Time spent learning since the last tick.
        wait_s : float
            How far publishing is behind.
        shares : Shares
        """
        share = share_of(wait_s, shares)
        idle_s = MOST_IDLE_S if self._ended_s is None else now_s - self._ended_s - learned_s
        self._left_s += learned_s * share / (1.0 - share) + min(max(idle_s, 0.0), MOST_IDLE_S)
        return now_s + max(self._left_s, 0.0)

    def end(self, began_s: float, now_s: float) -> None:
        """The tick that began at `began_s` has published what it could; time not used is given up."""
        self._left_s = max(min(self._left_s - (now_s - began_s), 0.0), -MOST_OWED_S)
        self._ended_s = now_s
