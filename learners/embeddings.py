"""Sequence encoder with a tied item table: a user is a function of the recent items.

::

    f_U = A [e_last ; sum_j pi_j e_j] + p_u         score of item C: f_U . e_C

over the last H items of the history, pi a softmax of learned positional logits, p_u a row of the
user, zero until a positive is learned. The user row is a residual; most of f_U answers within
the event. The loss and its gradient stand in `embedding_step`; items update by row-wise Adagrad.

`learn_many` cuts its batch, in row order, into steps of at most 128 targets (fresh positives) and
512 rows; all of a step is learned at the same parameters. So it differs from folding `learn_one`:
the histories are immediate, the parameters lag by at most one step, a batch border is a step
border. Rows that teach nothing: positives that are not fresh (their item was a target already).

Same seed and same batches give the same state, bit by bit, on a CPU with the same number of
threads. On a GPU sums run in varying order, and results agree to rounding.

References
----------
Yi et al., Sampling-bias-corrected neural modeling for large corpus item recommendations,
RecSys 2019 (logQ correction).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import StateError
from schemas.learner import Arrays, Contexts, Interactions, TouchedKeys
from schemas.runs import Float32, Int32

from .adagrad import DenseParameter, RowTable, row_norms
from .embedding_step import StepGradients, StepInput, encode, gradients
from .negatives import NegativeSampler, mix64

MAX_TARGETS: Final = 128
"""Fresh positives of one step: at the same rate, 512 learn too slowly."""

MAX_ROWS: Final = 512
N_NEGATIVES: Final = 1024
IMPRESSION_WEIGHT: Final = 0.1
"""Weight of an ignored impression in the logistic term; skips and dislikes weigh ``|omega|``."""

RATE: Final = 0.1
SQUARES_FLOOR: Final = 1e-8
SCORES_AT_ONCE: Final = 1 << 22
"""Scores held at a time when ranking against all items."""


class Ranked(NamedTuple):
    """Best items of B users."""

    items: Int32  # (B, k), best first, -1 padded
    logits: Float32  # (B, k), -inf where padded
    log_z: Float32  # (B,), logsumexp over all supported items: p = exp(logit - log_z)


class Embeddings:
    """Learner of the protocol in `schemas.learner`, name ``embeddings``.

    Cost on one core at d = 64 and 8 000 items: see docs/learning.

    Parameters
    ----------
    dim : int
        d.
    history : int
        H; longer histories are cut to their newest H.
    seed : int
        Of initial item vectors and negatives.
    device : torch.device
        Where tables and arithmetic live; counts and sampling stay on the CPU.
    """

    def __init__(
        self, *, dim: int = 64, history: int = 50, seed: int = 0, device: torch.device | None = None
    ) -> None:
        self._dim = dim
        self._history = history
        self._seed = seed
        self._device = device or torch.device("cpu")
        self._items = RowTable(dim, self._device, self._initial_items, rate=RATE, floor=SQUARES_FLOOR)
        self._users = RowTable(dim, self._device, self._initial_users, rate=RATE, floor=SQUARES_FLOOR)
        eye = torch.eye(dim, device=self._device)
        self._mixing = DenseParameter(torch.cat([0.5 * eye, eye], dim=1), rate=RATE, floor=SQUARES_FLOOR)
        self._positions = DenseParameter(
            torch.linspace(-3.0, 0.0, history, device=self._device), rate=RATE, floor=SQUARES_FLOOR
        )
        self._sampler = NegativeSampler(seed)
        self._n_items = 0
        self._n_user_rows = 0
        self._user_rows: Int32 = np.zeros(0, dtype=np.int32)  # (n_users,) row of a user slot, -1 none
        self._place: Int32 = np.zeros(0, dtype=np.int32)  # scratch: item -> row of the step, -1
        self._dirty_items: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self._dirty_users: NDArray[np.bool_] = np.zeros(0, dtype=np.bool_)
        self._dirty_dense = False
        self._on_host: Float32 | None = None
        self.discarded_steps = 0
        """Steps not taken because their loss or gradient was not finite."""

    @property
    def name(self) -> str:
        """Stable name."""
        return "embeddings"

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
            self._place = _grown(self._place, n_items, -1)
            self._dirty_items = _grown(self._dirty_items, n_items, False)
            self._n_items = n_items
            self._on_host = None
        if n_users > len(self._user_rows):
            self._user_rows = _grown(self._user_rows, n_users, -1)
            self._dirty_users = _grown(self._dirty_users, n_users, False)

    def item_vectors(self, items: Tensor) -> Tensor:
        """f_C of `items` (R,) int32 slots as a copy (R, d); the place where content comes in."""
        return self._items.gather(items)

    # -- learning -----------------------------------------------------------------------------

    def learn_many(self, batch: Interactions) -> None:
        """Learn a batch in row order, in steps (see the module); grows as slots demand."""
        if not len(batch):
            return
        newest = max(int(batch.items.max()), int(batch.history.max(initial=-1)))
        self.ensure(newest + 1, int(batch.users.max()) + 1)
        is_target = batch.fresh & (batch.weight > 0)
        rows = np.flatnonzero(is_target | (batch.weight <= 0))
        n_targets = np.cumsum(is_target[rows])
        start, before = 0, 0
        while start < len(rows):
            by_targets = int(np.searchsorted(n_targets, before + MAX_TARGETS, side="right"))
            end = min(by_targets, start + MAX_ROWS)
            self._learn_step(batch, rows[start:end], is_target)
            start, before = end, int(n_targets[end - 1])

    def _learn_step(self, batch: Interactions, rows: NDArray[np.intp], is_target: NDArray[np.bool_]) -> None:
        chosen = is_target[rows]
        n_targets = int(chosen.sum())
        rows = np.concatenate([rows[chosen], rows[~chosen]])
        items = batch.items[rows]
        targets, real = items[:n_targets], items[n_targets:]
        drawn_before = self._sampler.drawn
        drawn = self._sampler.draw(N_NEGATIVES) if n_targets else np.zeros(0, dtype=np.int32)
        history = self._cut(batch.history[rows])
        numbered = _number(targets, drawn, real, history, self._place)
        slots, times, n_candidates, target, negative, local_history = numbered
        candidates = slots[:n_candidates]
        expected = len(drawn) * self._sampler.shares(candidates) + n_targets * self._target_shares(candidates)
        log_expected = np.log(expected)
        users, user = np.unique(batch.users[rows], return_inverse=True)
        held = self._user_rows[users]
        weight = batch.weight[rows]
        weight[n_targets:] = np.where(weight[n_targets:] < 0, -weight[n_targets:], IMPRESSION_WEIGHT)
        step = StepInput(
            history=self._tensor(local_history),
            user=self._tensor(user.astype(np.int32)),
            target=self._tensor(target),
            weight=self._tensor(weight),
            negative=self._tensor(negative),
            correction=self._tensor((np.log(times[:n_candidates]) - log_expected).astype(np.float32)),
            target_correction=self._tensor(-log_expected[target].astype(np.float32)),
        )
        on_device = self._tensor(slots)
        item_rows = self.item_vectors(on_device)
        user_rows = self._gather_users(held)
        found = gradients(step, item_rows, user_rows, self._mixing.value, self._positions.value)
        item_norms, user_norms = row_norms(found.items), row_norms(found.users)
        if not _all_finite(found, item_norms, user_norms):
            self._sampler.drawn = drawn_before
            self.discarded_steps += 1
            return
        self._items.apply(on_device, found.items, item_norms)
        self._apply_users(users, batch.users[rows[:n_targets]], found.users, user_norms)
        self._mixing.apply(found.mixing)
        self._positions.apply(found.positions)
        self._sampler.add(targets)
        self._dirty_items[slots] = True
        self._dirty_dense = True
        self._on_host = None

    def _target_shares(self, items: Int32) -> NDArray[np.float64]:
        counts = self._sampler.counts
        return (counts[items] + 1.0) / (float(self._n_targets_learned()) + len(items))

    def _n_targets_learned(self) -> int:
        return int(self._sampler.counts.sum())

    def _gather_users(self, held: Int32) -> Tensor:
        rows = self._users.values.new_zeros(len(held), self._dim)
        known = np.flatnonzero(held >= 0)
        if len(known):
            rows[self._tensor(known)] = self._users.gather(self._tensor(held[known]))
        return rows

    def _apply_users(self, users: Int32, with_targets: Int32, gradient: Tensor, norms: Tensor) -> None:
        """Update the rows of `users` (U,); those with a target get a row where they have none."""
        new = np.intersect1d(users[self._user_rows[users] < 0], with_targets)
        self._user_rows[new] = np.arange(self._n_user_rows, self._n_user_rows + len(new), dtype=np.int32)
        self._n_user_rows += len(new)
        self._users.ensure(self._n_user_rows)
        held = self._user_rows[users]
        known = np.flatnonzero(held >= 0)
        if len(known):
            index = self._tensor(known)
            self._users.apply(self._tensor(held[known]), gradient[index], norms[index])
            self._dirty_users[users[known]] = True

    # -- reading ------------------------------------------------------------------------------

    def user_vectors(self, contexts: Contexts) -> Float32:
        """f_U of each context: (B, d). Slots never seen count as padding, or as no user row."""
        return _host(self._encode(contexts))

    def _encode(self, contexts: Contexts) -> Tensor:
        history = self._cut(contexts.history)
        history = np.where(history < self._n_items, history, np.int32(-1))
        users = contexts.users
        known = (users >= 0) & (users < len(self._user_rows))
        held = np.full(len(users), -1, dtype=np.int32)
        held[known] = self._user_rows[users[known]]
        vectors, _, _ = encode(
            self._items.values, self._tensor(history), self._positions.value[self._history - history.shape[1] :],
            self._mixing.value, self._users.values, self._tensor(held),
        )  # fmt: skip
        return vectors

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """Logits f_U . f_C: (B, C); 0 for an item without a row."""
        known = (items >= 0) & (items < self._n_items)
        slots = self._tensor(np.where(known, items, 0).astype(np.int32))
        if not known.any():
            return np.zeros((len(contexts.users), len(items)), dtype=np.float32)
        logits = _host(self._encode(contexts) @ self.item_vectors(slots).T)
        logits[:, ~known] = 0.0
        return logits

    def item_matrix(self) -> Float32:
        """All item vectors (N, d), not to be changed.

        On the CPU a view of the live table (stale after growth: ask again); on a GPU a copy,
        refreshed when something was learned since.
        """
        if self._device.type == "cpu":
            matrix: Float32 = self._items.values[: self._n_items].numpy()
            return matrix
        if self._on_host is None:
            self._on_host = _host(self._items.values[: self._n_items])
        return self._on_host

    def relevance(self, vectors: Float32, items: Int32) -> Float32:
        """Published relevance ``sigmoid(f_U . f_C)`` of `items` (B, k) for `vectors` (B, d); 0 at -1."""
        rows = self.item_matrix()[np.maximum(items, 0)]  # (B, k, d)
        z = np.einsum("bd,bkd->bk", vectors, rows)
        relevance: Float32 = np.where(items >= 0, 1.0 / (1.0 + np.exp(-z)), 0.0).astype(np.float32)
        return relevance


    def _cut(self, history: Int32) -> Int32:
        """The newest H columns."""
        return np.ascontiguousarray(history[:, max(history.shape[1] - self._history, 0) :])

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _initial_items(self, first: int, last: int) -> Float32:
        return _gaussian_rows(first, last, self._dim, self._seed)

    def _initial_users(self, first: int, last: int) -> Float32:
        return np.zeros((last - first, self._dim), dtype=np.float32)


def _grown(array: NDArray[Any], n: int, fill: int | bool) -> NDArray[Any]:
    """`array` with room for n entries, doubled so that growth is rare; at least n long."""
    if n <= len(array):
        return array
    grown = np.full(1 << (n - 1).bit_length(), fill, dtype=array.dtype)
    grown[: len(array)] = array
    return grown


def _host(tensor: Tensor) -> Float32:
    array: Float32 = tensor.cpu().numpy()
    return array


def _all_finite(found: StepGradients, item_norms: Tensor, user_norms: Tensor) -> bool:
    total = found.loss + item_norms.sum() + user_norms.sum()
    total = total + found.mixing.square().sum() + found.positions.square().sum()
    return bool(torch.isfinite(total))


@njit(nogil=True, cache=True)
def _number(
    targets: Int32, drawn: Int32, real: Int32, history: Int32, place: Int32
) -> tuple[Int32, Int32, int, NDArray[np.int64], Int32, Int32]:
    """Number the items of a step in order of appearance; `place` is all -1 before and after."""
    room = len(targets) + len(drawn) + len(real) + history.size
    slots = np.empty(room, dtype=np.int32)
    times = np.zeros(len(targets) + len(drawn), dtype=np.int32)
    n = 0
    target = np.empty(len(targets), dtype=np.int64)
    for i in range(len(targets)):
        item = targets[i]
        if place[item] < 0:
            place[item] = n
            slots[n] = item
            n += 1
        target[i] = place[item]
        times[place[item]] += 1
    for item in drawn:
        if place[item] < 0:
            place[item] = n
            slots[n] = item
            n += 1
        times[place[item]] += 1
    n_candidates = n
    negative = np.empty(len(real), dtype=np.int32)
    for i in range(len(real)):
        item = real[i]
        if place[item] < 0:
            place[item] = n
            slots[n] = item
            n += 1
        negative[i] = place[item]
    local = np.full(history.shape, -1, dtype=np.int32)
    for b in range(history.shape[0]):
        for j in range(history.shape[1]):
            item = history[b, j]
            if item >= 0:
                if place[item] < 0:
                    place[item] = n
                    slots[n] = item
                    n += 1
                local[b, j] = place[item]
    for i in range(n):
        place[slots[i]] = -1
    return slots[:n].copy(), times, n_candidates, target, negative, local


@njit(nogil=True, cache=True)
def _gaussian_rows(first: int, last: int, dim: int, seed: int) -> Float32:
    """Rows first .. last - 1 of N(0, 1 / dim), each a function of seed and row alone (Box-Muller)."""
    rows = np.empty((last - first, dim), dtype=np.float32)
    key = mix64(np.uint64(seed) ^ np.uint64(0x656D62656464))
    scale = 1.0 / np.sqrt(dim)
    for row in range(first, last):
        for k in range(dim):
            state = mix64(key ^ mix64(np.uint64(row) * np.uint64(dim) + np.uint64(k)))
            u = (np.float64(state >> np.uint64(40)) + 1.0) / 16777217.0
            v = np.float64(state & np.uint64(0xFFFFFF)) / 16777216.0
            rows[row - first, k] = scale * np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * v)
    return rows
