"""What the catalogue says of each item, by item slot; a null value withdraws the item."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from learners.growth import grown
from learners.state import taken
from schemas.compiled import kernel
from schemas.errors import ContractError, StateError
from schemas.interning import Interner
from schemas.learner import Arrays
from schemas.records import Item, Surface
from schemas.runs import Int32

NEVER_MS = np.iinfo(np.int64).max


class ItemFacts(Struct, frozen=True, kw_only=True):
    """The part of an item that ranking and the page use; vectors stay with the content worker."""

    title: str | None
    tags: tuple[str, ...]
    category: str | None
    creator_id: str | None
    duration_ms: int | None
    surface: Surface | None = None


class Catalogue:
    """Facts by item slot and the mask of items that may not be recommended.

    An item that events name but no catalogue message does is recommendable: producers may run
    without a catalogue.
    """

    def __init__(self, items: Interner) -> None:
        self._items = items
        self._facts: dict[int, ItemFacts] = {}
        self._withdrawn = np.zeros(1024, dtype=np.bool_)
        self._expires_ms = np.full(1024, NEVER_MS, dtype=np.int64)
        self._any_expiry = False
        self._put: list[int] = []  # slots that may be unavailable now, and were not a moment ago
        self._looked_ms = -1
        self._live = np.zeros(1024, dtype=np.bool_)
        self._had_live = False
        self._rooms: Int32 | None = None

    def __len__(self) -> int:
        return len(self._facts)

    def put(self, item: Item) -> int:
        """Take in an item; returns its slot.

        Raises
        ------
        ContractError
            A new item, and as many are known as learner.max_items allows.
        """
        slot = self._slot(item.item_id)
        self._grow(slot + 1)
        self._withdrawn[slot] = False
        self._expires_ms[slot] = NEVER_MS if item.expires_ts_ms is None else item.expires_ts_ms
        if item.expires_ts_ms is not None:
            self._any_expiry = True
            self._put.append(slot)
        self._facts[slot] = ItemFacts(
            title=item.title,
            tags=tuple(item.tags),
            category=item.category,
            creator_id=item.creator_id,
            duration_ms=item.duration_ms,
            surface=item.surface,
        )
        if (item.surface == "live") != bool(self._live[slot]):
            self._live[slot] = item.surface == "live"
            self._had_live = True
            self._rooms = None
        return slot

    def withdraw(self, item_id: str) -> int:
        """Withdraw an item, also one that only events will name; returns its slot.

        Raises
        ------
        ContractError
            As `put`.
        """
        slot = self._slot(item_id)
        self._grow(slot + 1)
        self._withdrawn[slot] = True
        self._put.append(slot)
        self._facts.pop(slot, None)
        return slot

    def facts(self, slot: int) -> ItemFacts | None:
        """Facts of an item, if the catalogue named it."""
        return self._facts.get(slot)

    def unavailable(self, now_ms: int) -> NDArray[np.bool_]:
        """Mask over all item slots: withdrawn, or past its expiry (a live room that is over)."""
        n = len(self._items)
        self._grow(n)
        mask = self._withdrawn[:n]
        return mask | (self._expires_ms[:n] <= now_ms) if self._any_expiry else mask

    def name_live(self, items: Int32) -> NDArray[np.bool_]:
        """Which rows of `items` (B, n) name a live room, open or not; -1 is none; (B,)."""
        found = np.zeros(len(items), dtype=np.bool_)
        if self._had_live:
            _name_live(items, self._live, found)
        return found

    def rooms(self, now_ms: int) -> Int32:
        """Slots of the live rooms that are open; 5 nanoseconds each."""
        if self._rooms is None:
            self._rooms = np.flatnonzero(self._live).astype(np.int32)
        rooms = self._rooms
        is_open: Int32 = rooms[~self._withdrawn[rooms] & (self._expires_ms[rooms] > now_ms)]
        return is_open

    def ended(self, now_ms: int) -> NDArray[np.bool_] | None:
        """Mask of items that became unavailable since the last call, None where none did.

        1 nanosecond an item where any has an expiry, else nothing but what was withdrawn is looked at.
        """
        n = len(self._items)
        self._grow(n)
        put, self._put = np.array(self._put, dtype=np.int64), []
        since_ms, self._looked_ms = self._looked_ms, max(now_ms, self._looked_ms)
        put = put[self._withdrawn[put] | (self._expires_ms[put] <= now_ms)]
        passed = put
        if self._any_expiry:
            expires_ms = self._expires_ms[:n]
            passed = np.flatnonzero((expires_ms > since_ms) & (expires_ms <= now_ms))
        if not len(put) and not len(passed):
            return None
        mask = np.zeros(n, dtype=np.bool_)
        mask[put] = mask[passed] = True
        return mask

    def describe(self, item_ids: list[str]) -> Mapping[str, ItemFacts]:
        """Facts by item id, unknown ones left out."""
        slots = ((item_id, self._items.find(item_id)) for item_id in item_ids)
        return {item_id: self._facts[slot] for item_id, slot in slots if slot in self._facts}

    def capture(self) -> Callable[[], Arrays]:
        """Copy the state now; the result encodes the copies, on any thread."""
        n = len(self._items)
        self._grow(n)
        facts = dict(self._facts)
        masks: Arrays = {"withdrawn": self._withdrawn[:n].copy(), "expires_ms": self._expires_ms[:n].copy()}

        def encoded() -> Arrays:
            slots = sorted(facts)
            packed = msgspec.msgpack.encode([facts[slot] for slot in slots])
            return masks | {
                "slots": np.array(slots, dtype=np.int64),
                "facts": np.frombuffer(packed, dtype=np.uint8),
            }

        return encoded

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `capture` described; the names are those of the interner.

        Raises
        ------
        StateError
            Arrays are missing or damaged.
        """
        n = len(self._items)
        withdrawn = taken(arrays, "withdrawn", self._withdrawn, rows=n)
        expires_ms = taken(arrays, "expires_ms", self._expires_ms, rows=n)
        packed = taken(arrays, "facts", np.zeros(0, dtype=np.uint8)).tobytes()
        try:
            facts = msgspec.msgpack.decode(packed, type=list[ItemFacts])
        except msgspec.DecodeError as error:
            raise StateError(f"'facts' is damaged: {error}") from None
        slots = taken(arrays, "slots", expires_ms, rows=len(facts)).tolist()
        self._facts = dict(zip(slots, facts, strict=True))
        self._withdrawn, self._expires_ms = withdrawn, expires_ms
        self._any_expiry = bool((expires_ms != NEVER_MS).any())
        self._live = np.zeros(max(n, 1024), dtype=np.bool_)
        self._live[[slot for slot, facts in self._facts.items() if facts.surface == "live"]] = True
        self._had_live = bool(self._live.any())
        self._rooms = None

    def _slot(self, item_id: str) -> int:
        slot = self._items.get(item_id)
        if slot < 0:
            raise ContractError(
                "$.item_id: a new id, and as many are known as learner.max_items allows",
                reason="capacity",
                field="item_id",
            )
        return slot

    def _grow(self, n: int) -> None:
        self._withdrawn = grown(self._withdrawn, n)
        self._expires_ms = grown(self._expires_ms, n, NEVER_MS)
        self._live = grown(self._live, n)


@kernel
def _name_live(items: Int32, live: NDArray[np.bool_], found: NDArray[np.bool_]) -> None:
    for i in range(items.shape[0]):
        for place in range(items.shape[1]):
            found[i] |= 0 <= items[i, place] < len(live) and live[items[i, place]]
