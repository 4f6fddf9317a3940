"""The table of ids against a dict, through growth, a full table, equal hashes and restarts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.interning import Interner
from schemas.runs import UNKNOWN
from schemas.string_table import TableArrays, add_texts
from schemas.texts import texts_of

IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(["a", "b", "c"])


def by_dict(known: dict[str, int], identifier: str, capacity: int) -> int:
    if identifier not in known and len(known) < capacity:
        known[identifier] = len(known)
    return known.get(identifier, UNKNOWN)


@settings(deadline=None)  # kernels are compiled or loaded at the first call
@given(st.lists(st.lists(IDS, max_size=30), max_size=8), st.integers(0, 60))
def test_slots_are_those_of_a_dict_whatever_the_batches(batches: list[list[str]], capacity: int) -> None:
    table, known = Interner(capacity=capacity), dict[str, int]()
    for batch in batches:
        before = dict(known)
        expected = [by_dict(known, one, capacity) for one in batch]
        assert [table.find(one) for one in batch] == [before.get(one, UNKNOWN) for one in batch]
        assert table.get_many(batch).tolist() == expected
        assert [table.find(one) for one in batch] == expected
    assert table.ids == list(known)
    assert [table.id_of(slot) for slot in range(len(table))] == list(known)
    assert table.texts(1).to_list() == table.ids[1:] == list(known)[1:]
    twin = Interner.restored(table.snapshot(), capacity=capacity)
    assert twin.ids == table.ids
    assert twin.get_many([*known, "new"]).tolist() == [*known.values(), by_dict(known, "new", capacity)]


def test_many_ids_keep_their_slots_through_growth() -> None:
    table, names = Interner(), [f"user-{n}" for n in range(50_000)]
    for start in range(0, len(names), 7_000):
        table.get_many(names[start : start + 7_000])
    assert table.get_many(names[::-1]).tolist() == list(range(len(names)))[::-1]
    slots = np.array([49_999, 0, 17], dtype=np.int32)
    assert table.texts_at(slots).to_list() == ["user-49999", "user-0", "user-17"]


def test_ids_with_equal_hashes_stay_apart() -> None:
    texts = texts_of(["a", "b", "12345678", "12345679", "a", "12345678-longer"])
    table = TableArrays(np.zeros(16, np.uint64), np.zeros(99, np.uint8), np.zeros(9, np.int64))
    slots = np.empty(6, dtype=np.int32)
    hashes = np.full(6, 0xFFFFFFFF_00000000, dtype=np.uint64)
    assert add_texts(texts.data, texts.starts, texts.ends, hashes, table, 0, 9, slots) == 5
    assert slots.tolist() == [0, 1, 2, 3, 0, 4]


def test_a_lone_surrogate_is_no_known_id() -> None:
    assert Interner(["a"]).find("\ud800") == UNKNOWN


def test_ids_must_be_distinct_and_slots_exist() -> None:
    with pytest.raises(ValueError, match="distinct"):
        Interner(["a", "a"])
    with pytest.raises(IndexError):
        Interner(["a"]).id_of(1)
    with pytest.raises(IndexError):
        Interner(["a"]).id_of(-1)


@pytest.mark.parametrize(
    ("ids", "ends", "message"),
    [
        (b"ab", [2, 1], "fit"),
        (b"ab", [1], "fit"),
        (b"ab", [1, 3], "fit"),
        (b"aa", [1, 2], "twice"),
        (b"\xff", [1], "UTF-8"),
        ("é".encode(), [1, 2], "cut a character"),
    ],
)
def test_damaged_ids_are_refused(ids: bytes, ends: list[int], message: str) -> None:
    arrays: dict[str, NDArray[np.generic]] = {
        "ids": np.frombuffer(ids, dtype=np.uint8),
        "id_ends": np.array(ends, dtype=np.int64),
    }
    with pytest.raises(StateError, match=message):
        Interner.restored(arrays)
    with pytest.raises(StateError, match="lacks"):
        Interner.restored({"ids": arrays["ids"]})
