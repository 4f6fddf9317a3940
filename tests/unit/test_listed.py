"""Rows of listed items: who holds what, over growth, lists of other lengths, snapshot and restore."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.errors import StateError
from schemas.runs import Int32
from streams.listed import LISTED, ListedItems


def array(*values: object) -> Int32:
    return np.array(values, dtype=np.int32)


def marked(*items: int, n: int = 10) -> np.ndarray:
    mask = np.zeros(n, dtype=np.bool_)
    mask[list(items)] = True
    return mask


def holders(listed: ListedItems, *items: int) -> list[int]:
    return list(listed.holders(marked(*items)).tolist())


def test_the_last_list_counts() -> None:
    listed = ListedItems()
    assert holders(listed, 1) == []
    listed.put(array(0, 700), array([1, 2], [2, 3]))
    assert holders(listed, 2) == [0, 700]
    assert holders(listed, 1, 3) == [0, 700]
    listed.put(array(0), array([4, -1]))
    assert holders(listed, 2) == [700]
    assert holders(listed, 1) == []
    assert listed.holders(marked(1, n=2)).tolist() == []  # slots beyond the mask are not marked
    listed.put(array(), np.zeros((0, 2), dtype=np.int32))
    assert holders(listed, 4) == [0]


def test_lists_of_another_length() -> None:
    listed = ListedItems()
    listed.put(array(0, 1), array([1, 2, 3], [4, 5, 6]))
    listed.put(array(0), array([7]))
    assert holders(listed, 2) == holders(listed, 3) == []
    assert holders(listed, 6) == [1]
    listed.put(array(2), array([1, 2, 3, 8]))
    assert holders(listed, 6, 8) == [1, 2]


@pytest.mark.parametrize("reuse", [False, True])
def test_restore_of_a_snapshot_holds_the_same(reuse: bool) -> None:
    listed, twin = ListedItems(), ListedItems()
    listed.put(array(0, 2), array([1, 2], [3, 4]))
    rows = listed.snapshot(5, reuse=reuse)[LISTED]
    assert len(rows) == 5
    twin.restore({LISTED: rows}, 5)
    for item in range(5):
        assert holders(twin, item) == holders(listed, item)
    twin.put(array(4), array([9, 9]))
    assert holders(listed, 9) == []
    with pytest.raises(StateError, match=LISTED):
        twin.restore({LISTED: rows}, 4)


def test_a_checkpoint_of_an_earlier_release_names_no_lists() -> None:
    listed = ListedItems()
    listed.restore({}, 5)
    assert holders(listed, 0) == []
    assert len(listed.snapshot(5)[LISTED]) == 5
