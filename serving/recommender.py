"""The recommender: every learner, candidates of all sources, and the mixture that weighs them.

No Kafka, no ids, no clock: the worker's model wraps it, and the evaluation plays streams through the
very same object. Candidates of a user are about the best hundred of each of transitions,
co-occurrence, EASE and the sequence encoder, a hundred popular items of two half-lives each, and,
where seen items may be shown again, the history.

Not safe for use by several threads at once: the scratch memory is shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from learners.blend_kernels import NEVER_AGAIN, Bools, Lists
from learners.content_kernels import N_PROPOSED
from learners.mixture import HALF_LIVES_H
from learners.mixture_candidates import Counted, Embedded, Gathered, Room, gather_users
from learners.mixture_lists import best_places, place_of, write_lists
from learners.taste_kernels import POOL, Tables
from learners.taste_lists import N_LIKED, prior_by_key
from learners.tastes import no_tastes
from schemas.learner import Contexts, Interactions
from schemas.runs import Int32

from .ranking import N_LAST, SLACK, ItemLists, Ranked

if TYPE_CHECKING:
    from learners.content_evidence import ContentEvidence
    from learners.cooccurrence import Cooccurrence
    from learners.ease import Ease
    from learners.embeddings import Embeddings
    from learners.mixture import Mixture
    from learners.popularity import Popularity
    from learners.tastes import Tastes
    from learners.transitions import Transitions

N_EACH: Final = 100
"""Candidates of each source but rows."""
N_OF_ROWS: Final = 100
"""Candidates of each kind of rows, about."""

AT_ONCE: Final = 128
"""Users whose candidates are held at a time: 6 MB."""

_TINY: Final = 1e-300


def half_lives_h(configured: tuple[float, ...]) -> tuple[float, ...]:
    """Half-lives of popularity that the mixture asks for: two that propose candidates, and its own.

    >>> half_lives_h((24.0, 240.0))
    (24.0, 240.0, 2.4, 2400.0, inf)
    """
    return (configured[0], configured[min(1, len(configured) - 1)], *HALF_LIVES_H)


class Recommender(ItemLists):
    """Ranks with all learners, and teaches them.

    Parameters
    ----------
    transitions, popularity, embeddings, cooccurrence, ease, mixture
        The learners; popularity at the half-lives of `half_lives_h`.
    list_size : int
        k.
    exclude_seen : bool
        Whether consumed items are never listed again.
    n_never : int
        Otherwise, how many of the newest items of a history are not listed.
    content : ContentEvidence, optional
        What items are: further candidates and features; the mixture must have weights for these.
    tastes : Tastes, optional
        Lists are ordered by them too; without, by what is likely to be next alone. Places and the gate's
        learning are always of the next item.
    """

    def __init__(
        self,
        transitions: Transitions,
        popularity: Popularity,
        embeddings: Embeddings,
        cooccurrence: Cooccurrence,
        ease: Ease,
        mixture: Mixture,
        *,
        list_size: int,
        exclude_seen: bool,
        n_never: int = NEVER_AGAIN,
        tastes: Tastes | None = None,
        content: ContentEvidence | None = None,
    ) -> None:
        super().__init__(transitions, popularity, embeddings, list_size=list_size, exclude_seen=exclude_seen)
        self._all_embeddings = embeddings
        self._cooccurrence = cooccurrence
        self._ease = ease
        self._mixture = mixture
        self._tastes, self._no_tastes = tastes, no_tastes()
        self._content = content
        self._n_features = len(mixture.weights[0])
        self._n_never = n_never
        # Much of what is nearest was seen already.
        self._n_nearest = 2 * max(N_EACH, list_size)
        self._room: Room | None = None
        self._gathered: Gathered | None = None
        self._asked: Contexts | None = None  # for whom `_gathered` is, where it is for all of them

    def know(self, content: ContentEvidence) -> None:
        """Rank by what items are, too, from now on; the mixture must have weights for it."""
        self._content = content

    def settle(self) -> None:
        """Forget what was gathered for the last call."""
        self._asked = None

    def learn(self, batch: Interactions) -> None:
        """Teach all learners but the mixture, which learns from lists: see `learn_gate`."""
        for learner in (
            self._transitions,
            self._popularity,
            self._cooccurrence,
            self._ease,
            self._all_embeddings,
        ):
            learner.learn_many(batch)
        if self._tastes is not None:
            self._tastes.learn_many(batch)

    def rank(
        self,
        contexts: Contexts,
        seen: Int32,
        withdrawn: Bools,
        *,
        scoring: bool = False,
        taste_weight: float | None = None,
    ) -> Ranked:
        """Lists of B users; see `Ranker.rank`. `scoring` changes nothing: no state is kept between calls.

        `taste_weight` is that of the tastes, where there are such, against 1 of the next item; None for
        the usual.
        """
        n, k = len(contexts.users), self._list_size
        ranked = Ranked.empty(n, k)
        out = Lists(ranked.items, ranked.scores, ranked.relevance, ranked.sources, ranked.reasons)
        if self._tastes is None:
            weights = self._mixture.weights
        elif taste_weight is None:
            weights = self._mixture.list_weights
        else:
            weights = self._mixture.weights_for(taste_weight)
        tastes = self._no_tastes if self._tastes is None else self._tastes.view()
        uniform = np.float32(np.log1p(1e5 / max(self._popularity.n_items, 1)))
        history = np.ascontiguousarray(contexts.history)
        for first in range(0, n, AT_ONCE):
            rows: Int32 = np.arange(first, min(first + AT_ONCE, n), dtype=np.int32)
            gathered, has_logit = self._gather(rows, contexts, seen, withdrawn, k, tastes)
            write_lists(
                rows, gathered, weights, uniform, has_logit, history, self._rows(),
                self._cooccurrence.view(), self._ease.view(), self._room_for(withdrawn, history), out,
            )  # fmt: skip
        # What is likely to be next is asked and learned without tastes: it does not go on from these.
        self._asked = contexts if n <= AT_ONCE and self._tastes is None else None
        return ranked

    def prepare(self, contexts: Contexts, seen: Int32, withdrawn: Bools) -> None:
        """Find the candidates that `places`, `first_places` and `learn_gate` of these contexts go on from.

        It is most of their cost, and paid once. Contexts of more than `AT_ONCE` users are not kept.
        """
        n = len(contexts.users)
        if n <= AT_ONCE:
            self._gather(np.arange(n, dtype=np.int32), contexts, seen, withdrawn, self._list_size)
            self._asked = contexts

    def places(self, contexts: Contexts, targets: Int32, seen: Int32, withdrawn: Bools) -> Int32:
        """0-based place of each of `targets` (B,) in its user's full order, ties against it; -1: none.

        Given the very `contexts` object that was ranked or prepared last, it reuses the candidates
        found then.
        """
        places = np.empty(len(targets), dtype=np.int32)
        weights = self._mixture.weights
        known = self._asked is contexts
        for first in range(0, len(targets), AT_ONCE):
            part = slice(first, min(first + AT_ONCE, len(targets)))
            rows: Int32 = np.arange(part.start, part.stop, dtype=np.int32)
            gathered = self._gathered
            if not known or gathered is None:
                gathered, _ = self._gather(rows, contexts, seen, withdrawn, self._list_size)
            room = self._room_for(withdrawn, contexts.history)
            place_of(targets[part], gathered, weights, room.score, places[part])
        self._asked = contexts if len(targets) <= AT_ONCE else None
        return places

    def first_places(self, k: int, contexts: Contexts, seen: Int32, withdrawn: Bools) -> Int32:
        """The first `k` places of each user's order, -1 padded (B, k).

        Given the very `contexts` object that was ranked last, it reuses the candidates found then.
        """
        n = len(contexts.users)
        items = np.full((n, k), -1, dtype=np.int32)
        known = self._asked is contexts
        for first in range(0, n, AT_ONCE):
            rows: Int32 = np.arange(first, min(first + AT_ONCE, n), dtype=np.int32)
            gathered = self._gathered
            if not known or gathered is None:
                self._asked = None
                gathered, _ = self._gather(rows, contexts, seen, withdrawn, self._list_size)
            room = self._room_for(withdrawn, contexts.history)
            best_places(gathered, self._mixture.weights, room, items[rows[0] : rows[-1] + 1])
        return items

    def learn_gate(
        self,
        contexts: Contexts,
        targets: Int32,
        seen: Int32 | None = None,
        withdrawn: Bools | None = None,
        *,
        every: int = 1,
    ) -> int:
        """Teach the mixture from what was taken up next; see `Ranker.learn_gate`.

        Given the very `contexts` object that was ranked last, it reuses the candidates found then.
        """
        turn = self._mixture.take_turns(np.flatnonzero(targets >= 0).astype(np.int32), every)
        if not len(turn):
            return 0
        targets = np.ascontiguousarray(targets, dtype=np.int32)
        unavailable: Bools = np.zeros(0, dtype=np.bool_) if withdrawn is None else withdrawn
        known = np.zeros((len(targets), 0), dtype=np.int32) if seen is None else seen
        room = self._room
        if self._asked is contexts and self._gathered is not None and room is not None:
            return self._mixture.learn(turn, targets, self._gathered, room)
        self._asked = None
        learned = 0
        for first in range(0, len(turn), AT_ONCE):
            rows = turn[first : first + AT_ONCE]
            gathered, _ = self._gather(rows, contexts, known, unavailable, self._list_size)
            everyone: Int32 = np.arange(len(rows), dtype=np.int32)
            room = self._room_for(unavailable, contexts.history)
            learned += self._mixture.learn(everyone, targets[rows], gathered, room)
        return learned

    def _gather(
        self,
        rows: Int32,
        contexts: Contexts,
        seen: Int32,
        withdrawn: Bools,
        least: int,
        tastes: Tables | None = None,
    ) -> tuple[Gathered, bool]:
        """Candidates of the batch rows `rows`, of `tastes` too, and whether there are vectors yet."""
        history = np.ascontiguousarray(contexts.history[rows])
        seen = np.ascontiguousarray(seen[rows] if self._exclude_seen else seen[rows, :0])
        own = Contexts(users=contexts.users[rows], history=history, now_ms=contexts.now_ms)
        if not withdrawn.any():
            withdrawn = withdrawn[:0]  # the kernels then ask about nothing
        found = self._embedded(own, withdrawn)
        embedded = _nothing() if found is None else found
        popularity = self._popularity
        view = popularity.view()
        n_tops = max(N_EACH, least)
        depth = n_tops + history.shape[1] + seen.shape[1]
        tops = np.stack([popularity.top(depth, which, withdrawn=withdrawn) for which in (0, 1, 4)])
        room = self._room_for(withdrawn, history)
        gathered = self._gathered
        n_candidates = 6 * N_OF_ROWS + 2 * n_tops + history.shape[1] + N_EACH + least + 3 * 16
        n_candidates += N_EACH + 16
        proposed = np.full((len(rows), 0), -1, dtype=np.int32)
        if self._content is not None:
            proposed = self._content.propose(own, withdrawn)
        n_candidates += proposed.shape[1]
        if gathered is None or gathered.ids.shape[1] < n_candidates or len(gathered.ids) < len(rows):
            gathered = self._gathered = _empty(max(len(rows), AT_ONCE), n_candidates, self._n_features)
        gather_users(
            history, seen, withdrawn,
            history.shape[1] if self._exclude_seen else self._n_never, N_EACH, N_OF_ROWS, least,
            self._rows(), self._cooccurrence.view(), self._ease.view(),
            Counted(view[0], 1.0 / np.maximum(view[1], _TINY), tops, n_tops), embedded,
            own.users, self._no_tastes if tastes is None else tastes, proposed, room, gathered,
        )  # fmt: skip
        if self._content is not None:
            self._content.fill(gathered, len(rows))
        return gathered, found is not None

    def _embedded(self, contexts: Contexts, withdrawn: Bools) -> Embedded | None:
        """The embedding's part, None where it has learned nothing yet (of what is available)."""
        embeddings = self._all_embeddings
        support = embeddings.support
        n = min(len(support), len(withdrawn))
        n_open = int(np.count_nonzero(support)) - int(np.count_nonzero(support[:n][withdrawn[:n]]))
        if not n_open:
            return None
        vectors = embeddings.user_vectors(contexts)
        nearest = embeddings.ranked(vectors, self._n_nearest, embeddings.n_items, withdrawn, hasty=self.hasty)
        return Embedded(
            vectors=vectors,
            matrix=embeddings.item_matrix(),
            support=support,
            top=nearest.items,
            log_z=nearest.log_z,
            log_n=float(np.log(n_open)),
        )

    def _room_for(self, withdrawn: Bools, history: Int32) -> Room:
        near, linear, moves = self._cooccurrence.view(), self._ease.view(), self._transitions.view()
        n_items = max(
            len(near.nbr), len(linear.nbr), len(moves.nbr), self._popularity.n_items,
            self._all_embeddings.n_items, len(withdrawn),
            0 if self._content is None else self._content.n_items,
        )  # fmt: skip
        n_near = history.shape[1] * max(near.nbr.shape[1], linear.nbr.shape[1], 1)
        n_candidates = 13 * N_EACH + N_PROPOSED + history.shape[1] + 4 * self._list_size + 64
        room = self._room
        if room is None or len(room.slot) < n_items or len(room.nearby) < n_near:
            room = self._room = _make_room(
                n_items + n_items // SLACK,
                N_LAST * moves.nbr.shape[1],
                n_near,
                n_candidates,
                self._list_size,
                self._n_features,
            )
        return room


def _nothing() -> Embedded:
    none = np.zeros((0, 1), dtype=np.float32)
    return Embedded(
        vectors=none,
        matrix=none,
        support=np.zeros(0, dtype=np.int32),
        top=np.zeros((0, 0), dtype=np.int32),
        log_z=np.zeros(0, dtype=np.float32),
        log_n=0.0,
    )


def _empty(n_rows: int, n_candidates: int, n_features: int) -> Gathered:
    return Gathered(
        ids=np.zeros((n_rows, n_candidates), dtype=np.int32),
        x=np.zeros((n_rows, n_features, n_candidates), dtype=np.float32),
        logit=np.zeros((n_rows, n_candidates), dtype=np.float32),
        filled=np.zeros(n_rows, dtype=np.int32),
        bucket=np.zeros(n_rows, dtype=np.int32),
    )


def _make_room(
    n_items: int, n_moved: int, n_near: int, n_candidates: int, list_size: int, n_features: int
) -> Room:
    spare = 64
    return Room(
        slot=np.zeros(n_items, dtype=np.int32),
        stamp=np.zeros(1, dtype=np.int64),
        moves=np.zeros((n_items, 3), dtype=np.float32),
        moved=np.zeros(n_moved, dtype=np.int32),
        near=np.zeros(n_items, dtype=np.float32),
        nearby=np.zeros(n_near, dtype=np.int32),
        linear=np.zeros(n_items, dtype=np.float32),
        linked=np.zeros(n_near, dtype=np.int32),
        keys=np.zeros(max(n_moved, n_near, N_LIKED * POOL) + spare, dtype=np.float32),
        best=np.zeros(max(2 * N_EACH, list_size) + spare, dtype=np.float32),
        score=np.zeros(n_candidates + spare, dtype=np.float32),
        mass=np.zeros(n_candidates + spare, dtype=np.float32),
        listed=np.zeros(n_items, dtype=np.int32),
        weights=np.zeros(n_features, dtype=np.float32),
        top_items=np.zeros(list_size + spare, dtype=np.int32),
        top_scores=np.zeros(list_size + spare, dtype=np.float32),
        most=np.zeros(list_size + spare, dtype=np.float32),
        by_key=prior_by_key(),
        liked=np.zeros(N_LIKED * POOL, dtype=np.int32),
    )
