"""A model that another process learns: its arrays as the model topics bring them, for ranking.

The learner's item slots are used as they are, so that rows can be taken over without looking
anything up; once everything has arrived the arrays equal the learner's, bit by bit. User rows have
slots of their own: a ranker holds only its users' rows. Adagrad's sums stay with the learner.

Touched by one thread; `streams.staging` makes what it takes on another.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.interning import Interner
from schemas.model_values import HeadValue
from schemas.settings import LearnerSettings, RankerSettings
from schemas.texts import texts_of

from .model_export import COOCCURRENCE, EASE, EMBEDDINGS, GATE, HEAT, POPULARITY, TRANSITIONS
from .model_parts import build_parts
from .staging import Staged

Bools = NDArray[np.bool_]


class Replica:
    """See the module's docstring.

    Parameters
    ----------
    learner : LearnerSettings
        Those of the learner that is followed.
    ranker : RankerSettings

    Attributes
    ----------
    items : Interner
        The learner's item slots, as far as all of them are named; the rest waits.
    users : Interner
        Slots of user rows here; whoever folds user state adds to it, too.
    head : HeadValue or None
        How far the learner was, and when.
    anew : int
        How many models have begun; `items` and `ranker` are others after that.
    """

    def __init__(self, learner: LearnerSettings, ranker: RankerSettings) -> None:
        self._learner, self._ranker = learner, ranker
        self.users = Interner(capacity=learner.max_users)
        self.head: HeadValue | None = None
        self.lineage = ""
        self.anew = 0
        self.n_records = 0
        self._begin()

    def _begin(self) -> None:
        learner = self._learner
        self.items = Interner(capacity=learner.max_items)
        self._unnamed: dict[int, str] = {}
        self._n_slots = 0
        parts = build_parts(
            learner, self._ranker, list_size=self._ranker.list_size, device="cpu", with_tastes=False
        )
        self.transitions, self.popularity, self.gate = parts.transitions, parts.popularity, parts.gate
        self.heat = parts.heat
        self.embeddings, self.cooccurrence, self.ease = parts.embeddings, parts.cooccurrence, parts.ease
        self.ranker = parts.ranker

    def take(self, staged: Staged) -> None:
        """Take over what was staged; 2 microseconds an item.

        Raises
        ------
        StateError
            An item has another slot than before.
        """
        if staged.starts_anew:
            if self.lineage:
                self._begin()
                self.head = None
                self.anew += 1
            self.lineage = staged.lineage
        self.n_records += staged.n_records
        self._name(staged)
        self.transitions.import_rows(staged.items, staged.transitions)
        self.popularity.import_rows(staged.items, staged.popularity)
        self.heat.import_rows(staged.items, staged.heat)
        if self.cooccurrence is not None and self.ease is not None:
            self.cooccurrence.import_rows(staged.items, staged.cooccurrence)
            self.ease.import_rows(staged.items, staged.ease)
        if self.embeddings is not None:
            self.embeddings.import_rows(staged.items, staged.embeddings)
            users = self.users.get_many(staged.user_ids)
            held = users >= 0
            self.embeddings.import_users(users[held], staged.user_rows[held])
        dense = staged.dense
        if GATE in dense:
            self.gate.import_dense(dense[GATE])
        if TRANSITIONS in dense:
            self.transitions.import_dense(dense[TRANSITIONS])
        if POPULARITY in dense:
            self.popularity.import_dense(dense[POPULARITY])
        if HEAT in dense:
            self.heat.import_dense(dense[HEAT])
        if COOCCURRENCE in dense and self.cooccurrence is not None:
            self.cooccurrence.import_dense(dense[COOCCURRENCE])
        if EASE in dense and self.ease is not None:
            self.ease.import_dense(dense[EASE])
        if EMBEDDINGS in dense and self.embeddings is not None:
            self.embeddings.import_dense(dense[EMBEDDINGS])
        if staged.head is not None:
            self.head = staged.head

    @property
    def n_unnamed(self) -> int:
        """Items that wait for the name of a lower slot."""
        return len(self._unnamed)

    def unlisted(self) -> Bools:
        """Mask by slot of what must not be listed because its name has not come: True; (n,).

        It reaches as far as any array here, so that a neighbour beyond it is not looked at.
        """
        embeddings = self.embeddings
        n_embedded = 0 if embeddings is None else embeddings.n_items
        n_rows = len(self.transitions.view().nbr)
        n_near = 0 if self.cooccurrence is None else len(self.cooccurrence.view().nbr)
        n_linear = 0 if self.ease is None else len(self.ease.view().nbr)
        known = (self._n_slots, n_rows, self.popularity.n_items, n_embedded, n_near, n_linear)
        n = max(*known, len(self.items))
        mask = np.zeros(n, dtype=np.bool_)
        mask[len(self.items) :] = True
        return mask

    def age_s(self, now_s: float) -> float | None:
        """Seconds since the learner was heard of, None when it never was."""
        return None if self.head is None else max(0.0, now_s - self.head.published_at_ms / 1000)

    def _name(self, staged: Staged) -> None:
        if not len(staged.items):
            return
        items, unnamed, n = self.items, self._unnamed, len(self.items)
        texts = texts_of(staged.item_ids)
        found = items.find_spans(texts.data, texts.starts, texts.ends)
        wrong = np.flatnonzero((found != staged.items) & ((found >= 0) | (staged.items < n)))
        if len(wrong):
            slot, item_id = int(staged.items[wrong[0]]), staged.item_ids[wrong[0]]
            raise StateError(f"item {item_id!r} of model {self.lineage} has slot {slot}, and had another one")
        for place in np.flatnonzero(found < 0).tolist():
            unnamed[int(staged.items[place])] = staged.item_ids[place]
        self._n_slots = max(self._n_slots, int(staged.items.max()) + 1)
        new: list[str] = []
        while item_id := unnamed.pop(n + len(new), ""):
            new.append(item_id)
        items.get_many(new)
