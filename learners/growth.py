"""Arrays that grow by rows, without a copy of what they hold once they are large.

A table that doubles is copied in one piece: 24 MB of transition rows took 0.1 s at 16 384 items, most of
it for the kernel to find and clear the memory, while every viewer waited. So an array of 4 MiB or
more lies at the front of a `Reserve`, address space that nothing stands behind until it is written, and
growing is a longer view of the same memory. Rows come 3 % at a time: those with another fill than zero
are written at once.

What stands behind an address is found by the kernel at its first write, and where the memory of the
machine is itself lent (a virtual machine) that takes 6 to 15 ms for 2 MiB. `populate` does it ahead of the
rows in use, on a thread that nobody waits for.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from contextlib import suppress
from typing import Final, TypeVar
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

_S = TypeVar("_S", bound=np.generic)

RESERVED_FROM_BYTES: Final = 4 << 20
"""Where numpy begins to ask for huge pages too; with smaller arrays most of such a page would stay idle."""

_LEAST_BYTES: Final = 1 << 30
_FACTOR: Final = 64
_DOUBLES_UP_TO: Final = 4_096
_STEP: Final = 32
_NORESERVE: Final = 0x4000
"""MAP_NORESERVE of Linux, which `mmap` names only from Python 3.13 on: nothing is set aside for the pages."""


AHEAD_BYTES: Final = 2 << 20
"""Bytes beyond the rows in use that `populate` finds memory for, and a 32nd of the array."""

_PIECE: Final = 2 << 20
_POPULATE_WRITE: Final = 23
"""MADV_POPULATE_WRITE of Linux 5.14 and later; `mmap` does not name it. What the pages hold stays."""


class Reserve(mmap.mmap):
    """Private zero pages; `rows` of them, from the front, are in use by the newest array on it."""

    rows: int = 0
    row_bytes: int = 0
    address: int = 0
    populated: int = 0
    """Bytes from the front that were found memory for."""


_RESERVES: Final[WeakSet[Reserve]] = WeakSet()
_ADDING: Final = threading.Lock()
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None
_MADVISE: Final = getattr(_LIBC, "madvise", None)


def populate() -> int | None:
    """Find memory for the rows in use of all reserves, and for some more; how many bytes.

    Changes nothing that anybody reads, so it may run beside what writes; the interpreter is free
    meanwhile. Two calls must not run at once. None where the kernel cannot (before 5.14).
    """
    n_bytes = 0
    with _ADDING:
        reserves = list(_RESERVES)
    for reserve in reserves:
        used = reserve.rows * reserve.row_bytes
        wanted = min(used + max(AHEAD_BYTES, used // _STEP), len(reserve)) // _PIECE * _PIECE
        for start in range(reserve.populated, wanted, _PIECE):
            if _MADVISE is None or _MADVISE(
                ctypes.c_void_p(reserve.address + start), ctypes.c_size_t(_PIECE), _POPULATE_WRITE
            ):
                return None
            reserve.populated = start + _PIECE
            n_bytes += _PIECE
    return n_bytes


def grown(array: NDArray[_S], n: int, fill: float = 0) -> NDArray[_S]:
    """`array` with at least `n` rows: itself, or one with the same rows first and `fill` in the new ones.

    The number of rows depends on `n` and ``len(array)`` alone, so arrays that grow together stay equally
    long. The old array may share memory with the new one, or not; it is not to be used any more.
    New rows of zeros are not touched, so they cost address space only until they are written.
    """
    held = len(array)
    if n <= held:
        return array
    rows = max(n, held + (held if held < _DOUBLES_UP_TO else max(_DOUBLES_UP_TO, held // _STEP)))
    shape = (rows, *array.shape[1:])
    larger = _extended(array, shape)
    if larger is None:
        larger = _fresh(shape, array.dtype)
        larger[:held] = array
    if fill:
        larger[held:] = fill
    return larger


def _extended(array: NDArray[_S], shape: tuple[int, ...]) -> NDArray[_S] | None:
    """A longer view of the reserve that `array` lies on; None where there is none, or too small a one.

    Nor where a longer one was made from it before: its rows are not empty any more.
    """
    reserve = array.base
    if not isinstance(reserve, Reserve) or reserve.rows != len(array):
        return None
    if int(np.prod(shape, dtype=np.int64)) * array.itemsize > len(reserve):
        return None
    reserve.rows = shape[0]
    return np.ndarray(shape, dtype=array.dtype, buffer=reserve)


def _fresh(shape: tuple[int, ...], dtype: np.dtype[_S]) -> NDArray[_S]:
    """Zeros, at the front of a reserve where they are many."""
    n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if n_bytes < RESERVED_FROM_BYTES or sys.platform != "linux":
        return np.zeros(shape, dtype=dtype)
    try:
        reserve = Reserve(
            -1,
            max(_LEAST_BYTES, _FACTOR * n_bytes),
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE,
        )
    except OSError:  # address space is limited here: copies, then
        return np.zeros(shape, dtype=dtype)
    with suppress(OSError):  # a kernel without huge pages
        reserve.madvise(mmap.MADV_HUGEPAGE)
    array = np.ndarray(shape, dtype=dtype, buffer=reserve)
    reserve.rows, reserve.row_bytes, reserve.address = shape[0], n_bytes // shape[0], array.ctypes.data
    with _ADDING:
        _RESERVES.add(reserve)
    return array
