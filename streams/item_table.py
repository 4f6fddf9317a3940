"""How full the table of items is, told in the log before it is full."""

from __future__ import annotations

from typing import Final

import numpy as np
import structlog

log = structlog.get_logger(__name__)

LEVELS: Final = (0.8, 0.9, 0.95, 1.0)
"""Shares of `learner.max_items`; the log tells once of each that is reached."""


class ItemTable:
    """Says when one more of `LEVELS` is reached; a comparison a batch.

    Parameters
    ----------
    max_items : int
        The setting `learner.max_items`.

    Operator action: raise learner.max_items and restart, which keeps the state; see docs/operations.md.
    """

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._limits = [int(np.ceil(level * max_items)) for level in LEVELS]
        self._reached = 0

    def ratio(self, n_items: int) -> float:
        """Share of the slots that are given."""
        return n_items / self._max_items

    def tell(self, n_items: int) -> None:
        """Say how full the table is, where that was not said yet."""
        reached = int(np.searchsorted(self._limits, n_items, side="right"))
        if reached <= self._reached:
            return
        self._reached = reached
        tell = log.error if reached == len(LEVELS) else log.warning
        tell("item_table_filling", n_items=n_items, max_items=self._max_items, level=LEVELS[reached - 1])
