"""Lists for users without embeddings: candidates scored by the gate, filtered, with their reasons.

Candidates of a user: what the transition rows of the newest history items name, popular items of
two half-lives, and (where seen items may be shown again) the history. A user without history gets
what is popular. Only the rows are looked at for each user: 5 microseconds a list of 20. With
embeddings lists come from `serving.recommender`, which shares what is answered from items alone.

Not safe for use by several threads at once: the scratch memory is shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from learners.blend import Gate, make_work
from learners.blend_kernels import (
    EMBEDDING,
    POPULARITY,
    TRANSITIONS,
    Bools,
    Lists,
    Popular,
    Rows,
    Work,
)
from learners.blend_lists import fill_unseen, rank_sparse
from learners.evaluation import places_in
from learners.popularity import is_available
from schemas.fork_join import ALONE, ForkJoin
from schemas.learner import Contexts
from schemas.runs import Float32, Int8, Int32

from .popular_pool import PopularPool

if TYPE_CHECKING:
    from learners.embeddings import Embeddings
    from learners.popularity import Popularity
    from learners.transitions import Transitions

__all__ = ["EMBEDDING", "POPULARITY", "SOURCES", "TRANSITIONS", "Ranked", "Ranker"]

SOURCES: Final = ("transitions", "embedding", "popularity", "neighbours", "exploration", "content")
EXPLORATION: Final = SOURCES.index("exploration")
CONTENT: Final = SOURCES.index("content")
"""Names by code of `Ranked.sources`."""

N_LAST: Final = 8
N_LAST_SPARSE: Final = 4
"""Newest history items whose rows are followed, with and without embeddings."""

NEIGHBOURS: Final = 100
LEAST_SHARED: Final = 512
SLACK: Final = 4
"""Scratch memory by item has a quarter more than there are: rows grow a few per cent at a time."""
"""Users from which on two threads rank: full chunks, which come when there is much to do."""

HALF_MOVES: Final = 0.05
"""Share of moves to an item at which similarity by transitions is one half."""


class Ranked(Struct, kw_only=True):
    """Lists of B users, best first; items of -1 pad lists that ran out of candidates.

    relevance is in (0, 1): sigmoid(f_U . f_C) with embeddings; otherwise, and for users without
    history, the gate's softmax probability that this item is the next one. The order is that of
    `scores`, from which relevance may differ.
    """

    items: Int32  # (B, k)
    scores: Float32  # (B, k) gate score
    relevance: Float32  # (B, k)
    sources: Int8  # (B, k) index into SOURCES: what contributed most
    propensities: Float32 | None = None  # (B, k) probability of being shown here; None for 1 throughout
    reasons: Int32  # (B, k) history item that transitions or neighbours came from, else -1

    @classmethod
    def empty(cls, n: int, k: int) -> Ranked:
        """Room for `n` lists of `k` places; relevance is 0."""
        return cls(
            items=np.empty((n, k), dtype=np.int32),
            scores=np.empty((n, k), dtype=np.float32),
            relevance=np.zeros((n, k), dtype=np.float32),
            sources=np.empty((n, k), dtype=np.int8),
            reasons=np.empty((n, k), dtype=np.int32),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that there are, by name."""
        held = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: array for name, array in held.items() if array is not None}

    def first(self, k: int) -> Ranked:
        """The first `k` places of every list; itself when it has no more."""
        if self.items.shape[1] <= k:
            return self
        return Ranked(**{name: np.ascontiguousarray(array[:, :k]) for name, array in self.arrays().items()})

    def at(self, rows: NDArray[np.intp]) -> Ranked:
        """Some of the lists, copied."""
        return Ranked(**{name: array[rows] for name, array in self.arrays().items()})


class ItemLists:
    """What every ranker answers from transitions, popularity and embeddings.

    Parameters
    ----------
    transitions, popularity, embeddings
        The learners; `embeddings` is None on the transitions path.
    list_size : int
        k.
    exclude_seen : bool
        Whether consumed items are never listed again. Otherwise only the newest few are left out.
    """

    def __init__(
        self,
        transitions: Transitions,
        popularity: Popularity,
        embeddings: Embeddings | None,
        *,
        list_size: int,
        exclude_seen: bool,
    ) -> None:
        self._transitions = transitions
        self._popularity = popularity
        self._embeddings = embeddings
        self._list_size = list_size
        self._exclude_seen = exclude_seen
        self._n_last = N_LAST_SPARSE if embeddings is None else N_LAST
        self.hasty = False
        """Whether there is more to do than time, so that lists may be made from fewer items."""

    def rank_popularity(
        self, seen: Int32, k: int, *, which: int = 0, withdrawn: Bools | None = None
    ) -> Int32:
        """The `k` most popular items at half-life number `which` that are not in `seen` (B, S): (B, k).

        Exact, and of this moment: nothing is reused from earlier calls. Without those that
        `withdrawn` (n,) marks. Padded with -1.
        """
        tops = self._popularity.best(k + seen.shape[1], which, withdrawn=withdrawn)
        tops = tops[tops >= 0]
        out: Int32 = np.full((len(seen), k), -1, dtype=np.int32)
        fill_unseen(tops, seen, out)
        return out

    def prepare(self, contexts: Contexts, seen: Int32, withdrawn: Bools) -> None:
        """Do now what places and the gate's learning share for these contexts, if there is anything."""

    def similar_items(self, item: int, k: int, withdrawn: Bools | None = None) -> tuple[Int32, Float32]:
        """At most `k` available items near an item, and their similarity in (0, 1), best first.

        ``1 - (1 - t) (1 - max(cos, 0))`` with t = m / (m + 0.05): m is the share of moves between
        the two, both ways, as the item's transition row has it, cos the cosine of their vectors.
        """
        n = 4 * k + NEIGHBOURS
        by_moves, moves = self._transitions.neighbours(item, n)
        near: tuple[Int32, Float32] = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        if self._embeddings is not None and item < self._embeddings.n_items:
            near = self._embeddings.similar(item, n, withdrawn)
        items = np.union1d(by_moves, near[0]).astype(np.int32)
        t, cosine = np.zeros(len(items)), np.zeros(len(items))
        t[np.searchsorted(items, by_moves)] = moves / (moves + HALF_MOVES)
        cosine[np.searchsorted(items, near[0])] = np.maximum(near[1], 0.0)
        similarity = 1.0 - (1.0 - t) * (1.0 - cosine)
        if withdrawn is not None:
            similarity[~is_available(items, withdrawn)] = 0.0
        best = np.argsort(-similarity, kind="stable")[:k]
        best = best[similarity[best] > 0.0]
        return items[best], np.clip(similarity[best], 1e-4, 1.0 - 1e-4).astype(np.float32)

    def _rows(self) -> Rows:
        view = self._transitions.view()
        return Rows(view.nbr, view.w, view.rowsum, view.gammas, view.kappa, view.scale, self._n_last)


class Ranker(ItemLists):
    """Ranks with what transitions and popularity know now.

    Parameters
    ----------
    transitions, popularity, gate
        The learners. Only `learn_gate` changes one.
    list_size : int
        k.
    exclude_seen : bool
        As in `ItemLists`.
    fork_join : ForkJoin
        Threads to rank many users with.
    """

    def __init__(
        self,
        transitions: Transitions,
        popularity: Popularity,
        gate: Gate,
        *,
        list_size: int,
        exclude_seen: bool,
        fork_join: ForkJoin = ALONE,
    ) -> None:
        super().__init__(transitions, popularity, None, list_size=list_size, exclude_seen=exclude_seen)
        self._gate = gate
        self._pool = PopularPool(popularity, list_size=list_size)
        self._scoring_pool = PopularPool(popularity, list_size=list_size)
        self._works: list[Work] = []  # one a thread
        self._fork_join = fork_join

    def settle(self) -> None:
        """Forget what scoring and the gate's learning kept between calls; call it at every cut.

        From a cut on, what they do is then a function of the state at the cut and of the batches
        after it, whatever was published meanwhile: the learners' digests agree bit by bit between
        a process that went on and one that was restored. Costs one preparation, 1 ms.
        """
        self._scoring_pool.settle()

    def rank(
        self,
        contexts: Contexts,
        seen: Int32,
        withdrawn: Bools,
        *,
        scoring: bool = False,
        k: int | None = None,
    ) -> Ranked:
        """Lists of B users.

        Parameters
        ----------
        contexts : Contexts
        seen : Int32
            (B, S) consumed items, -1 padded.
        withdrawn : Bools
            (n,) by item slot, True for what must not be listed; later slots are available.
        scoring : bool
            Whether the lists are made from the log alone, to be scored: see `settle`.
        k : int, optional
            Places, at most one more than `list_size`, which it is by default.
        """
        n = len(contexts.users)
        k = self._list_size if k is None else k
        ranked = Ranked.empty(n, k)
        if not n:
            return ranked
        out = Lists(ranked.items, ranked.scores, ranked.relevance, ranked.sources, ranked.reasons)
        weights = self._gate.weights
        # So many that a user who has seen as many popular ones as can be known still gets a full list.
        depth = k + contexts.history.shape[1] + seen.shape[1]
        if not withdrawn.any():
            withdrawn = withdrawn[:0]  # nobody asks about it then
        if scoring:
            popular = self._scoring_pool.prepared(weights, withdrawn, depth)
        else:
            popular = self._pool.prepared(weights, withdrawn, depth, contexts.now_ms)
        history, seen = np.ascontiguousarray(contexts.history), np.ascontiguousarray(seen)
        rows = self._rows()
        work = self._work_for(rows, popular, history, len(withdrawn))
        everyone: Int32 = np.arange(n, dtype=np.int32)
        turn = np.zeros(1, dtype=np.int64)

        def rank(work: Work) -> None:
            rank_sparse(
                everyone, turn, history, seen, withdrawn, self._exclude_seen, rows, popular, weights, work,
                out,
            )  # fmt: skip

        if self._fork_join.n > 1 and n >= LEAST_SHARED:
            self._fork_join.helped(lambda: rank(work), lambda: rank(self._works[1]))
        else:
            rank(work)
        return ranked

    def places(self, contexts: Contexts, targets: Int32, seen: Int32, withdrawn: Bools) -> Int32:
        """0-based place of each of `targets` (B,) in its user's list, ties against it; -1: none.

        The list is made from the log alone, see `settle`. It is looked at one place beyond its end:
        a target that ties with what stands there has no place either.
        """
        ranked = self.rank(contexts, seen, withdrawn, scoring=True, k=self._list_size + 1)
        places = places_in(targets, ranked.items, ranked.scores)
        places[places >= self._list_size] = -1
        return places

    def learn_gate(
        self,
        contexts: Contexts,
        targets: Int32,
        seen: Int32 | None = None,
        withdrawn: Bools | None = None,
        *,
        every: int = 1,
    ) -> int:
        """Teach the gate from what was watched next; call it before the other learners learn.

        Parameters
        ----------
        contexts : Contexts
            B users as they were before their events.
        targets : Int32
            (B,) the item of the event, -1 for a row that teaches nothing.
        seen, withdrawn
            As in `rank`, where known.
        every : int
            Learn from every so many-th target only (counted across calls): every tenth costs 0.4
            points of R@20 and a tenth of the time, 5 to 10 microseconds a target.

        Returns
        -------
        int
            Targets that were among their candidates, from which it learned.
        """
        turn = self._gate.take_turns(np.flatnonzero(targets >= 0).astype(np.int32), every)
        if not len(turn):
            return 0
        unavailable = np.zeros(0, dtype=np.bool_) if withdrawn is None else withdrawn
        history = np.ascontiguousarray(contexts.history)
        popular = self._scoring_pool.prepared(self._gate.weights, unavailable, 0)
        rows = self._rows()
        return self._gate.learn(
            turn,
            np.ascontiguousarray(targets, dtype=np.int32),
            history,
            np.zeros((len(history), 0), dtype=np.int32) if seen is None else np.ascontiguousarray(seen),
            unavailable,
            self._exclude_seen,
            rows,
            popular,
            self._work_for(rows, popular, history, len(unavailable)),
        )

    def _work_for(self, rows: Rows, popular: Popular, history: Int32, n_withdrawn: int) -> Work:
        n_items = max(len(rows.nbr), len(popular.features), n_withdrawn)
        n_places = rows.n_last * rows.nbr.shape[1]
        n_candidates = n_places + history.shape[1] + popular.items.shape[1] + self._list_size + 1
        works = self._works
        if not works or len(works[0].slot) < n_items or len(works[0].ids) < n_candidates:
            works[:] = [
                make_work(n_items + n_items // SLACK, n_candidates, self._list_size + 1, n_places)
                for _ in range(self._fork_join.n)
            ]
        return works[0]
