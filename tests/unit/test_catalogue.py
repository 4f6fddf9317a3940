"""Item facts, withdrawal and expiry."""

from __future__ import annotations

import pytest

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
