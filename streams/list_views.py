"""What became of the items of lists, for those who ask: drift, and the choice between variants."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from learners.acceptance import Acceptance, Rewards
from schemas.learner import Interactions
from schemas.runs import Int8

from .listed import ListedItems


class Asks(Protocol):
    """Who wants to know."""

    def take(self, ended: Rewards) -> None:
        """Take in views that are over, in order."""


class ListViews:
    """Views of listed items of all partitions; not part of any state.

    Parameters
    ----------
    asking : Asks
        Who is told.
    """

    def __init__(self, *asking: Asks) -> None:
        self._asking = asking
        self._views: dict[int, Acceptance] = {}
        self._ended: list[Rewards] = []

    def take(self, partition: int, events: Interactions, surfaces: Int8, listed: ListedItems) -> None:
        """Take in events (N,) of one partition in order, before their users have newer lists.

        `events` names users by local slot, as `listed` does. Who asks is told by `tell`.
        """
        view = self._views.setdefault(partition, Acceptance())
        ended = view.take(
            events.users, events.items, events.types, surfaces, events.weight, listed.rows, listed.variants
        )
        if len(ended.values):
            self._ended.append(ended)

    def tell(self) -> None:
        """Tell who asks of the views that ended since the last call, those of all partitions together.

        A small batch has a few views of each of several partitions, and telling has a fixed cost.
        """
        if not self._ended:
            return
        together = Rewards(*map(np.concatenate, zip(*self._ended, strict=True)))
        self._ended = []
        for one in self._asking:
            one.take(together)
