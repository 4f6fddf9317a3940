"""Tables of the embeddings and their state: growth, snapshots, and exchange with other instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import StateError
from schemas.learner import Arrays, TouchedKeys
from schemas.runs import Float32, Int32

from .adagrad import DEFAULT_RATES, DenseParameter, RowTable
from .embedding_graphs import CapturedSteps
from .embedding_options import EmbeddingOptions
from .embedding_rows import gaussian_rows, gaussian_rows_at
from .embedding_step import Dense
from .growth import grown
from .item_admission import MOST, ItemAdmission
from .item_head import HASTY_HEAD, HEAD, ItemHead
from .negatives import NegativeSampler
from .state import digest_arrays, taken
from .user_rows import UserRows

RATE: Final = 0.1
"""Of what Adagrad moves elementwise among the dense parameters."""

MIXING_RATE: Final = 0.003
"""Of A, W and V: at 0.1 A moves by its own size in the first steps: R@20 on ml-100k .272 instead of .282."""

ORIGIN_RATE: Final = 0.01
"""Of g, the vector of a user without a history."""

SQUARES_FLOOR: Final = 1e-8
INITIAL_NORM: Final = 1.0
"""Expected norm of a new item vector; at 0.3 histories of new items say little: R@20 up to .004 lower."""


class EmbeddingTables:
    """Item table, user rows, dense parameters and counts of `learners.embeddings.Embeddings`."""

    def __init__(
        self,
        *,
        dim: int = 64,
        history: int = 50,
        seed: int = 0,
        device: torch.device | None = None,
        options: EmbeddingOptions | None = None,
        heads: tuple[int, int] = (HEAD, HASTY_HEAD),
    ) -> None:
        self._dim, self._history, self._seed = dim, history, seed
        self.options = options or EmbeddingOptions()
        self._device = device or torch.device("cpu")
        rule = self.options.optimizer
        rate = DEFAULT_RATES[rule] if self.options.rate is None else self.options.rate
        self._items = RowTable(
            dim, self._device, self._initial_items, rate=rate, floor=SQUARES_FLOOR, rule=rule
        )
        self._users = UserRows(
            dim, self._device, rate=rate, floor=SQUARES_FLOOR, rule=rule,
            admission=self.options.user_admission, idle_ms=self.options.user_idle_ms,
        )  # fmt: skip
        self._dense = self._initial_dense()
        self._sampler = NegativeSampler(seed)
        self._admission = ItemAdmission(self.options.item_admission)
        self._head = ItemHead(dim, heads[0])
        self._hasty_head = ItemHead(dim, heads[1], prefix="hasty_head")
        self._n_items = 0
        self._place: Int32 = np.zeros(0, dtype=np.int32)  # scratch of number_items
        self._closed = torch.zeros(0, device=self._device)  # 0 for supported items, else -inf
        self._dirty_items: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self._dirty_dense = False
        self._on_host: Float32 = np.zeros((0, dim), dtype=np.float32)  # of a GPU: the item table, and
        self._stale: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)  # which of its rows have changed since
        self._captured: CapturedSteps | None = None
        self.discarded_steps = 0
        """Steps not taken because their loss or gradient was not finite."""

        self.discarded_in_a_row = 0
        """Of them, those since the last step that was taken."""

    @property
    def n_items(self) -> int:
        """Items with a row."""
        return self._n_items

    @property
    def support(self) -> Int32:
        """How often each item was a target; view (N,) int32, not to be changed."""
        return self._sampler.counts[: self._n_items]

    def ensure(self, n_items: int, n_users: int) -> None:
        """Make room for item slots below `n_items` and user slots below `n_users`."""
        if n_items > self._n_items:
            self._items.ensure(n_items)
            self._sampler.ensure(n_items)
            self._admission.ensure(n_items)
            self._place = grown(self._place, n_items, -1)
            self._dirty_items = grown(self._dirty_items, n_items, False)
            if n_items > len(self._closed):
                more = max(n_items, 2 * len(self._closed)) - len(self._closed)
                self._closed = torch.cat([self._closed, self._closed.new_full((more,), -torch.inf)])
            self._n_items = n_items
            self._stale = grown(self._stale, n_items, True)
        self._users.ensure(n_users)

    def item_vectors(self, items: Tensor) -> Tensor:
        """f_C of `items` (R,) int32 slots as a copy (R, d).

        All learning reads items through here: the place where content vectors come in.
        """
        return self._items.gather(items)

    def touched(self) -> TouchedKeys:
        """Drain the items, users and dense parameters changed since the last call."""
        items = np.flatnonzero(self._dirty_items).astype(np.int32)
        dense = tuple(self._dense) if self._dirty_dense else ()
        self._dirty_items[items] = False
        self._dirty_dense = False
        return TouchedKeys(items=items, users=self._users.touched(), dense=dense)

    def hurry(self, kept: float, *, user_rows_kept: float) -> None:
        """Keep a share of what Adagrad summed, and of the user rows: the next steps are larger.

        Adam and sgd rows learn as before, for they forget by themselves.
        """
        if self.options.optimizer == "adagrad":
            self._items.hurry(kept)
        self._users.hurry(kept if self.options.optimizer == "adagrad" else 1.0, user_rows_kept)
        for each in self._dense.values():
            each.hurry(kept)

    def export_rows(self, items: Int32) -> Arrays:
        """Absolute values of `items` (B,), for `import_rows` of another instance; copies.

        ``vector`` (B, d) float32, ``support`` (B,) int32, and ``held`` (B,) bool: False for an item
        without a row, whose other values are zero.
        """
        held = (items >= 0) & (items < self._n_items) & self._admission.admits(items)
        vectors = np.zeros((len(items), self._dim), dtype=np.float32)
        vectors[held] = host_array(self.item_vectors(self._tensor(items[held])))
        support = self.support[np.where(held, items, 0)] * held if held.any() else np.zeros_like(items)
        return {"vector": vectors, "support": support.astype(np.int32), "held": held}

    def import_rows(self, items: Int32, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `export_rows` gave of distinct `items` (B,); grows as slots demand.

        For reading: what Adagrad remembers of them is not part of it.

        Raises
        ------
        StateError
            Arrays are missing, or of another dimension.
        """
        vectors = taken(arrays, "vector", np.zeros((0, self._dim), np.float32), rows=len(items))
        support = taken(arrays, "support", items, rows=len(items))
        held = taken(arrays, "held", np.zeros(0, np.bool_), rows=len(items))
        items, vectors, support = items[held], vectors[held], support[held]
        if not len(items):
            return
        self.ensure(int(items.max()) + 1, 0)
        self._items.put(self._tensor(items), self._tensor(vectors))
        self._sampler.put(items, support)
        if not self._admission.is_open:
            self._admission.put(items, np.full(len(items), MOST, dtype=np.uint8))
        closed = np.where(support > 0, 0.0, -np.inf).astype(np.float32)
        self._closed[self._tensor(items.astype(np.int64))] = self._tensor(closed)
        for head in (self._head, self._hasty_head):
            head.imported(items, support, self._items.values[: self._n_items])
        self._not_on_host(items)

    def export_users(self, users: Int32) -> Float32:
        """p_u of user slots `users` (B,): (B, d), zero for a user without a row; a copy."""
        return self._users.export_rows(users)

    def import_users(self, users: Int32, rows: Float32) -> None:
        """Take over p_u of distinct `users` (B,).

        Raises
        ------
        StateError
            The rows are of another dimension.
        """
        rows = taken({"row": rows}, "row", np.zeros((0, self._dim), np.float32), rows=len(users))
        self._users.import_rows(users, rows)

    def export_dense(self) -> Arrays:
        """Values of the dense parameters by name, and ``counters``: number of items; copies.

        ``mixing`` (d, 2 d), ``positions`` (H,) and ``origin`` (d,) float32; with attention
        ``queries`` (n d, d), ``heads`` (n, H) and ``values`` (d, n d).
        """
        found: Arrays = {name: host_array(each.value).copy() for name, each in self._dense.items()}
        return {**found, "counters": np.array([self._n_items], dtype=np.int64)}

    def import_dense(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `export_dense` gave.

        Raises
        ------
        StateError
            Arrays are missing, or of another dimension, history length or number of heads.
        """
        values = {
            name: taken(arrays, name, host_array(each.value)[:0], rows=len(each.value))
            for name, each in self._dense.items()
        }
        (n_items,) = taken(arrays, "counters", np.zeros(0, np.int64), rows=1).tolist()
        self.ensure(n_items, 0)
        for name, value in values.items():
            self._dense[name].value.copy_(torch.from_numpy(value))

    def snapshot(self) -> Arrays:
        """Named arrays of the state, trimmed to what is in use; copies.

        ``users`` lists the slots with a row, in the order of the rows of ``user_values``.
        """
        n = self._n_items
        found: Arrays = {
            "shape": np.array([self._dim, self._history, self._seed, self._sampler.drawn], dtype=np.int64),
            "item_values": host_array(self._items.values[:n]).copy(),
            "item_squares": host_array(self._items.squares[:n]).copy(),
            "item_moments": host_array(self._items.moments[:n]).copy(),
            "item_counts": self.support.copy(),
            **self._admission.snapshot(n),
            **self._users.snapshot(),
            **self._head.snapshot(),
            **self._hasty_head.snapshot(),
        }
        for name, each in self._dense.items():
            found[name] = host_array(each.value).copy()
            found[f"{name}_squares"] = host_array(each.squares).copy()
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Become the state that `snapshot` described; copies what it is given.

        Raises
        ------
        StateError
            An array is missing or malformed, or of another dimension, history length or seed.
        """
        none = np.zeros(0, dtype=np.float32)
        row, slots = np.zeros((0, self._dim), np.float32), np.zeros(0, np.int32)
        dim, history, seed, drawn = taken(arrays, "shape", np.zeros(0, np.int64), rows=4).tolist()
        if (dim, history, seed) != (self._dim, self._history, self._seed):
            raise StateError(
                f"'shape': embeddings of dim {dim}, history {history}, seed {seed} do not fit settings"
                f" of dim {self._dim}, history {self._history}, seed {self._seed}"
            )
        counts = taken(arrays, "item_counts", slots)
        n = len(counts)
        items = (
            taken(arrays, "item_values", row, rows=n),
            taken(arrays, "item_squares", none, rows=n),
            taken(arrays, "item_moments", host_array(self._items.moments[:0]), rows=n),
        )
        hits = self._admission.check(arrays, counts)
        users = self._users.check(arrays)
        dense = {}
        for name, each in self._dense.items():
            like = host_array(each.value)[:0]
            value = taken(arrays, name, like, rows=len(each.value))
            dense[name] = value, taken(arrays, f"{name}_squares", like, rows=len(each.value))
        self._head.restore(arrays)
        self._hasty_head.restore(arrays)
        self._items.load(*items)
        self._users.load(users)
        for name, state in dense.items():
            self._dense[name].load(*state)
        self._sampler.load(counts, drawn)
        self._admission.load(hits)
        self._n_items = n
        self._place = np.full(n, -1, dtype=np.int32)
        self._closed = self._tensor(np.where(counts > 0, 0.0, -np.inf).astype(np.float32))
        self._dirty_items = np.zeros(len(self._place), dtype=np.bool_)
        self._dirty_dense = False
        self._on_host = np.zeros((0, self._dim), dtype=np.float32)
        self._stale = np.ones(n, dtype=np.bool_)

    def digest(self) -> str:
        """Hash of `snapshot` (hex)."""
        return digest_arrays(self.snapshot())

    def _not_on_host(self, items: Int32) -> None:
        if self._device.type != "cpu":
            self._stale[items] = True

    def _mirror(self) -> Float32:
        """The item table (N, d) on the host; costs a copy of the rows that have changed."""
        n = self._n_items
        rows = np.flatnonzero(self._stale[:n])
        if len(rows):
            self._on_host = grown(self._on_host, n, 0.0)
            self._stale[rows] = False
            values = self._items.values[:n] if 2 * len(rows) > n else self._items.gather(self._tensor(rows))
            self._on_host[slice(n) if 2 * len(rows) > n else rows] = host_array(values)
        return self._on_host[:n]

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _dense_values(self) -> Dense:
        """The dense parameters as they are now; without attention its three are empty."""
        held = {name: each.value for name, each in self._dense.items()}
        if not self.options.heads:
            flat = torch.zeros(0, self._dim, device=self._device)
            held |= {"queries": flat, "values": flat.T, "heads": flat[:, :0]}
        return Dense(**held)

    def _initial_dense(self) -> dict[str, DenseParameter]:
        d, h, n = self._dim, self._history, self.options.heads
        eye = torch.eye(d)
        start = {
            "mixing": (torch.cat([0.5 * eye, eye], dim=1), MIXING_RATE),
            "positions": (torch.linspace(-3.0, 0.0, h), RATE),
            "origin": (torch.zeros(d), ORIGIN_RATE),
        }
        if n:
            noise = torch.from_numpy(gaussian_rows(0, n * d, d, 1.0, self._seed))
            start["queries"] = (eye.repeat(n, 1) + noise, MIXING_RATE)
            start["heads"] = (torch.zeros(n, h), RATE)
            start["values"] = (torch.zeros(d, n * d), MIXING_RATE)
        return {
            name: DenseParameter(value.to(self._device), rate=rate, floor=SQUARES_FLOOR)
            for name, (value, rate) in start.items()
        }

    def _admit(self, items: Int32) -> None:
        """Count an event of each of `items` (N,), and give rows to those that have enough now."""
        new = self._admission.count(items)
        if len(new):
            rows = gaussian_rows_at(new, self._dim, INITIAL_NORM, self._seed)
            self._items.put(self._tensor(new), self._tensor(rows))

    def _unadmit(self, items: Int32, hits: NDArray[np.uint8]) -> None:
        """Take back `_admit` of `items` (N,), which had so many events before."""
        self._admission.put(items, hits)
        gone = np.unique(items[~self._admission.admits(items)])
        self._items.put(self._tensor(gone), torch.zeros(len(gone), self._dim, device=self._device))

    def _initial_items(self, first: int, last: int) -> Float32:
        if not self._admission.is_open:
            return np.zeros((last - first, self._dim), dtype=np.float32)
        return gaussian_rows(first, last, self._dim, INITIAL_NORM, self._seed)


def host_array(tensor: Tensor) -> Float32:
    """The tensor on the host; on the CPU a view."""
    array: Float32 = tensor.cpu().numpy()
    return array
