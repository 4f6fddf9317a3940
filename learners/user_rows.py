"""Rows that users own in an embedding table: given out by positives, taken back from the idle.

A user gets a row at the n-th positive (frequency admission). A row whose user did nothing for
longer than `idle_ms` of event time goes; the last row moves into its place, so rows 0 .. n - 1 are
always those in use, and a row given out again starts from zero, optimiser state included. The
clock is the newest event seen. A hand goes round the rows, two for each event learned, so
rows in use stay below those of users active within `idle_ms` and the last n / 2 events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.compiled import kernel
from schemas.learner import Arrays
from schemas.runs import Float32, Int32, Int64

from .adagrad import RowTable
from .embedding_options import Optimizer
from .growth import grown
from .state import taken


class UserState(NamedTuple):
    """What `UserRows.snapshot` describes, checked; U rows."""

    users: Int32  # (U,) slots
    values: Float32  # (U, d)
    squares: Float32  # (U,)
    moments: Float32  # (U, d or 0)
    newest: Int64  # (U,) ms
    clock: Int64  # (2,) newest event of all in ms, and the hand
    waiting: Int32  # (V,) slots
    hits: NDArray[np.uint8]  # (V,)


class UserRows:
    """User slot -> row of a table that starts from zero; most users may never own one.

    Memory: 6 bytes a user slot, ``4 d + 16`` bytes a row. Cost of expiry: two comparisons an event
    learned, and copies of one row for each row freed.

    Parameters
    ----------
    admission : int
        Positives (1 .. 255) a user must have before there is a row.
    idle_ms : int or None
        Event time without an event after which a row goes; None for never.
    """

    def __init__(
        self, dim: int, device: torch.device, *, rate: float, floor: float, rule: Optimizer = "adagrad",
        admission: int = 1, idle_ms: int | None = None,
    ) -> None:  # fmt: skip
        self._dim = dim
        self._device = device
        self._table = RowTable(dim, device, self._zeros, rate=rate, floor=floor, rule=rule)
        self._n = 0
        self._row: Int32 = np.zeros(0, dtype=np.int32)  # row of a user slot, -1 none
        self._dirty: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self._admission, self._idle_ms = admission, idle_ms
        self._hits: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)  # of user slots without a row
        self._owner: Int32 = np.zeros(0, dtype=np.int32)  # user slot of a row
        self._newest: Int64 = np.zeros(0, dtype=np.int64)  # newest event of a row's user, ms
        self._clock = 0  # newest event of all, ms
        self._hand = 0

    @property
    def values(self) -> Tensor:
        """The table (capacity, d)."""
        return self._table.values

    @property
    def n_rows(self) -> int:
        """Rows in use."""
        return self._n

    def ensure(self, n_users: int) -> None:
        """Make room for user slots below `n_users`."""
        self._row = grown(self._row, n_users, -1)
        self._dirty = grown(self._dirty, n_users)
        self._hits = grown(self._hits, n_users)

    def observe(self, users: Int32, ts_ms: Int64) -> None:
        """Note when `users` (N,) did something, and take back some rows of those long idle."""
        self._clock = max(self._clock, int(ts_ms.max(initial=0)))
        held = self.rows_of(users)
        known = held >= 0
        np.maximum.at(self._newest, held[known], ts_ms[known])
        if self._idle_ms is None or not self._n:
            return
        end = min(self._hand + 2 * len(users), self._n)
        idle = self._newest[self._hand : end] < self._clock - self._idle_ms
        for row in (self._hand + np.flatnonzero(idle))[::-1].tolist():  # last first: moves touch none of them
            self._free(row)
        self._hand = end if end < self._n else 0

    def rows_of(self, users: Int32) -> Int32:
        """Row of each user slot (B,), -1 for none; any slot may be asked for."""
        held = np.empty(len(users), dtype=np.int32)
        _find(users, self._row, held)
        return held

    def gather(self, held: Int32) -> Tensor:
        """Copy of the rows `held` (U,): (U, d), zero where -1."""
        if self._device.type == "cpu":
            copies = torch.empty(len(held), self._dim)
            _gather(self._table.values.numpy(), held, copies.numpy())
            return copies
        rows = torch.zeros(len(held), self._dim, device=self._device)
        known = np.flatnonzero(held >= 0)
        if len(known):
            rows[self._tensor(known)] = self._table.gather(self._tensor(held[known]))
        return rows

    def apply(self, users: Int32, positives: NDArray[np.integer], gradient: Tensor, norms: Tensor) -> None:
        """Update the rows of distinct `users` (U,), who had so many `positives` (U,); see the module."""
        held = self.rows_of(users)
        without = (positives > 0) & (held < 0) & (users >= 0)
        waiting = users[without]
        if len(waiting):
            hits = np.minimum(self._hits[waiting] + positives[without], 255)
            self._hits[waiting] = hits
            self._give(waiting[hits >= self._admission])
            held = self.rows_of(users)
        known = np.flatnonzero(held >= 0)
        if len(known) == len(held):
            self._table.apply(self._tensor(held), gradient, norms)
            self._dirty[users] = True
        elif len(known):
            index = self._tensor(known)
            self._table.apply(self._tensor(held[known]), gradient[index], norms[index])
            self._dirty[users[known]] = True

    def export_rows(self, users: Int32) -> Float32:
        """Copy of the rows of `users` (B,): (B, d), zero for a user without one."""
        rows: Float32 = self.gather(self.rows_of(users)).cpu().numpy()
        return rows

    def import_rows(self, users: Int32, values: Float32) -> None:
        """Set the rows of distinct `users` (B,); one of zeros says that the user has none."""
        self.ensure(int(users.max(initial=-1)) + 1)
        some = values.any(axis=1)
        gone = self.rows_of(users[~some])
        for row in np.sort(gone[gone >= 0])[::-1].tolist():
            self._free(row)
        users, values = users[some], values[some]
        self._give(users[self.rows_of(users) < 0])
        self._table.put(self._tensor(self._row[users]), self._tensor(values))

    def hurry(self, kept: float, rows_kept: float) -> None:
        """Keep a share of what Adagrad summed, and of the rows themselves; all rows are touched."""
        self._table.hurry(kept)
        self._table.values *= rows_kept
        self._dirty[self._owner[: self._n]] = True

    def touched(self) -> Int32:
        """Drain the user slots whose row changed since the last call."""
        users = np.flatnonzero(self._dirty).astype(np.int32)
        self._dirty[users] = False
        return users

    def snapshot(self) -> Arrays:
        """``users``: the slots with a row, in the order of their rows; values, squares and newest events.

        ``waiting_users`` and their ``waiting_hits``: those who had positives, but too few for a row.
        """
        waiting = np.flatnonzero(self._hits).astype(np.int32)
        return {
            "users": self._owner[: self._n].copy(),
            "user_newest": self._newest[: self._n].copy(),
            "user_clock": np.array([self._clock, self._hand], dtype=np.int64),
            "waiting_users": waiting,
            "waiting_hits": self._hits[waiting],
            "user_values": self._table.values[: self._n].cpu().numpy().copy(),
            "user_squares": self._table.squares[: self._n].cpu().numpy().copy(),
            "user_moments": self._table.moments[: self._n].cpu().numpy().copy(),
        }

    def check(self, arrays: Mapping[str, NDArray[np.generic]]) -> UserState:
        """The arrays of `snapshot`, copied; StateError where they do not fit."""
        users = taken(arrays, "users", self._row[:0])
        row, none = np.zeros((0, self._dim), np.float32), np.zeros(0, np.float32)
        values = taken(arrays, "user_values", row, rows=len(users))
        squares = taken(arrays, "user_squares", none, rows=len(users))
        like = self._table.moments[:0].cpu().numpy()
        moments = taken(arrays, "user_moments", like, rows=len(users))
        waiting = taken(arrays, "waiting_users", self._row[:0])
        return UserState(
            users, values, squares, moments,
            taken(arrays, "user_newest", self._newest[:0], rows=len(users)),
            taken(arrays, "user_clock", self._newest[:0], rows=2),
            waiting, taken(arrays, "waiting_hits", self._hits[:0], rows=len(waiting)),
        )  # fmt: skip

    def load(self, state: UserState) -> None:
        """Become what `check` returned."""
        self._table.load(state.values, state.squares, state.moments)
        self._n = len(state.users)
        self._owner, self._newest = state.users, state.newest
        self._clock, self._hand = state.clock.tolist()
        n_slots = max(int(state.users.max(initial=-1)), int(state.waiting.max(initial=-1))) + 1
        self._row = np.full(n_slots, -1, dtype=np.int32)
        self._row[state.users] = np.arange(self._n, dtype=np.int32)
        self._hits = np.zeros(n_slots, dtype=np.uint8)
        self._hits[state.waiting] = state.hits
        self._dirty = np.zeros(n_slots, dtype=np.bool_)

    def _give(self, users: Int32) -> None:
        first, self._n = self._n, self._n + len(users)
        self._table.ensure(self._n)
        self._owner = grown(self._owner, self._n)
        self._newest = grown(self._newest, self._n)
        self._row[users] = np.arange(first, self._n, dtype=np.int32)
        self._owner[first : self._n] = users
        self._newest[first : self._n] = self._clock
        self._hits[users] = 0

    def _free(self, row: int) -> None:
        last = self._n - 1
        user = self._owner[row]
        self._table.free(row, last)
        self._owner[row], self._newest[row] = self._owner[last], self._newest[last]
        self._row[self._owner[row]] = row
        self._row[user] = -1  # also where it was the last row itself
        self._dirty[user] = True
        self._n = last

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _zeros(self, first: int, last: int) -> Float32:
        return np.zeros((last - first, self._dim), dtype=np.float32)


@kernel
def _find(users: Int32, row: Int32, held: Int32) -> None:
    for i in range(len(users)):
        held[i] = row[users[i]] if 0 <= users[i] < len(row) else -1


@kernel
def _gather(values: Float32, held: Int32, out: Float32) -> None:
    for i in range(len(held)):
        for k in range(out.shape[1]):
            out[i, k] = values[held[i], k] if held[i] >= 0 else np.float32(0.0)
