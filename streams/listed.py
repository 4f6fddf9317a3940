"""Which items stand in the last list of each user of a partition, so that it can be taken back.

A row of item slots a user, those of user state. Who holds an item is found by looking at every row:
no index has to be kept up to date for it, and a million lists of 20 are looked through in 18 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learners.growth import grown
from learners.prefetch import PER_LINE, prefetch
from learners.row_copies import RowCopies, slice_of
from learners.state import taken
from schemas.compiled import kernel
from schemas.runs import Int8, Int32

Bools = NDArray[np.bool_]

_AHEAD: Final = 4
"""So many lists ahead the rows are asked for."""

LISTED: Final = "listed"
"""Name of the array in a checkpoint."""


class ListedItems:
    """Rows by local user slot. Cost: 4 bytes a user and place, 0.1 microseconds a list.

    Which variant a list is of is known for lists of this process only: it is in no checkpoint.
    """

    def __init__(self) -> None:
        self.copies = RowCopies()
        """Memory of `snapshot` with `reuse`."""
        self._rows: Int32 = np.zeros((0, 0), dtype=np.int32)
        self._stale: Bools = np.ones(0, dtype=np.bool_)
        self._n_slots = 0
        self._variants: Int8 = np.full(0, -1, dtype=np.int8)

    @property
    def variants(self) -> Int8:
        """Variant of the last list by local user, -1 unknown; of later users too. Not to be changed."""
        return self._variants

    @property
    def rows(self) -> Int32:
        """Item slots by local user, -1 padded; later users have no list. Not to be changed."""
        return self._rows

    def put(self, users: Int32, items: Int32, variants: Int8 | None = None) -> None:
        """Note that the lists of `users` (B,) are now `items` (B, k), -1 padded, and of `variants` (B,)."""
        if not len(users):
            return
        n_users = int(users.max()) + 1
        self._widen(items.shape[1])
        self._grow(n_users)
        self._n_slots = max(self._n_slots, _put(users, items, self._rows, self._stale) + 1)
        if variants is not None:
            self._variants = grown(self._variants, n_users, -1)
            self._variants[users] = variants

    def holders(self, marked: Bools) -> Int32:
        """Users whose list has an item that `marked` (n,) marks, in order of their slots."""
        # Place 0 stands for -1, and every slot has a place: the loop asks for no bounds.
        places = np.zeros(max(len(marked), self._n_slots) + 1, dtype=np.bool_)
        places[1 : len(marked) + 1] = marked
        found = np.empty(len(self._rows), dtype=np.int32)
        return found[: _find(self._rows, places, found)].copy()

    def snapshot(self, n_users: int, *, reuse: bool = False) -> dict[str, NDArray[np.generic]]:
        """Copy of the rows of the first `n_users`; with `reuse` as in `PartitionState.snapshot`."""
        self._grow(n_users)
        rows = {LISTED: self._rows[:n_users]}
        return dict(self.copies.renew(rows, self._stale)) if reuse else {LISTED: rows[LISTED].copy()}

    def make_room(self) -> None:
        """Make the memory of `snapshot` with `reuse` as large as the next one will want it."""
        self.copies.make_room({LISTED: self._rows}, self._stale)

    def copy_ahead(self, place: int, of: int) -> None:
        """See `PartitionState.copy_ahead`."""
        self.copies.renew({LISTED: self._rows}, self._stale, *slice_of(len(self._rows), place, of))

    def restore(self, arrays: Mapping[str, NDArray[np.generic]], n_users: int) -> None:
        """Become what `snapshot` gave; nothing is known where a release before this one wrote it.

        Raises
        ------
        StateError
            Of another type or number of users.
        """
        if LISTED in arrays:
            width = arrays[LISTED].shape[1] if arrays[LISTED].ndim == 2 else 0
            self._rows = taken(arrays, LISTED, np.zeros((0, width), dtype=np.int32), rows=n_users)
            self._stale = np.ones(n_users, dtype=np.bool_)
            self._n_slots = int(self._rows.max(initial=-1)) + 1

    def _grow(self, n: int) -> None:
        self._rows = grown(self._rows, n, -1)
        self._stale = grown(self._stale, len(self._rows), True)

    def _widen(self, k: int) -> None:
        """Room for lists of `k`: `ranker.list_size` may have been another."""
        n, width = self._rows.shape
        if width < k:
            rows = np.full((max(n, 1), k), -1, dtype=np.int32)
            rows[:n, :width] = self._rows
            self._rows = rows
            self._stale = np.ones(len(rows), dtype=np.bool_)


@kernel
def _put(users: Int32, items: Int32, rows: Int32, stale: Bools) -> int:
    """Write the lists into the rows of their users, -1 beyond them; the highest item slot, or -1."""
    k, width = items.shape[1], rows.shape[1]
    flat = rows.reshape(-1)
    highest = -1
    for i in range(len(users)):
        if i + _AHEAD < len(users):
            for place in range(0, width, PER_LINE):
                prefetch(flat, users[i + _AHEAD] * width + place)
        user = users[i]
        stale[user] = True
        for place in range(k):
            rows[user, place] = items[i, place]
            highest = max(highest, items[i, place])
        for place in range(k, width):
            rows[user, place] = -1
    return highest


@kernel
def _find(rows: Int32, places: Bools, found: Int32) -> int:
    n = 0
    for user in range(len(rows)):
        held = False
        for place in range(rows.shape[1]):
            held |= places[np.uint64(rows[user, np.uint64(place)] + 1)]
        found[n] = user
        n += held
    return n
