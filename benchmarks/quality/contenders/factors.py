"""Matrix factorisations that learn one event at a time: ISGD and BPR."""

from __future__ import annotations

import numpy as np
from numba import njit

from learners.prequential import Asked
from schemas.learner import Interactions
from schemas.runs import Float32, Int32

from .scoring import ByScore, Room


class Isgd(ByScore):
    """Incremental SGD on positives alone: ``e = 1 - p_u . q_i``, ``p_u += rate (e q_i - reg p_u)``, as q_i.

    Items are ranked by ``-|1 - p_u . q_i|``.

    References
    ----------
    Vinagre, Jorge and Gama, Fast incremental matrix factorization for recommendation with
    positive-only feedback, UMAP 2014.
    """

    def __init__(
        self, room: Room, seed: int = 0, *, dim: int = 64, rate: float = 0.05, reg: float = 0.01
    ) -> None:
        self.name = "isgd"
        rng = np.random.default_rng(seed)
        self._users: Float32 = rng.normal(0.0, 0.1, (room.n_users, dim)).astype(np.float32)
        self._items: Float32 = rng.normal(0.0, 0.1, (room.n_items, dim)).astype(np.float32)
        self._rate, self._reg = np.float32(rate), np.float32(reg)

    def scores(self, asked: Asked) -> Float32:
        """Scores of all candidates, (B, n_items)."""
        product = self._users[asked.contexts.users] @ self._items[: asked.n_items].T
        distance: Float32 = np.abs(np.float32(1.0) - product)
        return -distance

    def learn(self, batch: Interactions) -> None:
        """Learn the positives of a micro-batch."""
        positive = batch.weight > 0
        users, items = batch.users[positive], batch.items[positive]
        _isgd(users, items, self._users, self._items, self._rate, self._reg)


class Bpr(ByScore):
    """Bayesian personalised ranking, online: every positive against `negatives` uniform items.

    ``x = p_u . (q_i - q_j) + b_i - b_j``, one step of rate on ``log sigma(x) - reg |.|^2``.

    References
    ----------
    Rendle et al., BPR: Bayesian personalized ranking from implicit feedback, UAI 2009.
    """

    def __init__(
        self, room: Room, seed: int = 0, *,
        dim: int = 64, rate: float = 0.05, reg: float = 0.002, negatives: int = 10,
    ) -> None:  # fmt: skip
        self.name = "bpr"
        self._rng = np.random.default_rng(seed)
        self._users: Float32 = self._rng.normal(0.0, 0.1, (room.n_users, dim)).astype(np.float32)
        self._items: Float32 = self._rng.normal(0.0, 0.1, (room.n_items, dim)).astype(np.float32)
        self._bias: Float32 = np.zeros(room.n_items, dtype=np.float32)
        self._rate, self._reg = np.float32(rate), np.float32(reg)
        self._negatives = negatives
        self._n_items = 0

    def scores(self, asked: Asked) -> Float32:
        """Scores of all candidates, (B, n_items)."""
        n = asked.n_items
        out: Float32 = self._users[asked.contexts.users] @ self._items[:n].T + self._bias[:n]
        return out

    def learn(self, batch: Interactions) -> None:
        """Learn the positives of a micro-batch."""
        positive = batch.weight > 0
        users, items = batch.users[positive], batch.items[positive]
        self._n_items = max(self._n_items, int(batch.items.max()) + 1)
        others = self._rng.integers(0, self._n_items, (len(items), self._negatives)).astype(np.int32)
        _bpr(users, items, others, self._users, self._items, self._bias, self._rate, self._reg)


@njit(nogil=True, cache=True)
def _isgd(users: Int32, items: Int32, P: Float32, Q: Float32, rate: np.float32, reg: np.float32) -> None:
    for n in range(len(users)):
        p, q = P[users[n]], Q[items[n]]
        e = np.float32(1.0)
        for k in range(len(p)):
            e -= p[k] * q[k]
        for k in range(len(p)):
            before = p[k]
            p[k] += rate * (e * q[k] - reg * before)
            q[k] += rate * (e * before - reg * q[k])


@njit(nogil=True, cache=True)
def _bpr(
    users: Int32, items: Int32, others: Int32, P: Float32, Q: Float32, bias: Float32,
    rate: np.float32, reg: np.float32,
) -> None:  # fmt: skip
    for n in range(len(users)):
        i, p = items[n], P[users[n]]
        for j in others[n]:
            if i == j:
                continue
            x = bias[i] - bias[j]
            for k in range(len(p)):
                x += p[k] * (Q[i, k] - Q[j, k])
            g = np.float32(1.0) / (np.float32(1.0) + np.exp(x))
            bias[i] += rate * (g - reg * bias[i])
            bias[j] -= rate * (g + reg * bias[j])
            for k in range(len(p)):
                before, a, b = p[k], Q[i, k], Q[j, k]
                p[k] += rate * (g * (a - b) - reg * before)
                Q[i, k] += rate * (g * before - reg * a)
                Q[j, k] -= rate * (g * before + reg * b)
