"""Many byte strings or nulls as spans of one buffer: keys and values of a run without an object each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from .runs import Int64

NULL: Final = -1
"""Start and end of a null."""

PADDING: Final = 64
"""Zero bytes behind the last span, for compiled readers that look ahead."""


class Payloads(Sequence[bytes | None]):
    """N byte strings or nulls; string i is ``data[starts[i]:ends[i]]``, a null has start and end -1.

    Spans stand in order and do not overlap. The arrays are not to be changed. Iterating makes one
    object a string, 0.1 microseconds each; compiled readers take `data` and the spans instead.

    Parameters
    ----------
    data : bytes
        The buffer; may hold more than the spans, and ends in `PADDING` zero bytes.
    starts, ends : Int64
        (N,).
    """

    __slots__ = ("data", "ends", "starts")

    def __init__(self, data: bytes, starts: Int64, ends: Int64) -> None:
        self.data = data
        self.starts = starts
        self.ends = ends

    @classmethod
    def of(cls, values: Iterable[bytes | None]) -> Payloads:
        """Copy `values` into one buffer."""
        values = list(values)
        sizes = np.array([0 if value is None else len(value) for value in values], dtype=np.int64)
        ends = np.cumsum(sizes, dtype=np.int64)
        starts = ends - sizes
        nulls = np.array([value is None for value in values], dtype=np.bool_)
        starts[nulls] = ends[nulls] = NULL
        parts = [value for value in values if value is not None]
        return cls(b"".join([*parts, bytes(PADDING)]), starts, ends)

    @property
    def buffer(self) -> NDArray[np.uint8]:
        """`data` as an array (n_bytes,), not copied."""
        return np.frombuffer(self.data, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> Payloads: ...
    def __getitem__(self, index: int | slice) -> bytes | Payloads | None:
        if isinstance(index, slice):
            return Payloads(self.data, self.starts[index], self.ends[index])
        start = int(self.starts[index])
        return None if start < 0 else self.data[start : int(self.ends[index])]

    def __iter__(self) -> Iterator[bytes | None]:
        data = self.data
        spans = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return iter([None if start < 0 else data[start:end] for start, end in spans])
