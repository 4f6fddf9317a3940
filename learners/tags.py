"""Tag-to-tag Markov chain: exact and dense, row-stochastic where it is published.

For every fresh positive x of weight omega at time t after a, the newest item of the history, with
A and B the tags of a and x, for every pair (g, h) of A x B::

    M[g, h] += omega 2^((t - t0) / half_life) / (|A| |B|)
    P[g, h] = M[g, h] / sum_h' M[g, h']

A tag that was never left goes on to what is common: its row of P is the mean of all moves, or
uniform when there is none. After n steps the distribution from g is row g of P^n (a vector times
a matrix n times; not a product of single entries).

>>> chain = TagChain.from_probabilities(
...     ["entertainment", "education", "technology"],
...     [[0.2, 0.5, 0.3], [0.4, 0.1, 0.5], [0.3, 0.2, 0.5]],
... )
>>> chain.distribution("entertainment", 1).round(6).tolist()
[0.2, 0.5, 0.3]
>>> chain.distribution("entertainment", 2).round(6).tolist()  # the row of the matrix squared
[0.33, 0.21, 0.46]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.interning import Interner
from schemas.learner import Arrays, Contexts, Interactions, TouchedKeys
from schemas.runs import Float32, Float64, Int32, Int64

from .growth import grown
from .state import digest_arrays, pack_strings, taken, unpack_strings
from .tag_kernels import ItemTags, learn_tags, next_tags, score_tags

GAMMA: Final = 0.7
N_LAGS: Final = 8
DENSE: Final = "tag_matrix"
_FIRST_ITEMS: Final = 1_024
_FIRST_TAGS: Final = 64
_NONE: Final = np.zeros(0, dtype=np.int32)


class TagChain:
    """The learner; see the module's docstring.

    Parameters
    ----------
    half_life_ms : float
        Milliseconds after which a move weighs half; infinite for no decay.
    max_tags : int
        Tags at most; those beyond are counted in `n_refused` and not learned.

    Attributes
    ----------
    tags : Interner
        Tag names by slot.
    n_refused : int
        Tags of items that were left out.

    Notes
    -----
    learn_many equals folding learn_one, bit by bit. Cost: 0.06 microseconds an event at
    3 tags an item; 8 G^2 bytes for G tags (32 MiB at 2 048).
    """

    def __init__(self, half_life_ms: float = inf, *, max_tags: int = 2_048) -> None:
        if half_life_ms <= 0 or max_tags < 1:
            raise ValueError("half_life_ms and max_tags are positive")
        self.tags = Interner(capacity=max_tags)
        self.n_refused = 0
        self._per_ms = 1.0 / half_life_ms
        self._clock: Int64 = np.array([0, -1], dtype=np.int64)  # reference, newest event time
        capacity = min(_FIRST_TAGS, max_tags)
        self._matrix: Float64 = np.zeros((capacity, capacity), dtype=np.float64)
        self._rowsum: Float64 = np.zeros(capacity, dtype=np.float64)
        self._items = ItemTags(
            start=np.zeros(_FIRST_ITEMS, dtype=np.int64),
            length=np.zeros(_FIRST_ITEMS, dtype=np.int32),
            pool=np.zeros(4 * _FIRST_ITEMS, dtype=np.int32),
        )
        self._n_pool = 0
        self._n_dead = 0
        self._touched = False

    @classmethod
    def from_probabilities(cls, tags: Sequence[str], matrix: Sequence[Sequence[float]]) -> TagChain:
        """A chain with the given rows, each as if one move had been seen.

        Raises
        ------
        ValueError
            The matrix is not square, negative somewhere, or a row does not sum to 1.
        """
        rows = np.array(matrix, dtype=np.float64)
        if rows.shape != (len(tags), len(tags)) or rows.min() < 0 or not np.allclose(rows.sum(axis=1), 1):
            raise ValueError(f"a chain of {len(tags)} tags needs as many rows that sum to 1")
        chain = cls()
        for tag in tags:
            chain._tag(tag)
        chain._matrix[: len(tags), : len(tags)] = rows
        chain._rowsum[: len(tags)] = rows.sum(axis=1)
        return chain

    @property
    def name(self) -> str:
        """Stable name."""
        return "tags"

    def set_item_tags(self, item: int, tags: Sequence[str]) -> None:
        """Tags of item slot `item` from now on; moves that were learned stay. Repetitions count once."""
        found = (self._tag(tag) for tag in dict.fromkeys(tags))
        slots = np.array([slot for slot in found if slot >= 0], dtype=np.int32)
        items = self._items
        if item >= len(items.length):
            items = items._replace(start=grown(items.start, item + 1), length=grown(items.length, item + 1))
        if len(slots) > items.length[item]:
            items = items._replace(pool=grown(items.pool, self._n_pool + len(slots)))
            self._n_dead += int(items.length[item])
            items.start[item] = self._n_pool
            self._n_pool += len(slots)
        else:
            self._n_dead += int(items.length[item]) - len(slots)
        items.length[item] = len(slots)
        items.pool[items.start[item] : items.start[item] + len(slots)] = slots
        self._items = items
        if self._n_dead > 1_024 and 2 * self._n_dead > self._n_pool:
            self._restore_items(self._item_lists())

    def item_tags(self, item: int) -> list[str]:
        """Tags of an item as they are used here."""
        if not 0 <= item < len(self._items.length):
            return []
        start, count = int(self._items.start[item]), int(self._items.length[item])
        return [self.tags.id_of(int(slot)) for slot in self._items.pool[start : start + count]]

    def probabilities(self) -> Float64:
        """P: row-stochastic, rows and columns by tag slot; (G, G)."""
        g = len(self.tags)
        counts = self._matrix[:g, :g]
        rowsum = counts.sum(axis=1, keepdims=True)  # (G, 1)
        columns = counts.sum(axis=0)  # (G,)
        total = float(columns.sum())
        common = columns / total if total > 0 else np.full(g, 1.0 / max(g, 1))
        left = rowsum > 0
        result: Float64 = np.where(left, counts / np.where(left, rowsum, 1.0), common)  # (G, G)
        return result

    def distribution(self, tag: str, steps: int = 1) -> Float64:
        """Distribution over tags `steps` moves after `tag`, by tag slot; (G,).

        ``row tag of P^steps``. Cost: steps G^2 multiplications.

        Raises
        ------
        KeyError
            The tag is unknown.
        ValueError
            `steps` is negative.
        """
        slot = self.tags.find(tag)
        if slot < 0:
            raise KeyError(tag)
        if steps < 0:
            raise ValueError(f"{steps} steps")
        row: Float64 = np.zeros(len(self.tags))
        row[slot] = 1.0
        if steps:
            p = self.probabilities()
            for _ in range(steps):
                row = row @ p
        return row

    def next_tags(self, history: Int32) -> Float64:
        """Distribution over the tags of the next item after one history (H,), 0 if unknown; (G,).

        ``sum_j gamma^j mean_{g in A_j} P[g]``, normalised, over the newest 8 items and the tags that
        were left before.
        """
        out = np.zeros(len(self.tags), dtype=np.float64)
        next_tags(history, self._items, self._matrix, self._rowsum, GAMMA, N_LAGS, out)
        return out

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """Mean probability of the candidate's tags under `next_tags`, 0 where unknown; (B, C)."""
        out = np.zeros((len(contexts.history), len(items)), dtype=np.float32)
        n_tags = len(self.tags)
        score_tags(
            contexts.history, items, self._items, self._matrix, self._rowsum, n_tags, GAMMA, N_LAGS, out
        )
        return out

    def learn_many(self, batch: Interactions) -> None:
        """Count the batch's moves, in order."""
        if not len(batch):
            return
        learn_tags(
            batch.items,
            batch.weight,
            batch.fresh,
            batch.ts_ms,
            np.ascontiguousarray(batch.history[:, -1]),
            self._items,
            self._matrix,
            self._rowsum,
            self._clock,
            self._per_ms,
        )
        self._touched = True

    def touched(self) -> TouchedKeys:
        """The matrix as one dense parameter, if anything was learned since the last call."""
        dense = (DENSE,) if self._touched else ()
        self._touched = False
        return TouchedKeys(items=_NONE, users=_NONE, dense=dense)

    def snapshot(self) -> Arrays:
        """Copy of matrix, tag names and item tags."""
        g = len(self.tags)
        counts, pool = self._item_lists()
        names, ends = pack_strings(self.tags.ids)
        return {
            "matrix": self._matrix[:g, :g].copy(),
            "rowsum": self._rowsum[:g].copy(),
            "clock": self._clock.copy(),
            "tag_names": names,
            "tag_name_ends": ends,
            "item_tag_counts": counts,
            "item_tags": pool,
            "n_refused": np.array([self.n_refused], dtype=np.int64),
            "touched": np.array([self._touched]),
        }

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            Arrays are missing or damaged.
        """
        ends = taken(arrays, "tag_name_ends", self._clock)
        names = unpack_strings(taken(arrays, "tag_names", np.zeros(0, dtype=np.uint8)), ends)
        g = len(names)
        like: Float64 = np.zeros((0, g), dtype=np.float64)
        matrix = taken(arrays, "matrix", like, rows=g)
        rowsum = taken(arrays, "rowsum", self._rowsum, rows=g)
        clock = taken(arrays, "clock", self._clock, rows=2)
        counts, pool = taken(arrays, "item_tag_counts", _NONE), taken(arrays, "item_tags", _NONE)
        n_refused = taken(arrays, "n_refused", self._clock, rows=1)
        touched = taken(arrays, "touched", np.zeros(0, dtype=np.bool_), rows=1)
        self.tags = Interner(names, capacity=self.tags.capacity)
        capacity = max(g, min(_FIRST_TAGS, self.tags.capacity))
        self._matrix, self._rowsum = _square(matrix, capacity), _padded(rowsum, capacity)
        self._clock, self.n_refused, self._touched = clock, int(n_refused[0]), bool(touched[0])
        self._restore_items((counts, pool))

    def digest(self) -> str:
        """Hash of the matrix by tag slot, and of the tags by item slot."""
        arrays = self.snapshot()
        del arrays["touched"]
        return digest_arrays(arrays)

    def _tag(self, tag: str) -> int:
        slot = self.tags.get(tag)
        if slot < 0:
            self.n_refused += 1
        elif slot >= len(self._matrix):
            capacity = min(2 * len(self._matrix), self.tags.capacity)
            self._matrix, self._rowsum = _square(self._matrix, capacity), _padded(self._rowsum, capacity)
        return slot

    def _item_lists(self) -> tuple[Int32, Int32]:
        """Number of tags by item up to the last that has any, and all tags in item order."""
        items = self._items
        having = np.flatnonzero(items.length)
        n = int(having[-1]) + 1 if len(having) else 0
        slices = [
            items.pool[start : start + count]
            for start, count in zip(items.start[having], items.length[having], strict=True)
        ]
        return items.length[:n].copy(), np.concatenate([_NONE, *slices])

    def _restore_items(self, lists: tuple[Int32, Int32]) -> None:
        counts, pool = lists
        starts = np.cumsum(counts, dtype=np.int64) - counts
        self._items = ItemTags(start=starts, length=counts, pool=pool)
        self._n_pool, self._n_dead = len(pool), 0


def _square(matrix: Float64, capacity: int) -> Float64:
    """`matrix` in the corner of a larger one of zeros."""
    larger: Float64 = np.zeros((capacity, capacity), dtype=np.float64)
    larger[: len(matrix), : len(matrix)] = matrix
    return larger


def _padded(row: Float64, n: int) -> Float64:
    longer: Float64 = np.zeros(n, dtype=np.float64)
    longer[: len(row)] = row
    return longer
