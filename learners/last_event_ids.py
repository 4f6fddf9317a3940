"""The id of each user's last event, as bytes in one buffer that stays small.

A user holds a span, ``start << LENGTH_BITS | bytes``, 0 for no id. An id is written over the one
before where it fits, and else behind all; when half of the bytes belong to nobody, the rest is
moved together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import inlined, kernel
from schemas.errors import StateError
from schemas.runs import Int64
from schemas.texts import Texts
from schemas.words import UInt8

from .state import taken

LENGTH_BITS: Final = 16
_LENGTH: Final = (1 << LENGTH_BITS) - 1
_FIRST_BYTES: Final = 4_096


class IdArena(NamedTuple):
    """The buffer as kernels take it."""

    data: UInt8
    used: Int64  # [bytes written, bytes that belong to a user]


@inlined
def written(arena: IdArena, span: int, ids: UInt8, start: int, end: int) -> int:
    """The span of the id ``ids[start:end]``, which replaces that of `span`; there must be room."""
    at, length = span >> LENGTH_BITS, span & _LENGTH
    new_length = end - start
    if new_length > length:
        at = arena.used[0]
        arena.used[0] += new_length
    arena.used[1] += new_length - length
    for j in range(new_length):
        arena.data[np.uint64(at + j)] = ids[np.uint64(start + j)]
    return int(at << LENGTH_BITS | new_length)


@kernel
def _move_together(old: UInt8, spans: Int64, new: UInt8) -> None:
    end = 0
    for u in range(len(spans)):
        start, length = spans[u] >> LENGTH_BITS, spans[u] & _LENGTH
        for j in range(length):
            new[end + j] = old[start + j]
        spans[u] = end << LENGTH_BITS | length
        end += length


class LastEventIds:
    """Owner of the buffer; the spans are with the users."""

    def __init__(self, n_bytes: int = _FIRST_BYTES) -> None:
        self.arena = IdArena(data=np.zeros(max(n_bytes, 1), dtype=np.uint8), used=np.zeros(2, dtype=np.int64))

    def texts(self, spans: Int64) -> Texts:
        """The ids at `spans`; a view until ids are written or moved."""
        starts = spans >> LENGTH_BITS
        return Texts(self.arena.data, starts, starts + (spans & _LENGTH))

    def reserve(self, n_bytes: int, spans: Int64) -> bool:
        """Make room for `n_bytes` more; `spans` are those of all users, and change if ids move.

        Returns whether they did.

        Cost: 0.02 to 0.05 microseconds a user whenever half of the bytes are nobody's.
        """
        data, (end, live) = self.arena.data, self.arena.used.tolist()
        if end + n_bytes <= len(data):
            return False
        has_moved: bool = 2 * live <= end
        if has_moved:
            larger = np.zeros(2 * (live + n_bytes), dtype=np.uint8)
            _move_together(data, spans, larger)
            end = live
        else:
            larger = np.zeros(2 * (end + n_bytes), dtype=np.uint8)
            larger[:end] = data[:end]
        self.arena = IdArena(larger, np.array([end, live], dtype=np.int64))
        return has_moved

    def written(self) -> UInt8:
        """The bytes that are in use, not copied; spans stay valid in a copy of them."""
        return self.arena.data[: int(self.arena.used[0])]

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[np.generic]], spans: Int64) -> LastEventIds:
        """A copy of `written`, as ``arrays["event_ids"]``.

        Raises
        ------
        StateError
            The bytes are missing, or spans reach beyond them.
        """
        data = taken(arrays, "event_ids", np.zeros(0, dtype=np.uint8))
        lengths = spans & _LENGTH
        ends = (spans >> LENGTH_BITS) + lengths
        if len(spans) and (int(spans.min()) < 0 or int(ends.max()) > len(data)):
            raise StateError("the ids of last events do not fit their bytes")
        fresh = cls(max(len(data), _FIRST_BYTES))
        fresh.arena.data[: len(data)] = data
        fresh.arena.used[:] = len(data), int(lengths.sum())
        return fresh
