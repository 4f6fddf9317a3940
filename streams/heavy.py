"""Who sends most, and what is asked for most: bots, broken clients, an item that everybody is sent to.

Of each batch at most `SAMPLE` events are counted, drawn evenly: every event of a quiet stream, and of a
busy one as many as cost nothing. Counted is what could be read, be it late or sent twice: a client that
repeats itself is what this looks for. Events of large batches so count for less; shares are of what was
counted. Nothing here is learned state, and nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import structlog

from learners.heavy_hitters import HeavyKeys
from schemas.interning import Interner
from schemas.runs import EventBatch

from .partition import Partition

log = structlog.get_logger(__name__)

SAMPLE: Final = 32
LEAST: Final = 1_024
"""Events counted before anyone is called heavy, and between two looks for it."""

NAMED: Final = 10
"""Users and items that statistics name."""

_SLOT_BITS: Final = 32


class HeavyWatch:
    """Counts users and items of what arrives.

    Cost: 40 to 70 microseconds a batch of `SAMPLE` events and more.

    Parameters
    ----------
    warn_share : float
        A user with this share of the events is told in the log; 0 tells nobody.
    partitions : Mapping[int, Partition]
        Where users have their names; a slot keeps its name for as long as a partition is held.
    items : Interner
    """

    def __init__(self, warn_share: float, partitions: Mapping[int, Partition], items: Interner) -> None:
        self._warn_share = warn_share
        self._partitions, self._items = partitions, items
        self._users_seen, self._items_seen = HeavyKeys(), HeavyKeys()
        self._rng = np.random.default_rng(0)
        self._n = 0
        self._told: set[int] = set()

    def take(self, batches: Sequence[EventBatch]) -> None:
        """Count events of one batch of input."""
        total = sum(map(len, batches))
        if not total:
            return
        users = np.concatenate(
            [b.users.astype(np.int64) + (b.partition << _SLOT_BITS) for b in batches if len(b)]
        )
        items = np.concatenate([b.items for b in batches if len(b)])
        if total > SAMPLE:
            places = ((np.arange(SAMPLE) + self._rng.random(SAMPLE)) * (total / SAMPLE)).astype(np.intp)
            users, items = users[places], items[places]
        self._users_seen.update(users)
        self._items_seen.update(items)
        self._n += len(users)
        if self._n >= LEAST:
            self._n = 0
            self._warn()

    def users(self) -> list[tuple[str, float]]:
        """Users who sent most, and their shares, heaviest first."""
        return [(self._name(key), round(share, 4)) for key, share in self._users_seen.top(NAMED)]

    def items(self) -> list[tuple[str, float]]:
        """Items with most events, likewise."""
        return [(self._items.id_of(key), round(share, 4)) for key, share in self._items_seen.top(NAMED)]

    @property
    def heaviest(self) -> float:
        """Share of the user who sent most; 0 before anything was counted."""
        return max((share for _, share in self._users_seen.top(1)), default=0.0)

    def _warn(self) -> None:
        """Tell of users who have become heavy; again only when they had sent less than half of it."""
        if not self._warn_share:
            return
        self._told = {key for key in self._told if self._users_seen.share(key) >= self._warn_share / 2}
        for key, share in self._users_seen.top(NAMED):
            if share >= self._warn_share and key not in self._told:
                log.warning("heavy_user", user=self._name(key), share=round(share, 4), of=self._users_seen.n)
                self._told.add(key)

    def _name(self, key: int) -> str:
        part, slot = self._partitions[key >> _SLOT_BITS], key & ((1 << _SLOT_BITS) - 1)
        return part.state.users.id_of(slot)
