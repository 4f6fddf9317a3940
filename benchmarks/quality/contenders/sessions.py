"""Session neighbours (VS-kNN), a user's recent positives being their session."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from learners.prequential import Asked
from schemas.learner import Interactions
from schemas.runs import Float32, Int32, Int64

from .popularity import Popular
from .scoring import ByScore, Room


class SessionNeighbours(ByScore):
    """What the most similar of recent sessions have, close to the items in common.

    The sessions looked at are those of the last `recent` users of each of the newest `length` items.
    ``similarity = sum over common items of idf w(j)``, j their place from the end here,
    ``w(j) = 1 / (j + 1)``, ``idf = log(1 + n / c)``; of the `neighbours` most similar::

        score_x = sum similarity w(j*) idf_x [x in the session]

    j* the newest common item's place. Popularity (half-life of 7 days) orders the rest.

    References
    ----------
    Ludewig and Jannach, Evaluation of session-based recommendation algorithms, UMUAI 2018.
    """

    def __init__(
        self, room: Room, *, history: int = 50, length: int = 10, recent: int = 500, neighbours: int = 200
    ) -> None:
        self.name = "vs_knn"
        self._length = length
        self._neighbours = neighbours
        self._sessions: Int32 = np.full((room.n_users, history), -1, dtype=np.int32)
        self._readers: Int32 = np.full((room.n_items, recent), -1, dtype=np.int32)
        self._counts: Int64 = np.zeros(room.n_items, dtype=np.int64)
        self._similarity: Float32 = np.zeros(room.n_users, dtype=np.float32)
        self._place: Int32 = np.zeros(room.n_users, dtype=np.int32)
        self._n = 0
        self._popular = Popular(room, 7.0)

    def scores(self, asked: Asked) -> Float32:
        """Scores of all candidates, (B, n_items)."""
        n = asked.n_items
        back_off = (1e-3 * self._popular.now(n)).astype(np.float32)
        out = np.repeat(back_off[None, :], len(asked.targets), axis=0)
        idf = np.log1p(self._n / (self._counts[:n] + 1.0)).astype(np.float32)
        found = np.empty(self._length * self._readers.shape[1], dtype=np.int32)
        for i, user in enumerate(asked.contexts.users.tolist()):
            session = asked.contexts.history[i, -self._length :]
            m = _collect(user, session, self._readers, idf, self._similarity, self._place, found)
            chosen = found[:m]
            if m > self._neighbours:
                best = np.argpartition(-self._similarity[chosen], self._neighbours)
                chosen = chosen[best[: self._neighbours]]
            _vote(chosen, self._sessions, self._similarity, self._place, idf, out[i])
            self._similarity[found[:m]] = 0.0
        return out

    def learn(self, batch: Interactions) -> None:
        """Learn the positives of a micro-batch."""
        positive = batch.weight > 0
        _remember(batch.users, batch.items, positive, self._sessions, self._readers, self._counts)
        self._n += int(positive.sum())
        self._popular.learn(batch)


@njit(nogil=True, cache=True)
def _collect(
    user: int, session: Int32, readers: Int32, idf: Float32, similarity: Float32, place: Int32, found: Int32
) -> int:
    n = 0
    for j in range(len(session)):
        item = session[len(session) - 1 - j]
        if item < 0:
            break
        w = idf[item] / np.float32(j + 1.0)
        for other in readers[item]:
            if other < 0 or other == user:
                continue
            if similarity[other] == 0.0:
                found[n], place[other] = other, j
                n += 1
            similarity[other] += w
    return n


@njit(nogil=True, cache=True)
def _vote(
    chosen: Int32, sessions: Int32, similarity: Float32, place: Int32, idf: Float32, out: Float32
) -> None:
    for other in chosen:
        w = similarity[other] / np.float32(place[other] + 1.0)
        for item in sessions[other]:
            if 0 <= item < len(out):
                out[item] += w * idf[item]


@njit(nogil=True, cache=True)
def _remember(
    users: Int32, items: Int32, positive: NDArray[np.bool_], sessions: Int32, readers: Int32, counts: Int64
) -> None:
    for i in range(len(users)):
        if not positive[i]:
            continue
        user, item = users[i], items[i]
        own, known = sessions[user], readers[item]
        again = False
        for k in range(len(own)):
            again = again or own[k] == item
        if not again:
            known[counts[item] % len(known)] = user
            counts[item] += 1
        own[:-1] = own[1:].copy()
        own[-1] = item
