"""Lists for users: candidates of all sources, scored by the gate, filtered, with their reasons.

Candidates of a user: what the transition rows of the newest history items name, popular items of
two half-lives, the embedding's nearest, and (where seen items may be shown again) the history. A
user without history gets what is popular. Without embeddings only the rows are looked at for each
user, 5 microseconds a list of 20; with them the cost is that of scoring all items.

Not safe for use by several threads at once: the scratch memory is shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from learners.blend import POPULAR_CANDIDATES, Gate, make_work, prepare_popular, rescored, without_embeddings
from learners.blend_kernels import (
    EMBEDDING,
    POPULARITY,
    TRANSITIONS,
    Bools,
    Embedded,
    Lists,
    Popular,
    Rows,
    Work,
)
from learners.blend_lists import fill_unseen, rank_full, rank_sparse
from schemas.learner import Contexts
from schemas.runs import Float32, Int8, Int32

if TYPE_CHECKING:
    from learners.embeddings import Embeddings
    from learners.popularity import Popularity
    from learners.transitions import Transitions

__all__ = ["EMBEDDING", "POPULARITY", "SOURCES", "TRANSITIONS", "Ranked", "Ranker"]

SOURCES: Final = ("transitions", "embedding", "popularity")
"""Names by code of `Ranked.sources`."""

N_LAST: Final = 8
N_LAST_SPARSE: Final = 4
"""Newest history items whose rows are followed, with and without embeddings."""

EMBEDDING_CANDIDATES: Final = 100
ALWAYS_PREPARED: Final = 64
"""Calls in the beginning for which popularity is always prepared anew."""

NEIGHBOURS: Final = 100
READY_DEPTH: Final = 512
"""Popular items that `Popularity` keeps in order."""

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
    reasons: Int32  # (B, k) history item that transitions came from, -1 for other sources

    def first(self, k: int) -> Ranked:
        """The first `k` places of every list; itself when it has no more."""
        if self.items.shape[1] <= k:
            return self
        names = self.__struct_fields__
        return Ranked(**{name: np.ascontiguousarray(getattr(self, name)[:, :k]) for name in names})


class Ranker:
    """Ranks with what the learners know now.

    Parameters
    ----------
    transitions, popularity, embeddings, gate
        The learners; `embeddings` is None on the transitions path. Only `learn_gate` changes one.
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
        gate: Gate,
        *,
        list_size: int,
        exclude_seen: bool,
    ) -> None:
        self._transitions = transitions
        self._popularity = popularity
        self._embeddings = embeddings
        self._gate = gate
        self._list_size = list_size
        self._exclude_seen = exclude_seen
        self._n_last = N_LAST_SPARSE if embeddings is None else N_LAST
        self._popular: Popular | None = None
        self._weights: Float32 = gate.weights
        self._tops: Int32 = np.zeros(0, dtype=np.int32)
        self._n_prepared = 0
        self._work: Work | None = None
        self._ranked_contexts: Contexts | None = None
        self._ranked_embedded: Embedded | None = None

    def rank(self, contexts: Contexts, seen: Int32, withdrawn: Bools) -> Ranked:
        """Lists of B users.

        Parameters
        ----------
        contexts : Contexts
        seen : Int32
            (B, S) consumed items, -1 padded.
        withdrawn : Bools
            (n,) by item slot, True for what must not be listed; later slots are available.
        """
        n = len(contexts.users)
        k = self._list_size
        ranked = Ranked(
            items=np.empty((n, k), dtype=np.int32),
            scores=np.empty((n, k), dtype=np.float32),
            relevance=np.zeros((n, k), dtype=np.float32),
            sources=np.empty((n, k), dtype=np.int8),
            reasons=np.empty((n, k), dtype=np.int32),
        )
        if not n:
            return ranked
        out = Lists(ranked.items, ranked.scores, ranked.relevance, ranked.sources, ranked.reasons)
        popular, weights = self._prepared(withdrawn)
        history, seen = np.ascontiguousarray(contexts.history), np.ascontiguousarray(seen)
        rows = self._rows()
        work = self._work_for(rows, popular, history, len(withdrawn))
        everyone: Int32 = np.arange(n, dtype=np.int32)
        embedded = self._embedded(contexts)
        self._ranked_contexts, self._ranked_embedded = contexts, embedded
        if embedded is None:
            sparse = everyone
        else:
            cold = history[:, -1] < 0  # right-aligned: nothing at the end, nothing at all
            sparse = everyone[cold]
            rank_full(
                everyone[~cold], history, seen, withdrawn, self._exclude_seen, rows, popular, embedded,
                weights, work, out,
            )  # fmt: skip
        if len(sparse):
            rank_sparse(
                sparse, history, seen, withdrawn, self._exclude_seen, rows, popular, weights, work, out
            )
        return ranked

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

        Given the very `contexts` object that was ranked last, it reuses the embedding's part.

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
            points of R@20 and a tenth of the time, 5 to 10 microseconds a target without embeddings.

        Returns
        -------
        int
            Targets that were among their candidates, from which it learned.
        """
        turn = self._gate.take_turns(np.flatnonzero(targets >= 0).astype(np.int32), every)
        if not len(turn):
            return 0
        if contexts is self._ranked_contexts:
            embedded = self._ranked_embedded
        else:
            contexts = Contexts(
                users=contexts.users[turn], history=contexts.history[turn], now_ms=contexts.now_ms
            )
            targets = targets[turn]
            seen = None if seen is None else seen[turn]
            turn = np.arange(len(turn), dtype=np.int32)
            embedded = self._embedded(contexts)
        history = np.ascontiguousarray(contexts.history)
        unavailable = np.zeros(0, dtype=np.bool_) if withdrawn is None else withdrawn
        popular, _ = self._prepared(unavailable)
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
            without_embeddings() if embedded is None else embedded,
            self._work_for(rows, popular, history, len(unavailable)),
        )

    def rank_popularity(
        self, seen: Int32, k: int, *, which: int = 0, withdrawn: Bools | None = None
    ) -> Int32:
        """The `k` most popular items at half-life number `which` that are not in `seen` (B, S): (B, k).

        Always of this moment: nothing is reused from earlier calls. Padded with -1.
        """
        n_blocked = 0 if withdrawn is None else int(np.count_nonzero(withdrawn))
        tops = self._popularity.top(k + seen.shape[1] + n_blocked, which)
        tops = tops[tops >= 0]
        if withdrawn is not None:
            tops = tops[~is_among(tops, withdrawn)]
        out: Int32 = np.full((len(seen), k), -1, dtype=np.int32)
        fill_unseen(tops, seen, out)
        return out

    def similar_items(self, item: int, k: int, withdrawn: Bools | None = None) -> tuple[Int32, Float32]:
        """At most `k` items near an item, and their similarity in (0, 1), best first.

        ``1 - (1 - t) (1 - max(cos, 0))`` with t = m / (m + 0.05): m is the share of moves between
        the two, both ways, as the item's transition row has it, cos the cosine of their vectors.
        """
        n = 4 * k + NEIGHBOURS
        by_moves, moves = self._transitions.neighbours(item, n)
        near: tuple[Int32, Float32] = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        if self._embeddings is not None and item < self._embeddings.n_items:
            near = self._embeddings.similar(item, n)
        items = np.union1d(by_moves, near[0]).astype(np.int32)
        t, cosine = np.zeros(len(items)), np.zeros(len(items))
        t[np.searchsorted(items, by_moves)] = moves / (moves + HALF_MOVES)
        cosine[np.searchsorted(items, near[0])] = np.maximum(near[1], 0.0)
        similarity = 1.0 - (1.0 - t) * (1.0 - cosine)
        if withdrawn is not None:
            similarity[is_among(items, withdrawn)] = 0.0
        best = np.argsort(-similarity, kind="stable")[:k]
        best = best[similarity[best] > 0.0]
        return items[best], np.clip(similarity[best], 1e-4, 1.0 - 1e-4).astype(np.float32)

    def _prepared(self, withdrawn: Bools) -> tuple[Popular, Float32]:
        """Popularity as the kernels want it, and the gate's weights.

        Popularity is prepared anew when its order was (after every 256th event or so); in the
        beginning, when every event counts and a preparation is cheap, always.
        """
        weights = self._gate.weights
        popularity = self._popularity
        used = (0, min(1, popularity.n_half_lives - 1))
        tops = np.concatenate([self._available_top(which, withdrawn) for which in used])
        popular = self._popular
        if popular is None or self._n_prepared < ALWAYS_PREPARED or not np.array_equal(tops, self._tops):
            shares: Float32 = np.stack([popularity.shares(which) for which in used])
            popular = prepare_popular(shares, tops, weights)
            self._tops = tops
            self._n_prepared += 1
        elif not np.array_equal(weights[:, 3:5], self._weights[:, 3:5]):
            popular = rescored(popular, weights)
        self._popular, self._weights = popular, weights
        return popular, weights

    def _available_top(self, which: int, withdrawn: Bools) -> Int32:
        """The most popular items that may be listed, enough for a list of nothing else."""
        n = max(POPULAR_CANDIDATES, 2 * self._list_size)
        tops = self._popularity.top(n, which)
        n_blocked = int(np.count_nonzero(withdrawn))
        if not n_blocked or not is_among(tops, withdrawn).any():
            return tops
        # Deeper only where it is needed: from the order that stands ready, then from a new one.
        for depth in (max(n, READY_DEPTH), n + n_blocked):
            tops = self._popularity.top(depth, which)
            available = tops[~is_among(tops, withdrawn)][:n]
            if len(available) == n:
                break
        return available

    def _rows(self) -> Rows:
        view = self._transitions.view()
        return Rows(view.nbr, view.w, view.rowsum, view.gammas, view.kappa, view.scale, self._n_last)

    def _embedded(self, contexts: Contexts) -> Embedded | None:
        """The embedding's part, None where it has learned nothing yet."""
        embeddings = self._embeddings
        if embeddings is None:
            return None
        support = embeddings.support
        n_supported = int(np.count_nonzero(support))
        if not n_supported:
            return None
        vectors = embeddings.user_vectors(contexts)
        nearest = embeddings.ranked(vectors, EMBEDDING_CANDIDATES, embeddings.n_items)
        return Embedded(
            vectors=vectors,
            matrix=embeddings.item_matrix(),
            support=support,
            top=nearest.items,
            log_z=nearest.log_z,
            log_n=float(np.log(n_supported)),
        )

    def _work_for(self, rows: Rows, popular: Popular, history: Int32, n_withdrawn: int) -> Work:
        n_embedded = 0 if self._embeddings is None else self._embeddings.n_items
        n_items = max(len(rows.nbr), len(popular.features), n_withdrawn, n_embedded)
        n_candidates = (
            rows.n_last * rows.nbr.shape[1] + history.shape[1] + popular.items.shape[1] + EMBEDDING_CANDIDATES
        )
        work = self._work
        if work is None or len(work.slot) < n_items or len(work.ids) < n_candidates:
            # Rows grow by doubling, and so does this.
            work = self._work = make_work(n_items, n_candidates, self._list_size)
        return work


def is_among(items: Int32, mask: Bools) -> Bools:
    """Which of `items` (n,) the mask by item slot names; none that are -1 or beyond it."""
    found: Bools = np.zeros(len(items), dtype=np.bool_)
    inside = (items >= 0) & (items < len(mask))
    found[inside] = mask[items[inside]]
    return found
