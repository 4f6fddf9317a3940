"""What a ranker's intake and publisher see of a replica.

User state is folded with item slots of this process, in the order in which its own partitions and
the catalogue name them; the model has the learner's. Slots are translated when lists are made, so
user state depends on no model and survives any change of it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from learners.growth import grown
from schemas.content import ItemContent, ItemTags
from schemas.interning import Interner
from schemas.learner import Contexts
from schemas.records import Item
from schemas.runs import Int32
from schemas.settings import OrderSettings, Settings
from serving.fresh import Newcomers
from serving.ranking import Ranked
from serving.rooms import Rooms

from .catalogue import Catalogue
from .replica import Replica

Bools = NDArray[np.bool_]
_FIRST: Final = 1024


class Translation:
    """Item slots of this process to those of a replica, -1 for what the model has not named.

    Cost: 0.1 microseconds a new id on either side.
    """

    def __init__(self, local: Interner, replica: Replica) -> None:
        self._local = local
        self._replica = replica
        self._table: Int32 = np.full(_FIRST, -1, dtype=np.int32)
        self._back: Int32 = np.full(_FIRST, -1, dtype=np.int32)
        self._n_local = self._n_model = self._anew = self._anew_back = 0

    def table(self) -> Int32:
        """Model slot by local slot; as long as there are local slots, and then some."""
        local, model = self._local, self._replica.items
        if self._anew != self._replica.anew:
            self._table[:] = -1
            self._n_local = self._n_model = 0
            self._anew = self._replica.anew
        n = len(local)
        if n > self._n_local:
            self._table = grown(self._table, n, -1)
            new = local.texts(self._n_local)
            self._table[self._n_local : n] = model.find_spans(new.data, new.starts, new.ends)
            self._n_local = n
        if len(model) > self._n_model:
            new = model.texts(self._n_model)
            places = local.find_spans(new.data, new.starts, new.ends)
            known = np.flatnonzero(places >= 0)
            self._table[places[known]] = (known + self._n_model).astype(np.int32)
            self._n_model = len(model)
        return self._table

    def histories(self, history: Int32) -> Int32:
        """Right-aligned histories (B, H) in model slots, without what the model does not know."""
        found = self.slots(history)
        holes = ((found < 0) & (history >= 0)).any(axis=1)
        if holes.any():
            some = found[holes]
            order = np.argsort(some >= 0, axis=1, kind="stable")
            found[holes] = np.take_along_axis(some, order, axis=1)
        return found

    def local(self, items: Int32) -> Int32:
        """Slots of this process of the model's `items`, any shape; names that are new here get one."""
        if self._anew_back != self._replica.anew:
            self._back[:] = -1
            self._anew_back = self._replica.anew
        self._back = grown(self._back, len(self._replica.items), -1)
        known = items[items >= 0]
        new = np.unique(known[self._back[known] < 0])
        if len(new):
            self._back[new] = self._local.intern_texts(self._replica.items.texts_at(new))
        found: Int32 = np.where(items >= 0, self._back[np.maximum(items, 0)], np.int32(-1))
        return found

    def slots(self, items: Int32) -> Int32:
        """Model slots of local `items`, any shape; -1 stays."""
        table = self.table()
        found: Int32 = np.where(items >= 0, table[np.maximum(items, 0)], np.int32(-1))
        return found


class RankerModel:
    """Joins local names, catalogue and replica; touched by one thread.

    `names` is what intake adds to, the rest is what the publisher reads: all of that is in the
    replica's slots.
    """

    def __init__(self, settings: Settings, replica: Replica | None = None) -> None:
        self.replica = Replica(settings.learner, settings.ranker) if replica is None else replica
        self.names = LocalNames(
            Interner(capacity=settings.learner.max_items),
            self.replica.users,
            has_user_rows=settings.learner.embeddings,
        )
        self._translation = Translation(self.names.items, self.replica)
        self.catalogue = _Availability(self)
        self.ranker = _TranslatingRanker(self)

    @property
    def items(self) -> Interner:
        """Item ids by slot of the lists."""
        return self.replica.items

    @property
    def facts(self) -> Catalogue:
        """What the catalogue says, by slot of user state."""
        return self.names.facts

    def ranked(
        self, contexts: Contexts, seen: Int32, withdrawn: Bools, taste_weight: float | None = None
    ) -> Ranked:
        """Lists of B users: tastes stay with the learner."""
        return self.ranker.rank(contexts, seen, withdrawn)

    def ordered(
        self, ranked: Ranked, contexts: Contexts, k: int, weights: OrderSettings | None = None
    ) -> Ranked:
        """The first `k` places of lists: what a mix needs stays with the learner."""
        return ranked.first(k)

    def newcomers(self, contexts: Contexts, withdrawn: Bools) -> Newcomers | None:
        """None: content stays with those who learn."""
        return None

    def rooms(self, now_ms: int) -> Rooms:
        """Live rooms that are open and that the model has named, and their heat."""
        slots = self.facts.rooms(now_ms)
        items = self._translation.slots(slots)
        named = (items >= 0) & (items < len(self.items))
        slots, items = slots[named], items[named]
        return Rooms(slots, items, self.replica.heat.at(items, now_ms))

    def state_slots(self, items: Int32) -> Int32:
        """Slots of user state of listed `items`."""
        return self._translation.local(items)

    @property
    def translation(self) -> Translation:
        """Local to model slots."""
        return self._translation


class LocalNames:
    """Names as intake needs them (`streams.intake.Names`), and the catalogue by local slot."""

    def __init__(self, items: Interner, users: Interner, *, has_user_rows: bool) -> None:
        self.items = items
        self.users = users
        self.has_user_rows = has_user_rows
        self.facts = Catalogue(items)

    def put_item(self, item: Item) -> None:
        """Take in catalogue facts."""
        self.facts.put(item)

    def withdraw(self, item_id: str) -> None:
        """Withdraw an item."""
        self.facts.withdraw(item_id)

    def put_content(self, content: ItemContent) -> None:
        """Content stays with those who learn."""

    def put_tags(self, found: ItemTags) -> None:
        """As `put_content`."""

    def drop_content(self, item_id: str) -> None:
        """As `put_content`."""


class _Availability:
    """What may not be listed, in the replica's slots."""

    def __init__(self, model: RankerModel) -> None:
        self._model = model

    def unavailable(self, now_ms: int) -> Bools:
        """Mask by model slot: withdrawn, expired, or not named yet."""
        mask = self._model.replica.unlisted()
        local = np.flatnonzero(self._model.names.facts.unavailable(now_ms)).astype(np.int32)
        if len(local):
            slots = self._model.translation.slots(local)
            mask[slots[slots >= 0]] = True
        return mask


class _TranslatingRanker:
    """Ranks for contexts in local slots; lists are in the replica's."""

    def __init__(self, model: RankerModel) -> None:
        self._model = model

    def rank(self, contexts: Contexts, seen: Int32, withdrawn: Bools) -> Ranked:
        """As `serving.ranking.Ranker.rank`."""
        translation = self._model.translation
        translated = Contexts(
            users=contexts.users, history=translation.histories(contexts.history), now_ms=contexts.now_ms
        )
        return self._model.replica.ranker.rank(translated, translation.slots(seen), withdrawn)
