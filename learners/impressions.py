"""Impressions as columns: what was shown to whom, in what context, and what came of it.

The probability learner is told the names of its categories and how many numbers come with each
impression; what they mean is the caller's business. Outcomes are those of `OUTCOMES`:

=========  ======================================================================
click      played, not swiped away within seconds
long       watched for long
complete   watched to the end, or beyond
like       liked
=========  ======================================================================

An outcome that is not known is -1. A prior history of watches knows whether each was long, and not
what was shown beside it: its click is unknown. See `learners.probability` for what that teaches.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import Struct

from schemas.runs import Float32, Int8, Int32, Int64

OUTCOMES: Final = ("click", "long", "complete", "like")
CLICK, LONG, COMPLETE, LIKE = range(len(OUTCOMES))


class Impressions(Struct, kw_only=True):
    """Impressions in the order in which they happened; (N,) unless said otherwise.

    Neighbouring rows of one user at one time have no order of their own: they are predicted
    together, before any of them is learned.
    """

    users: Int32  # slots, -1 for a user that nothing is known of
    items: Int32
    ts_ms: Int64
    categories: Int32  # (N, F) in the order of the learner's category names, -1 unknown
    numbers: Float32  # (N, E)
    outcomes: Int8  # (N, 4) in the order of OUTCOMES; 1, 0, or -1 for unknown

    def __len__(self) -> int:
        return len(self.users)


def rows_of(impressions: Impressions, first: int, last: int) -> Impressions:
    """Rows `first` .. `last` - 1; the columns are views."""
    columns = {name: getattr(impressions, name)[first:last] for name in Impressions.__struct_fields__}
    return Impressions(**columns)


def group_ends(users: Int32, ts_ms: Int64) -> Int64:
    """Where the tie of each row ends: rows of one user at one time that stand together; (N,) int64.

    >>> group_ends(np.array([1, 1, 1, 2], np.int32), np.array([5, 5, 6, 6]))
    array([2, 2, 3, 4])
    """
    n = len(users)
    starts = np.flatnonzero(np.r_[True, (users[1:] != users[:-1]) | (ts_ms[1:] != ts_ms[:-1])][:n])
    ends = np.append(starts[1:], n)
    return np.repeat(ends, ends - starts)
