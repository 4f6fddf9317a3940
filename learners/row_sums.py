"""Sums of rows that go to the same place, in a fixed order on a GPU too.

A GPU that adds with atomics takes equal rows in the order in which they happen to come, so the same
step gives other bits each time, and a log folded twice gives two states. PyTorch's accumulating
`index_put_` sorts the rows first and adds equal ones one after another.
"""

from __future__ import annotations

import torch
from torch import Tensor


def add_rows(target: Tensor, rows: Tensor, values: Tensor) -> None:
    """``target[rows[i]] += values[i]`` for all i, equal rows in their order.

    Parameters
    ----------
    target : (R, d) float32
    rows : (N,) integer
        -1 for padding, whose `values` are zero.
    values : (N, d) float32
    """
    # Padding goes anywhere, but not all to one row: equal rows are added one after another.
    spare = torch.arange(len(rows), device=rows.device).remainder_(len(target))
    target.index_put_((torch.where(rows >= 0, rows.long(), spare),), values, accumulate=True)
