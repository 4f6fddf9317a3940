"""The one protocol every learner follows, and the columns it learns from.

Predict, score, then learn is the only order. `predict` never changes state: the digest before
and after is equal. `learn_many` consumes an `Interactions` batch in row order. Time, randomness
and device are passed in at construction or with the batch; a learner reads no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from .runs import Float32, Int8, Int32, Int64

Arrays = dict[str, NDArray[np.generic]]


class Contexts(Struct, kw_only=True):
    """What is known about B users when a list is asked for.

    `history` holds item slots, oldest first, right-aligned, padded with -1 on the left.
    """

    users: Int32  # (B,) model user slots, -1 for a user without a row
    history: Int32  # (B, H)
    now_ms: int


class Interactions(Struct, kw_only=True):
    """Applied events as columns, in the order they apply; (N,) unless said otherwise.

    weight is the interest weight omega: > 0 a positive (watch, like, ...), 0 an ignored
    impression, < 0 a negative (skip, dislike). `history` is the user's recent positive items
    *before* the event, immediate inside the batch: oldest first, right-aligned, -1 padded.
    `fresh` marks a positive whose item is not among the last few of the history: those are the
    next-item targets (a like on the video being watched is not a second visit). `gap_ms` is
    the time since the user's previous positive (-1: none). `surfaces` holds codes of `SURFACES`,
    -1 where the event names none; left out, that is all of them. `finished` is 1 where the event tells of an
    item that was watched to its end, 0 where of one that was not, -1 where it tells nothing of that.
    """

    users: Int32  # model user slots
    items: Int32
    types: Int8
    ts_ms: Int64
    weight: Float32
    history: Int32  # (N, H)
    fresh: NDArray[np.bool_]
    gap_ms: Int64
    surfaces: Int8 = field(default_factory=lambda: np.zeros(0, dtype=np.int8))
    finished: Int8 = field(default_factory=lambda: np.zeros(0, dtype=np.int8))

    def __post_init__(self) -> None:
        if len(self.surfaces) != len(self.users):
            self.surfaces = np.full(len(self.users), -1, dtype=np.int8)
        if len(self.finished) != len(self.users):
            self.finished = np.full(len(self.users), -1, dtype=np.int8)

    def __len__(self) -> int:
        return len(self.users)


class TouchedKeys(Struct, kw_only=True):
    """Keys whose model value changed since the last call."""

    items: Int32
    users: Int32
    dense: tuple[str, ...] = ()


@runtime_checkable
class Learner(Protocol):
    """What every learner offers."""

    @property
    def name(self) -> str:
        """Stable name, used in checkpoints and metrics."""

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """Scores (B, C) of candidate `items` (C,) for each context; state unchanged."""

    def learn_many(self, batch: Interactions) -> None:
        """Learn from a batch in row order."""

    def touched(self) -> TouchedKeys:
        """Drain the keys changed since the last call."""

    def snapshot(self) -> Arrays:
        """Copy of the state as named arrays; shares no memory with the learner."""

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the state that `snapshot` described; copies what it is given."""

    def digest(self) -> str:
        """Hash of the state (hex)."""
