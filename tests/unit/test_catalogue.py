"""Item facts, withdrawal and expiry."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.errors import ContractError
from schemas.interning import Interner
from schemas.records import Item
from streams.catalogue import Catalogue


def test_withdrawn_and_expired_items_are_unavailable_until_put_again() -> None:
    items = Interner()
    catalogue = Catalogue(items)
    catalogue.put(Item(item_id="a", title="A", tags=["x"]))
    catalogue.put(Item(item_id="room", expires_ts_ms=1_000))
    items.get("seen in events only")
    assert catalogue.unavailable(999).tolist() == [False, False, False]
    assert catalogue.unavailable(1_000).tolist() == [False, True, False]
    assert catalogue.withdraw("a") == 0
    assert catalogue.withdraw("only events will name it") == 3
    assert catalogue.unavailable(0).tolist() == [True, False, False, True]
    assert catalogue.facts(0) is None
    catalogue.put(Item(item_id="a", title="A again"))
    assert catalogue.unavailable(0).tolist() == [False, False, False, True]
    assert {name: facts.title for name, facts in catalogue.describe(["a", "zzz"]).items()} == {"a": "A again"}
    assert len(catalogue) == 2


def test_grows() -> None:
    items = Interner()
    catalogue = Catalogue(items)
    for i in range(3_000):
        catalogue.put(Item(item_id=f"v{i}"))
    catalogue.withdraw("v2999")
    mask = catalogue.unavailable(0)
    assert len(mask) == 3_000
    assert mask.sum() == 1


def test_a_full_table_refuses_new_items_and_keeps_known_ones() -> None:
    catalogue = Catalogue(Interner(capacity=1))
    catalogue.put(Item(item_id="a"))
    with pytest.raises(ContractError, match="max_items"):
        catalogue.put(Item(item_id="b"))
    assert catalogue.put(Item(item_id="a", title="A")) == 0
    assert catalogue.unavailable(0).tolist() == [False]


def test_what_has_ended_is_told_once() -> None:
    items = Interner()
    catalogue = Catalogue(items)
    for name, expires_ts_ms in (("film", None), ("room", 1_000), ("late room", 3_000)):
        catalogue.put(Item(item_id=name, expires_ts_ms=expires_ts_ms))
    assert catalogue.ended(999) is None
    assert _names(catalogue.ended(1_000), items) == ["room"]
    assert catalogue.ended(1_500) is None
    catalogue.withdraw("film")
    catalogue.put(Item(item_id="over before it was known", expires_ts_ms=1_200))
    assert _names(catalogue.ended(2_000), items) == ["film", "over before it was known"]
    catalogue.put(Item(item_id="room", expires_ts_ms=4_000))  # it goes on
    assert _names(catalogue.ended(3_500), items) == ["late room"]
    assert _names(catalogue.ended(4_000), items) == ["room"]
    catalogue.withdraw("film")
    catalogue.put(Item(item_id="film"))
    assert catalogue.ended(4_100) is None
    assert catalogue.ended(0) is None  # a clock that goes back tells nothing anew
    assert catalogue.ended(4_200) is None


def _names(mask: NDArray[np.bool_] | None, items: Interner) -> list[str]:
    assert mask is not None
    return [items.id_of(slot) for slot in np.flatnonzero(mask).tolist()]


def test_which_rows_name_a_live_room() -> None:
    items = Interner()
    catalogue = Catalogue(items)
    rows = np.array([[-1, -1], [0, -1], [1, 0], [5_000, 1]], dtype=np.int32)
    catalogue.put(Item(item_id="film"))
    assert catalogue.name_live(rows).tolist() == [False] * 4
    assert catalogue.put(Item(item_id="room", surface="live", expires_ts_ms=1_000)) == 1
    assert catalogue.name_live(rows).tolist() == [False, False, True, True]  # 5 000 is of an event only
    assert catalogue.name_live(rows[:0]).tolist() == []
