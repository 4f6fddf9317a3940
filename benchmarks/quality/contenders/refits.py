"""Models that are fitted to everything so far, again and again: iALS and EASE."""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learners.prequential import Asked
from schemas.learner import Interactions
from schemas.runs import Float32, Int32

from .popularity import Popular
from .scoring import ByScore, Room

_FIRST: Final = 1_000


class Refitted(ByScore):
    """Fits when the positives have grown by `growth` since the last fit; popularity until the first.

    A fit is made when something is asked, of what was there when it was due: one that nobody asks, because
    the next was due before anything was scored, costs nothing.

    Parameters
    ----------
    growth : float
        .25: the model is at most a fifth of the stream old, and the fits of a whole stream cost about
        five times the last one.
    most : int
        Fits are due at its multiples as well.
    """

    def __init__(self, room: Room, growth: float = 0.25, most: int = 1 << 40) -> None:
        self._growth = growth
        self._most = most
        self._room = room
        self._users: list[Int32] = []
        self._items: list[Int32] = []
        self._n = self._wanted = 0
        self._due = float(_FIRST)
        self.fits = 0
        self._popular = Popular(room, 7.0)

    @abstractmethod
    def fit(self, users: Int32, items: Int32) -> None:
        """Fit to all positives so far, in order; repeated pairs included."""

    @abstractmethod
    def fitted_scores(self, asked: Asked) -> Float32:
        """Scores (B, n_items) by the model as last fitted."""

    def scores(self, asked: Asked) -> Float32:
        """Scores of all candidates, (B, n_items)."""
        if self._wanted:
            users, items = np.concatenate(self._users), np.concatenate(self._items)
            self.fit(users[: self._wanted], items[: self._wanted])
            self.fits += 1
            self._wanted, self._users, self._items = 0, [users], [items]
        prior = self._popular.now(asked.n_items).astype(np.float32)
        if not self.fits:
            return np.repeat(prior[None, :], len(asked.targets), axis=0)
        return self.fitted_scores(asked) + np.float32(1e-2) * prior

    def learn(self, batch: Interactions) -> None:
        """Learn the positives of a micro-batch."""
        positive = batch.weight > 0
        self._users.append(batch.users[positive])
        self._items.append(batch.items[positive])
        self._n += int(positive.sum())
        self._popular.learn(batch)
        if self._n >= self._due:
            self._wanted = self._n
            self._due = min(self._n * (1.0 + self._growth), float((self._n // self._most + 1) * self._most))


class Ease(Refitted):
    """EASE on the most watched items: ``B = I - P diag(1 / P)``, ``P = (X^T X + lambda I)^-1``.

    ``score_x = sum_j decay^j B[a_j, x]`` over the last 50 items, which are folded in as they come.

    References
    ----------
    Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019.
    """

    def __init__(self, room: Room, *, lam: float = 100.0, top: int = 2_500, decay: float = 0.97) -> None:
        super().__init__(room)
        self.name = "ease"
        self._lam, self._top, self._decay = lam, top, decay
        self._place: Int32 = np.full(room.n_items + 1, -1, dtype=np.int32)
        self._kept: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._B: Float32 = np.zeros((1, 0), dtype=np.float32)

    def fit(self, users: Int32, items: Int32) -> None:
        """Fit to all positives so far."""
        counts = np.bincount(items, minlength=self._room.n_items)
        self._kept = np.sort(np.argsort(-counts, kind="stable")[: min(self._top, int((counts > 0).sum()))])
        n = len(self._kept)
        self._place[:] = n
        self._place[self._kept] = np.arange(n, dtype=np.int32)
        gram = gram_of(users, self._place[items], n).astype(np.float32)
        gram[np.diag_indices(n)] += np.float32(self._lam)
        P = np.linalg.inv(gram)
        B = -P / np.diag(P)
        B[np.diag_indices(n)] = 0.0
        self._B = np.concatenate([B, np.zeros((1, n), dtype=np.float32)]).astype(np.float32)

    def fitted_scores(self, asked: Asked) -> Float32:
        """Scores of all candidates, (B, n_items)."""
        history = asked.contexts.history
        fading = (self._decay ** np.arange(history.shape[1] - 1, -1, -1)).astype(np.float32)
        n = len(self._kept)
        X = np.zeros((len(history), n + 1), dtype=np.float32)
        rows = np.arange(len(history))[:, None]
        np.add.at(X, (rows, np.where(history >= 0, self._place[history], n)), fading[None, :])
        out = np.zeros((len(history), asked.n_items), dtype=np.float32)
        out[:, self._kept] = X[:, :n] @ self._B[:n]
        return out


def gram_of(users: Int32, items: Int32, n_items: int) -> NDArray[np.float32]:
    """``X^T X`` (n_items, n_items) of the binary matrix of pairs; items beyond n_items are left out.

    >>> gram_of(np.array([0, 0, 1, 0], np.int32), np.array([0, 1, 1, 1], np.int32), 2)
    array([[1., 1.],
           [1., 2.]], dtype=float32)
    """
    from scipy.sparse import csr_matrix

    kept = items < n_items
    shape = (int(users.max(initial=0)) + 1, n_items)
    X = csr_matrix((np.ones(int(kept.sum()), np.float32), (users[kept], items[kept])), shape=shape)
    X.data[:] = 1.0
    gram: NDArray[np.float32] = (X.T @ X).toarray()
    return gram


class Ials(Refitted):
    """Implicit ALS of the package implicit, the user folded in from all that they consumed so far.

    References
    ----------
    Hu, Koren and Volinsky, Collaborative filtering for implicit feedback datasets, ICDM 2008.
    """

    def __init__(
        self, room: Room, seed: int = 0, *,
        dim: int = 64, reg: float = 1.0, alpha: float = 10.0, iterations: int = 15, last: int = 50,
    ) -> None:  # fmt: skip
        super().__init__(room)
        self.name = "ials"
        self._seed, self._dim, self._reg = seed, dim, reg
        self._alpha, self._iterations, self._last = alpha, iterations, last
        self._factors: Float32 = np.zeros((0, dim), dtype=np.float32)
        self._gram: NDArray[np.float64] = np.zeros((dim, dim))

    def fit(self, users: Int32, items: Int32) -> None:
        """Fit to all positives so far."""
        from implicit.als import AlternatingLeastSquares
        from scipy.sparse import csr_matrix
        from threadpoolctl import threadpool_limits

        n_items = int(items.max()) + 1
        X = csr_matrix(
            (np.ones(len(users), np.float32), (users, items)), shape=(int(users.max()) + 1, n_items)
        )
        X.data[:] = 1.0
        with threadpool_limits(1, user_api="blas"):  # it warns where BLAS has threads of its own
            model = AlternatingLeastSquares(
                factors=self._dim, regularization=self._reg, alpha=self._alpha,
                iterations=self._iterations, random_state=self._seed, use_gpu=False, num_threads=1,
            )  # fmt: skip
            model.fit(X, show_progress=False)
        self._factors = np.array(model.item_factors, dtype=np.float32)
        self._gram = (self._factors.T @ self._factors).astype(np.float64) + self._reg * np.eye(self._dim)

    def fitted_scores(self, asked: Asked) -> Float32:
        """Fold-in: ``x = (Y^T Y + reg I + (alpha - 1) sum y y^T)^-1 alpha sum y``; scores ``Y x``."""
        n = len(self._factors)
        out = np.zeros((len(asked.targets), asked.n_items), dtype=np.float32)
        for i, row in enumerate(asked.contexts.history[:, -self._last :]):
            own = row[(row >= 0) & (row < n)]
            if len(own):
                Y = self._factors[np.unique(own)].astype(np.float64)
                left = self._gram + (self._alpha - 1.0) * (Y.T @ Y)
                x = np.linalg.solve(left, self._alpha * Y.sum(axis=0)).astype(np.float32)
                out[i, :n] = self._factors[: asked.n_items] @ x
        return out
