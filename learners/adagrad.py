"""Parameters and how they move: rows of a growing table, and dense arrays.

A row moves by one of three rules, each with at most one square a row::

    adagrad    s_r += mean_k g_rk^2                       e_r -= lr g_r / sqrt(s_r + s0)
    adam       s_r = b2 s_r + (1 - b2) mean_k g_rk^2      e_r -= lr m_r / (sqrt(s_r) + s0)
               m_r = b1 m_r + (1 - b1) g_r                b1 = .9, b2 = .999
    sgd                                                   e_r -= lr g_r

Adam is lazy: a row that has no gradient stands still. Its first gradient starts both averages,
which takes the place of the bias correction.

Gradients come in for the touched rows only, each row once. Norms and updates are apart, so that a
step can be looked at as a whole (is every number finite?) before anything changes.

References
----------
Kingma and Ba, Adam, ICLR 2015.
Duchi, Hazan and Singer, Adaptive subgradient methods, JMLR 2011; the row-wise form is that of
FBGEMM's embedding tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numba import njit
from torch import Tensor

from schemas.runs import Float32, Int32

from .embedding_options import Optimizer

DEFAULT_RATES: Final[dict[Optimizer, float]] = {"adagrad": 0.1, "adam": 0.01, "sgd": 0.1}

_KEPT: Final = 0.9, 0.999
"""b1 and b2."""

Initial = Callable[[int, int], Float32]
"""Initial rows first .. last - 1, by row number alone: (last - first, d) float32."""


class RowTable:
    """A table of rows that grows by doubling.

    Parameters
    ----------
    initial : callable
        Gives the initial value of a row from its number, so that growth order does not matter.
    """

    def __init__(
        self,
        dim: int,
        device: torch.device,
        initial: Initial,
        *,
        rate: float,
        floor: float,
        rule: Optimizer = "adagrad",
    ) -> None:
        self._initial = initial
        self._rate = rate
        self._floor = floor
        self._rule = rule
        self.values = torch.empty(0, dim, device=device)  # (capacity, d)
        self.squares = torch.empty(0, device=device)  # (capacity,)
        self.moments = torch.empty(0, dim if rule == "adam" else 0, device=device)  # (capacity, d or 0)

    def ensure(self, n: int) -> None:
        """Make room for rows 0 .. n - 1."""
        held = len(self.values)
        if n > held:
            capacity = max(1 << (n - 1).bit_length(), 64)
            new = torch.from_numpy(self._initial(held, capacity)).to(self.values.device)
            self.values = torch.cat([self.values, new])
            self.squares = torch.cat([self.squares, torch.zeros(capacity - held, device=new.device)])
            more = torch.zeros(capacity - held, self.moments.shape[1], device=new.device)
            self.moments = torch.cat([self.moments, more])

    def gather(self, rows: Tensor) -> Tensor:
        """Copy of `rows` (R,) int32: (R, d)."""
        return self.values.index_select(0, rows)

    def apply(self, rows: Tensor, gradient: Tensor, norms: Tensor) -> None:
        """Update distinct `rows` (R,) by `gradient` (R, d), whose row means of squares are `norms`."""
        if self._rule == "adagrad" and self.values.device.type == "cpu":
            _apply_rows(
                self.values.numpy(), self.squares.numpy(), rows.numpy(), gradient.numpy(), norms.numpy(),
                np.float32(self._rate), np.float32(self._floor),
            )  # fmt: skip
            return
        if self._rule == "sgd":
            self.values.index_add_(0, rows, gradient, alpha=-self._rate)
            return
        index = rows.long()
        squares = self.squares.index_select(0, index)
        if self._rule == "adam":
            keep_m, keep_s = _KEPT
            is_new = squares == 0
            squares = torch.where(is_new, norms, keep_s * squares + (1 - keep_s) * norms)
            old = self.moments.index_select(0, index)
            gradient = torch.where(is_new[:, None], gradient, keep_m * old + (1 - keep_m) * gradient)
            self.moments.index_copy_(0, index, gradient)
            scale = -self._rate / (torch.sqrt(squares) + self._floor)  # (R,)
        else:
            squares = squares + norms
            scale = -self._rate * torch.rsqrt(squares + self._floor)  # (R,)
        self.squares.index_copy_(0, index, squares)
        self.values.index_add_(0, rows, gradient * scale[:, None])

    def put(self, rows: Tensor, values: Tensor) -> None:
        """Set distinct `rows` (R,) to `values` (R, d); what Adagrad summed stays."""
        self.values.index_copy_(0, rows.long(), values)

    def hurry(self, kept: float) -> None:
        """Keep a share of what Adagrad summed: rows move ``1 / sqrt(kept)`` times as far, at first."""
        self.squares *= kept

    def free(self, row: int, last: int) -> None:
        """Move row `last` into the place of `row`, whose state goes, and make `last` a new row."""
        initial = torch.from_numpy(self._initial(last, last + 1)[0]).to(self.values.device)
        for table, new in ((self.values, initial), (self.squares, 0.0), (self.moments, 0.0)):
            table[row] = table[last]
            table[last] = new

    def load(self, values: Float32, squares: Float32, moments: Float32) -> None:
        """Become these rows; what is given is copied."""
        device = self.values.device
        self.moments = torch.from_numpy(moments).to(device, copy=True)
        self.values = torch.from_numpy(values).to(device, copy=True)
        self.squares = torch.from_numpy(squares).to(device, copy=True)


class DenseParameter:
    """A dense parameter with elementwise Adagrad: s += g^2, x -= lr g / sqrt(s + s0)."""

    def __init__(self, value: Tensor, *, rate: float, floor: float) -> None:
        self.value = value
        self.squares = torch.zeros_like(value)
        self._rate = rate
        self._floor = floor

    def apply(self, gradient: Tensor) -> None:
        """One step along `gradient`."""
        self.squares.addcmul_(gradient, gradient)
        self.value.addcmul_(gradient, torch.rsqrt(self.squares + self._floor), value=-self._rate)

    def hurry(self, kept: float) -> None:
        """As `RowTable.hurry`."""
        self.squares *= kept

    def load(self, value: Float32, squares: Float32) -> None:
        """Become this value, in place: a captured graph reads it where it stands."""
        self.value.copy_(torch.from_numpy(value))
        self.squares.copy_(torch.from_numpy(squares))


def row_norms(gradient: Tensor) -> Tensor:
    """Mean of squares of each row of (R, d): (R,)."""
    norms: Tensor = torch.linalg.vector_norm(gradient, dim=1)
    return norms.square_().div_(gradient.shape[1])


@njit(nogil=True, cache=True)
def _apply_rows(
    values: Float32,
    squares: Float32,
    rows: Int32,
    gradient: Float32,
    norms: Float32,
    rate: np.float32,
    floor: np.float32,
) -> None:
    for i in range(len(rows)):
        r = rows[i]
        squares[r] += norms[i]
        scale = rate / np.sqrt(squares[r] + floor)
        for k in range(values.shape[1]):
            values[r, k] -= scale * gradient[i, k]
