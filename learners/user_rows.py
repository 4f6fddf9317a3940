"""Rows that users own in an embedding table, given out when they first have something to learn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.learner import Arrays
from schemas.runs import Float32, Int32

from .adagrad import RowTable
from .embedding_options import Optimizer
from .state import grown, taken


class UserRows:
    """User slot -> row of a table that starts from zero; most users may never own one.

    Memory: 5 bytes a user slot, ``4 d + 4`` bytes a row.
    """

    def __init__(
        self, dim: int, device: torch.device, *, rate: float, floor: float, rule: Optimizer = "adagrad"
    ) -> None:
        self._dim = dim
        self._device = device
        self._table = RowTable(dim, device, self._zeros, rate=rate, floor=floor, rule=rule)
        self._n = 0
        self._row: Int32 = np.zeros(0, dtype=np.int32)  # row of a user slot, -1 none
        self._dirty: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)

    @property
    def values(self) -> Tensor:
        """The table (capacity, d)."""
        return self._table.values

    def ensure(self, n_users: int) -> None:
        """Make room for user slots below `n_users`."""
        self._row = grown(self._row, n_users, -1)
        self._dirty = grown(self._dirty, n_users)

    def rows_of(self, users: Int32) -> Int32:
        """Row of each user slot (B,), -1 for none; any slot may be asked for."""
        held = np.full(len(users), -1, dtype=np.int32)
        known = (users >= 0) & (users < len(self._row))
        held[known] = self._row[users[known]]
        return held

    def gather(self, held: Int32) -> Tensor:
        """Copy of the rows `held` (U,): (U, d), zero where -1."""
        rows = torch.zeros(len(held), self._dim, device=self._device)
        known = np.flatnonzero(held >= 0)
        if len(known):
            rows[self._tensor(known)] = self._table.gather(self._tensor(held[known]))
        return rows

    def apply(self, users: Int32, owners: NDArray[np.bool_], gradient: Tensor, norms: Tensor) -> None:
        """Update the rows of distinct `users` (U,); a user among `owners` gets a row if it has none."""
        held = self.rows_of(users)
        new = users[owners & (held < 0) & (users >= 0)]
        if len(new):
            self._row[new] = np.arange(self._n, self._n + len(new), dtype=np.int32)
            self._n += len(new)
            self._table.ensure(self._n)
            held = self.rows_of(users)
        known = np.flatnonzero(held >= 0)
        if len(known):
            index = self._tensor(known)
            self._table.apply(self._tensor(held[known]), gradient[index], norms[index])
            self._dirty[users[known]] = True

    def export_rows(self, users: Int32) -> Float32:
        """Copy of the rows of `users` (B,): (B, d), zero for a user without one."""
        rows: Float32 = self.gather(self.rows_of(users)).cpu().numpy()
        return rows

    def import_rows(self, users: Int32, values: Float32) -> None:
        """Set the rows of distinct `users` (B,), giving rows to those without."""
        self.ensure(int(users.max(initial=-1)) + 1)
        new = users[self.rows_of(users) < 0]
        self._row[new] = np.arange(self._n, self._n + len(new), dtype=np.int32)
        self._n += len(new)
        self._table.ensure(self._n)
        self._table.put(self._tensor(self._row[users]), self._tensor(values))

    def touched(self) -> Int32:
        """Drain the user slots whose row changed since the last call."""
        users = np.flatnonzero(self._dirty).astype(np.int32)
        self._dirty[users] = False
        return users

    def snapshot(self) -> Arrays:
        """``users``: the slots with a row, in the order of their rows; values and squares."""
        slots = np.flatnonzero(self._row >= 0)
        users = np.empty(self._n, dtype=np.int32)
        users[self._row[slots]] = slots
        return {
            "users": users,
            "user_values": self._table.values[: self._n].cpu().numpy().copy(),
            "user_squares": self._table.squares[: self._n].cpu().numpy().copy(),
            "user_moments": self._table.moments[: self._n].cpu().numpy().copy(),
        }

    def check(self, arrays: Mapping[str, NDArray[np.generic]]) -> tuple[Int32, Float32, Float32, Float32]:
        """The arrays of `snapshot`, copied; StateError where they do not fit."""
        users = taken(arrays, "users", self._row[:0])
        row, none = np.zeros((0, self._dim), np.float32), np.zeros(0, np.float32)
        values = taken(arrays, "user_values", row, rows=len(users))
        squares = taken(arrays, "user_squares", none, rows=len(users))
        like = self._table.moments[:0].cpu().numpy()
        return users, values, squares, taken(arrays, "user_moments", like, rows=len(users))

    def load(self, users: Int32, values: Float32, squares: Float32, moments: Float32) -> None:
        """Become what `check` returned."""
        self._table.load(values, squares, moments)
        self._n = len(users)
        self._row = np.full(int(users.max(initial=-1)) + 1, -1, dtype=np.int32)
        self._row[users] = np.arange(self._n, dtype=np.int32)
        self._dirty = np.zeros(len(self._row), dtype=np.bool_)

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _zeros(self, first: int, last: int) -> Float32:
        return np.zeros((last - first, self._dim), dtype=np.float32)
