"""The items that are worth scoring for everybody, where scoring all of them would take too long.

Once half as many more are known, the `size` items with the most interest lately are scored exactly. The
others reach a list through other sources, which name them for the user at hand, and add to the
normaliser as if their logits were
normal: with mean m and variances v of the others' vectors, f . e has mean f . m and variance
sum_k f_k^2 v_k, so ::

    log_z = log(sum_head exp(f . e) + n exp(f . m + sum_k f_k^2 v_k / 2))

Interest counts targets, halved every `HALF_LIFE` of them. Every `REFRESH` targets, or a 64th of the
items where that is more, head, m and v are taken anew (m and v from at most `SAMPLED` of the others).
In between a new item waits; vectors are always those of the moment. All of it is a function of the
batches learned, and part of the state.

`benchmarks.ranking_cost --loss` compares lists made so with lists made from the scores of all items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import StateError
from schemas.learner import Arrays
from schemas.runs import Float32, Int32, Int64

from .growth import grown
from .nearest import Ranked, best_items
from .state import taken

HEAD: Final = 8_192
HASTY_HEAD: Final = 2_048
"""For lists and gate steps of a worker that is behind (`streams.overload`)."""

REFRESH: Final = 2_048
HALF_LIFE: Final = 131_072
SAMPLED: Final = 4_096


class ItemHead:
    """See the module's docstring.

    Cost on one core at d = 64: a refresh 3 ms at 50 000 items, 57 at a million; a user searched
    among 512 together 45 microseconds at either.

    Parameters
    ----------
    dim : int
        d.
    size : int
        Items of the head.
    prefix : str
        Of the names of its arrays.
    """

    def __init__(self, dim: int, size: int = HEAD, *, prefix: str = "head") -> None:
        self._size, self._prefix = size, prefix
        self._interest: Float32 = np.zeros(0, dtype=np.float32)
        self._items: Int32 = np.zeros(0, dtype=np.int32)  # ascending
        self._others: Float32 = np.zeros((2, dim), dtype=np.float32)  # m and v
        self._counts: Int64 = np.zeros(2, dtype=np.int64)  # targets since the last refresh; others

    @property
    def pays(self) -> bool:
        """Whether there is a head: whether there are many more items than it has places."""
        return len(self._items) > 0

    def learned(self, targets: Int32, values: Tensor) -> None:
        """Count the `targets` of a step, below the rows of `values` (N, d), and refresh when it is time."""
        self._ensure(len(values))
        np.add.at(self._interest, targets, np.float32(1.0))
        self._count(len(targets), values, keep=0.5 ** (1.0 / HALF_LIFE))

    def imported(self, items: Int32, support: Int32, values: Tensor) -> None:
        """Rows of distinct `items` came from another instance: how often each was a target stands in."""
        self._ensure(len(values))
        self._interest[items] = support
        self._count(len(items), values, keep=1.0)

    def best(self, vectors: Tensor, values: Tensor, closed: Tensor, k: int, n_closed: int) -> Ranked:
        """The best `k` items of the head for each of `vectors` (B, d), with the normaliser over all.

        Parameters
        ----------
        vectors, values : (B, d), (N, d) float32
        closed : (N,) float32
            0 for an item that may be found, -inf for one that may not.
        k : int
        n_closed : int
            Items of interest that may not be found, wherever they are.

        Returns
        -------
        Ranked
        """
        rows = torch.from_numpy(self._items)
        of_head = closed.index_select(0, rows)
        found = best_items(vectors, values.index_select(0, rows), of_head, k, normalise=True)
        n_others = int(self._counts[1]) - (n_closed - int(torch.isneginf(of_head).sum()))
        mean, variance = torch.from_numpy(self._others)
        logits = vectors @ mean + 0.5 * (vectors.square() @ variance)  # (B,)
        log_z = torch.from_numpy(found.log_z)
        if n_others > 0:
            log_z = torch.logaddexp(log_z, logits + float(np.log(n_others)))
        items: Int32 = np.where(found.items >= 0, self._items[found.items], np.int32(-1)).astype(np.int32)
        return Ranked(items, found.logits, log_z.numpy())

    def snapshot(self) -> Arrays:
        """Copies: ``<prefix>_interest`` (N,), ``_items``, ``_others`` (2, d), ``_counts`` (2,)."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            An array is missing or malformed; nothing has changed then.
        """
        fresh = {name: taken(arrays, name, like) for name, like in self._arrays().items()}
        name = self._prefix
        items, interest = fresh[f"{name}_items"], fresh[f"{name}_interest"]
        if len(fresh[f"{name}_others"]) != 2 or len(fresh[f"{name}_counts"]) != 2:
            raise StateError(f"'{name}_others' and '{name}_counts' have two rows")
        if len(items) and not 0 <= int(items.min()) <= int(items.max()) < len(interest):
            raise StateError(f"'{name}_items' names items that are not there")
        self._interest = taken(arrays, f"{name}_interest", self._interest)
        self._items = taken(arrays, f"{name}_items", self._items)
        self._others = taken(arrays, f"{name}_others", self._others)
        self._counts = taken(arrays, f"{name}_counts", self._counts)

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        return {
            f"{self._prefix}_interest": self._interest,
            f"{self._prefix}_items": self._items,
            f"{self._prefix}_others": self._others,
            f"{self._prefix}_counts": self._counts,
        }

    def _ensure(self, n: int) -> None:
        self._interest = grown(self._interest, n)

    def _count(self, n: int, values: Tensor, *, keep: float) -> None:
        self._counts[0] += n
        if self._counts[0] >= max(REFRESH, len(self._interest) // 64):
            self._interest *= np.float32(keep ** int(self._counts[0]))
            self._counts[0] = 0
            self._refresh(values)

    def _refresh(self, values: Tensor) -> None:
        known = np.flatnonzero(self._interest > 0)
        if len(known) < self._size + self._size // 2:
            return
        order = known[np.argpartition(-self._interest[known], self._size)]
        self._items = np.sort(order[: self._size]).astype(np.int32)
        others = np.sort(order[self._size :])
        sample = torch.from_numpy(others[:: -(-len(others) // SAMPLED)])
        rows = values.index_select(0, sample.to(values.device)).cpu()
        self._others[0] = rows.mean(dim=0).numpy()
        self._others[1] = rows.var(dim=0, correction=0).numpy()
        self._counts[1] = len(others)
