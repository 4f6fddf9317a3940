"""Ids to dense slots: slot n is the n-th distinct id seen."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from .errors import StateError
from .hashing import hash_texts, key_halves
from .runs import Int32, Int64, UInt64
from .string_table import TableArrays, add_texts, find_text, find_texts, replaced
from .texts import Texts, texts_of
from .words import UInt8

MAX_SLOTS = 2**31 - 1
_KEY: Final = secrets.randbits(128)  # slots do not depend on it, and no checkpoint holds a hash
_K0, _K1 = key_halves(_KEY)
_EMPTY: Final = texts_of(("",)).data
_FIRST_PLACES: Final = 64
_SLACK: Final = 8

_S = TypeVar("_S", bound=np.generic)


def table_hashes(buffer: UInt8, starts: Int64, ends: Int64) -> UInt64:
    """Hashes of spans for `Interner.intern_spans`, for who asks several tables; of this process alone."""
    return hash_texts(Texts(buffer, starts, ends), _KEY)


class Ids(Sequence[str]):
    """All ids of an interner by slot, as they are now; a view."""

    __slots__ = ("texts",)

    def __init__(self, texts: Texts) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self.texts.take(index).to_list() if isinstance(index, slice) else self.texts[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self[:] == list(other)

    __hash__ = None  # type: ignore[assignment]  # ids are added


class Interner:
    """Two-way table of ids and dense int32 slots.

    At `capacity` an unknown id gets -1: memory stays bounded, and the caller says so aloud.
    Slots are process-local names: digests and everything published are over ids. `get` adds an
    unknown id, `find` does not.

    Cost: 0.05 microseconds an id of a batch (`intern_texts`), a few for a single one; memory is
    the id and about 24 bytes, twice that after a growth.

    >>> table = Interner()
    >>> table.get("a"), table.get("b"), table.get("a"), table.find("c")
    (0, 1, 0, -1)
    >>> table.id_of(1)
    'b'
    """

    __slots__ = ("_n", "_table", "capacity")

    def __init__(self, ids: Iterable[str] = (), *, capacity: int = MAX_SLOTS) -> None:
        self.capacity = MAX_SLOTS
        self._n = 0
        self._table = TableArrays(
            places=np.zeros(_FIRST_PLACES, dtype=np.uint64),
            arena=np.zeros(_SLACK, dtype=np.uint8),
            ends=np.zeros(1, dtype=np.int64),
        )
        texts = texts_of(ids)
        self.intern_texts(texts)
        if self._n != len(texts):
            raise ValueError("ids must be distinct")
        self.capacity = capacity

    def __len__(self) -> int:
        return self._n

    @property
    def ids(self) -> Ids:
        """All ids by slot."""
        return Ids(self.texts())

    def texts(self, start: int = 0) -> Texts:
        """Ids from slot `start` on, as a view of the table; later ids move it to another buffer."""
        ends = self._table.ends[: self._n + 1]
        return Texts(self._table.arena, ends[start:-1], ends[start + 1 :])

    def texts_at(self, slots: NDArray[np.integer]) -> Texts:
        """Ids at `slots`; the buffer is the table's own."""
        ends = self._table.ends
        return Texts(self._table.arena, ends[slots], ends[1:][slots])

    def get(self, identifier: str) -> int:
        """Slot of `identifier`, added when new; -1 when it is new and the table is full."""
        slot = self.find(identifier)
        return slot if slot >= 0 else int(self.intern_texts(texts_of((identifier,)))[0])

    def find(self, identifier: str) -> int:
        """Slot of `identifier`, or -1."""
        encoded = identifier.encode(errors="surrogatepass")  # no UTF-8, so nothing that is known
        text = np.frombuffer(encoded, dtype=np.uint8) if encoded else _EMPTY
        return int(find_text(text, _K0, _K1, self._table))

    def id_of(self, slot: int) -> str:
        """Id at `slot`.

        Raises
        ------
        IndexError
            There is none.
        """
        if not 0 <= slot < self._n:
            raise IndexError(f"slot {slot} of {self._n}")
        ends = self._table.ends
        return self._table.arena[ends[slot] : ends[slot + 1]].tobytes().decode()

    def get_many(self, identifiers: Sequence[str]) -> Int32:
        """Slots of many ids, unknown ones added in order; (N,) int32."""
        return self.intern_texts(texts_of(identifiers))

    def intern_texts(self, texts: Texts) -> Int32:
        """Slots of many ids, unknown ones added in order; (N,) int32, -1 beyond the capacity."""
        return self.intern_spans(texts.data, texts.starts, texts.ends)

    def intern_spans(self, buffer: UInt8, starts: Int64, ends: Int64, hashes: UInt64 | None = None) -> Int32:
        """As `intern_texts`, of the UTF-8 at ``buffer[starts[i]:ends[i]]``; `hashes` as of `table_hashes`."""
        slots = np.empty(len(starts), dtype=np.int32)
        if len(starts):
            if hashes is None:
                hashes = table_hashes(buffer, starts, ends)
            self._reserve(len(starts), int((ends - starts).sum()))
            self._n = add_texts(buffer, starts, ends, hashes, self._table, self._n, self.capacity, slots)
        return slots

    def find_spans(self, buffer: UInt8, starts: Int64, ends: Int64) -> Int32:
        """Slots of many ids, -1 where unknown; (N,) int32. Nothing is added."""
        slots = np.empty(len(starts), dtype=np.int32)
        find_texts(buffer, starts, ends, hash_texts(Texts(buffer, starts, ends), _KEY), self._table, slots)
        return slots

    def _reserve(self, n: int, n_bytes: int) -> None:
        """Room for `n` more ids of `n_bytes` in all, at a load of three quarters at most."""
        places, arena, ends = self._table
        n_ids = min(self._n + n, self.capacity)
        n_places = len(places)
        while 4 * n_ids > 3 * n_places:
            n_places *= 2
        if n_places > len(places):
            larger = np.zeros(n_places, dtype=np.uint64)
            replaced(places, larger)
            places = larger
        used = int(ends[self._n])
        if used + n_bytes + _SLACK > len(arena):
            arena = _extended(arena, used, used + n_bytes + _SLACK)
        if n_ids + 1 > len(ends):
            ends = _extended(ends, self._n + 1, n_ids + 1)
        self._table = TableArrays(places, arena, ends)

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """Copies of the bytes and of where each id ends: `ids` uint8, `id_ends` int64."""
        ends = self._table.ends[1 : self._n + 1].copy()
        return {"ids": self._table.arena[: self._table.ends[self._n]].copy(), "id_ends": ends}

    @classmethod
    def restored(
        cls, arrays: Mapping[str, NDArray[np.generic]], *, capacity: int = MAX_SLOTS, prefix: str = ""
    ) -> Interner:
        """The table that `snapshot` described, under names that begin with `prefix`.

        More ids than `capacity` are kept; none is added then.

        Raises
        ------
        StateError
            An array is missing or of another type, the ends do not fit the bytes, an id is not
            UTF-8, or stands twice.
        """
        data, ends = arrays.get(f"{prefix}ids"), arrays.get(f"{prefix}id_ends")
        if data is None or ends is None or data.dtype != np.uint8 or ends.dtype != np.int64:
            raise StateError(f"the state lacks {prefix}ids as bytes and {prefix}id_ends as int64")
        bounds = np.concatenate([np.zeros(1, dtype=np.int64), ends.astype(np.int64)])
        if (np.diff(bounds) < 0).any() or bounds[-1] != len(data):
            raise StateError(f"{prefix}id_ends do not fit the bytes of {prefix}ids")
        texts = Texts(data.astype(np.uint8), bounds[:-1], bounds[1:])
        try:
            texts.data.tobytes().decode()
        except UnicodeDecodeError as error:
            raise StateError(f"{prefix}ids are not UTF-8") from error
        begun = texts.starts[texts.starts < texts.ends]
        if (texts.data[begun] & 0xC0 == 0x80).any():
            raise StateError(f"{prefix}id_ends cut a character of {prefix}ids")
        table = cls(capacity=MAX_SLOTS)
        table.intern_texts(texts)
        if len(table) != len(texts):
            raise StateError(f"{prefix}ids holds an id twice")
        table.capacity = capacity
        return table


def _extended(array: NDArray[_S], used: int, needed: int) -> NDArray[_S]:
    larger = np.empty(max(needed, 2 * len(array)), dtype=array.dtype)
    larger[:used] = array[:used]
    return larger
