"""Growing arrays: contents stay, new rows are filled, large ones stay where they are."""

from __future__ import annotations

import mmap
import resource
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners import growth
from learners.growth import AHEAD_BYTES, RESERVED_FROM_BYTES, Reserve, grown, populate
from streams.memory_ahead import MemoryAhead

ROW = 1 << 10  # int32 of a row, 4 KiB
LARGE = RESERVED_FROM_BYTES // (4 * ROW)


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(0, 2 * LARGE), min_size=1, max_size=5),
    fill=st.sampled_from([0, -1, 7]),
    row=st.sampled_from([(), (3,), (ROW,)]),
)
def test_rows_stay_and_new_ones_are_filled(sizes: list[int], fill: int, row: tuple[int, ...]) -> None:
    array = np.zeros((0, *row), dtype=np.int32)
    mirror = array.copy()
    for stamp, n in enumerate(sizes, 10):
        array = grown(array, n, fill)
        assert len(array) >= n
        expected = np.full(array.shape, fill, dtype=np.int32)
        expected[: len(mirror)] = mirror
        np.testing.assert_array_equal(array, expected)
        array[-n // 2 :] = stamp
        mirror = array.copy()


def test_arrays_that_grow_together_stay_equally_long() -> None:
    narrow, wide = np.zeros(1, dtype=np.bool_), np.zeros((1, ROW), dtype=np.int32)
    for n in (2, 1_000, 5_000, 5_001, 9_000, 9_500):
        narrow, wide = grown(narrow, n), grown(wide, n, -1)
        assert len(narrow) == len(wide) >= n


@pytest.mark.skipif(sys.platform != "linux", reason="address space is reserved on Linux")
def test_a_large_array_grows_where_it_is() -> None:
    array = grown(np.ones((LARGE, ROW), dtype=np.int32), LARGE + 1)
    assert isinstance(array.base, Reserve)
    longer = grown(array, len(array) + 1, -1)
    assert longer.base is array.base
    assert longer.ctypes.data == array.ctypes.data
    assert (longer[:LARGE] == 1).all()
    assert (longer[len(array) :] == -1).all()


@pytest.mark.skipif(sys.platform != "linux", reason="address space is reserved on Linux")
def test_growing_an_older_array_again_does_not_find_what_was_written_since() -> None:
    array = grown(np.ones((LARGE, ROW), dtype=np.int32), LARGE + 1)
    longer = grown(array, len(array) + 1)
    longer[len(array) :] = 5
    again = grown(array, len(array) + 1)
    assert not (again[len(array) :]).any()
    assert (longer[len(array) :] == 5).all()


def test_beyond_the_reserve_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "_LEAST_BYTES", 2 * RESERVED_FROM_BYTES)
    monkeypatch.setattr(growth, "_FACTOR", 1)
    array = grown(np.ones((LARGE, ROW), dtype=np.int32), LARGE + 1)
    larger = grown(array, 3 * LARGE, -1)
    assert larger.base is not array.base
    assert (larger[:LARGE] == 1).all()
    assert (larger[len(array) :] == -1).all()


@pytest.mark.skipif(sys.platform != "linux", reason="address space is reserved on Linux")
def test_a_kernel_without_huge_pages_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(Reserve):
        def madvise(self, *_: object) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(growth, "Reserve", Plain)
    array = grown(np.ones((LARGE, ROW), dtype=np.int32), LARGE + 1, -1)
    assert isinstance(array.base, Plain)
    assert (array[:LARGE] == 1).all()
    assert (array[LARGE:] == -1).all()


def test_without_address_space_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> mmap.mmap:
        raise OSError("no more address space")

    monkeypatch.setattr(growth, "Reserve", type("Refused", (Reserve,), {"__new__": refused}))
    array = grown(np.ones((LARGE, ROW), dtype=np.int32), LARGE + 1, -1)
    assert not isinstance(array.base, mmap.mmap)
    assert (array[:LARGE] == 1).all()
    assert (array[LARGE:] == -1).all()


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


@pytest.mark.skipif(sys.platform != "linux", reason="address space is reserved on Linux")
def test_memory_is_found_before_it_is_written_and_what_it_holds_stays() -> None:
    array = grown(np.zeros((0, ROW), dtype=np.int32), LARGE)
    array[0], array[-1] = 1, 2
    found = populate()
    if found is None:
        pytest.skip("a kernel before 5.14")
    assert found >= AHEAD_BYTES
    assert populate() == 0
    before = faults()
    longer = grown(array, LARGE + AHEAD_BYTES // (8 * ROW))
    longer[1 : LARGE - 1] = 7
    longer[LARGE : LARGE + AHEAD_BYTES // (16 * ROW)] = 7
    assert faults() - before < 8  # some for python itself; each of the pages would be one otherwise
    assert longer[0, 0] == 1
    assert longer[LARGE - 1, -1] == 2
    assert populate()


@pytest.mark.skipif(sys.platform != "linux", reason="address space is reserved on Linux")
def test_memory_ahead_runs_beside_what_writes() -> None:
    ahead = MemoryAhead()
    ahead.start()
    try:
        array = np.zeros((0, ROW), dtype=np.int32)
        for n in range(LARGE, 4 * LARGE, LARGE // 8):
            before = len(array)
            array = grown(array, n)
            array[before:] = np.arange(before, len(array))[:, None]
        reserve = array.base
        assert isinstance(reserve, Reserve)
        until = time.monotonic() + 30
        while ahead.alive and reserve.populated < array.nbytes:
            assert time.monotonic() < until
            time.sleep(0.01)
        np.testing.assert_array_equal(array, np.broadcast_to(np.arange(len(array))[:, None], array.shape))
    finally:
        ahead.stop()
    assert not ahead.alive


def test_a_kernel_that_cannot_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    array = grown(np.zeros((0, ROW), dtype=np.int32), LARGE)
    monkeypatch.setattr(growth, "_MADVISE", lambda *_: -1)
    assert populate() is None
    ahead = MemoryAhead()
    ahead.start()
    ahead._thread.join(10)
    assert not ahead.alive
    ahead.stop()
    assert len(array) >= LARGE
