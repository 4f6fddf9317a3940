"""When a core is cut for its next checkpoint, and what is copied before.

What is copied at once keeps everybody waiting, so most of it is copied ahead (`learners.row_copies`): from
the moment that a checkpoint is wanted one slice a tick, and then the cut, which copies what has changed
since. A slice is `SLICE_BYTES`, or a part of `MOST_SLICES` of all; state that fits one is cut at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from .commits import CommitGate
from .cut import Captured
from .model import Model
from .partition import Partition

SLICE_BYTES = 16 << 20
"""Copied in some 3 ms, which is less than a tick takes anyway; more and smaller slices copy rows twice."""

MOST_SLICES: Final = 64
MAKE_ROOM_EVERY_S: Final = 1.0


class Wants(Protocol):
    """Who writes checkpoints; see `streams.keeper`."""

    def wants_cut(self) -> bool:
        """Whether it is time for a checkpoint, and there is someone to write it."""

    def take(self, captured: Captured) -> None:
        """Write a cut as a checkpoint, on another thread."""


class Cutting:
    """Takes the cuts of one core; on its thread.

    Parameters
    ----------
    model : Model
    partitions : mapping of int to Partition
        Those held, whichever they are at the time.
    letters : CommitGate
        A cut is handed over once the broker has every dead letter of it.
    capture : Callable[[], Captured]
        Takes the cut, over the copies of the last one.
    """

    def __init__(
        self,
        model: Model,
        partitions: Mapping[int, Partition],
        letters: CommitGate,
        capture: Callable[[], Captured],
    ) -> None:
        self._model = model
        self._partitions = partitions
        self._letters = letters
        self._capture = capture
        self._captured: Captured | None = None
        self._n_ahead = 0
        self._room_s = 0.0

    def advance(self, keeper: Wants) -> None:
        """Go on; called every tick."""
        if self._captured is None:
            if not keeper.wants_cut():
                self._make_room()
            elif self._is_copied():
                self._captured = self._capture()
        if self._captured is not None and self._letters.clear(self._captured.sequence):
            keeper.take(self._captured)
            self._captured = None

    def _is_copied(self) -> bool:
        """Copy a slice; whether the last one was copied before."""
        n_bytes = self._model.copied_bytes + sum(part.copied_bytes for part in self._partitions.values())
        of = min(-(-n_bytes // SLICE_BYTES), MOST_SLICES)
        if of <= 1 or self._n_ahead >= of:
            self._n_ahead = 0
            return True
        self._model.copy_ahead(self._n_ahead, of)
        for part in self._partitions.values():
            part.copy_ahead(self._n_ahead, of)
        self._n_ahead += 1
        return False

    def _make_room(self) -> None:
        """Once a second: memory for the copies of the next cut, which is found before they are made."""
        now_s = time.perf_counter()
        if now_s >= self._room_s:
            self._room_s = now_s + MAKE_ROOM_EVERY_S
            self._model.make_room()
            for part in self._partitions.values():
                part.make_room()
