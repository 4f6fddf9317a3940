"""A fetched message set into columns, whole record batches at a time.

aiokafka makes an object a record, 0.5 microseconds each with the interpreter held. This reader
decompresses a batch, checks and parses it compiled, and keeps records as spans of the buffer. It
knows format 2 (Kafka 0.11 and later) and is strict: a batch that it does not understand ends the
message set, and one that begins with such a batch is left to aiokafka's own reader, which judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct as Layout
from typing import Final

import numpy as np
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from msgspec import Struct

from schemas.payloads import NULL, PADDING, Payloads
from schemas.runs import Int64

from .record_kernels import (
    KEY_END,
    KEY_START,
    MALFORMED,
    N_ROWS,
    OFFSET,
    RECORD_END,
    TIMESTAMP,
    VALUE_END,
    VALUE_START,
    crc32c,
    read_records,
)

_HEADER: Final = Layout(">qiibIhiqqqhii")
_SIZE_BEFORE_LENGTH: Final = 12
_MAGIC_AT: Final = 16
_MAGIC: Final = 2
_CRC_FROM: Final = 21
_CODEC, _APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_SMALLEST_RECORD: Final = 7
_ABORT: Final = b"\x00\x00\x00\x00"
"""Key of the control record that ends an aborted transaction: version 0, type 0."""

_DECODERS: Final[dict[int, Callable[[bytes], bytes]]] = {
    1: gzip_decode,
    2: snappy_decode,
    3: lz4_decode,
    4: zstd_decode,
}


class Records(Struct, frozen=True):
    """N records as columns."""

    offsets: Int64  # (N,)
    timestamps_ms: Int64  # (N,)
    keys: Payloads
    values: Payloads


class _Batch(Struct):
    """Records of one batch that are left to take: columns `first` to `n` of `columns`."""

    data: bytes
    columns: Int64  # (7, N)
    first: int
    n: int
    start: int  # where record `first` begins in data
    next_offset: int


class BatchReader:
    """Reads one partition's fetched message set; aborted records are left out.

    Parameters
    ----------
    data : bytes
        Record batches as the broker sent them; the last may be cut off.
    aborted : Sequence[tuple[int, int]]
        Producer id and first offset of the aborted transactions in it, as the broker sent them.
    position : int
        First offset that is wanted.

    Attributes
    ----------
    position : int
        Next to read; past markers, aborted records and gaps.
    exhausted : bool
        Whether nothing is left to take.
    doubtful : bool
        Whether the message set is for aiokafka to read; nothing was taken then.
    """

    def __init__(self, data: bytes, aborted: Sequence[tuple[int, int]], position: int) -> None:
        self.position = position
        self.exhausted = False
        self.doubtful = False
        self._data = data
        self._buffer = np.frombuffer(data, dtype=np.uint8)
        self._at = 0
        self._aborted = sorted(aborted, key=lambda one: one[1])
        self._aborting: set[int] = set()
        self._batch: _Batch | None = None

    def take(self, max_records: int, max_bytes: int) -> Records:
        """At most so many records, and bytes of keys and values but for one record.

        Cost: 5 microseconds a batch and 0.03 a record, beside decompression and checksum.
        """
        parts: list[_Batch] = []
        n = n_bytes = 0
        while n < max_records and n_bytes < max_bytes:
            batch = self._batch or self._open_next()
            if batch is None:
                break
            part = _cut(batch, max_records - n, max_bytes - n_bytes, at_least=0 if parts else 1)
            if part.n == part.first:
                break
            parts.append(part)
            n += part.n - part.first
            n_bytes += int(part.columns[RECORD_END, part.n - 1]) - part.start
            if part.n < batch.n:
                batch.first, batch.start = part.n, int(part.columns[RECORD_END, part.n - 1])
                self.position = int(part.columns[OFFSET, part.n - 1]) + 1
            else:
                self._batch = None
                self.position = batch.next_offset
        if self._batch is None:
            self._open_next()  # markers behind the last record belong to this run
        return _join(parts)

    def _open_next(self) -> _Batch | None:
        """The next batch with records to take; moves the position over those without."""
        while not self.exhausted:
            left = len(self._data) - self._at
            if left <= _MAGIC_AT:
                break  # cut off, and fetched again
            if self._data[self._at + _MAGIC_AT] != _MAGIC:
                self._doubt()
                return None
            if left < _HEADER.size:
                break
            header = _HEADER.unpack_from(self._data, self._at)
            end = self._at + _SIZE_BEFORE_LENGTH + header[1]
            if header[1] < _HEADER.size - _SIZE_BEFORE_LENGTH:
                self._doubt()
                return None
            if end > len(self._data):
                break
            batch = self._read(header, end)
            if batch is None:
                self._doubt()
                return None
            self._at = end
            if batch.n:
                self._batch = batch
                return batch
            self.position = max(self.position, batch.next_offset)
        self.exhausted = True
        return None

    def _doubt(self) -> None:
        self.doubtful = not self._at
        self.exhausted = True

    def _read(self, header: tuple[int, ...], end: int) -> _Batch | None:
        """Records of the batch at `_at`, none when they are not to be read; None when in doubt."""
        base_offset, _, _, _, crc, attributes, last_delta, base_ms, max_ms, producer, _, _, n = header
        if crc32c(self._buffer, self._at + _CRC_FROM, end) != crc:
            return None
        batch = _Batch(
            data=self._data, columns=_NOTHING, first=0, n=0, start=0, next_offset=base_offset + last_delta + 1
        )
        self._begin_aborts(base_offset)
        control = attributes & _CONTROL
        if attributes & _TRANSACTIONAL and producer in self._aborting and not control:
            return batch
        if not n and not control:
            return batch if end == self._at + _HEADER.size else None
        data = self._payload(attributes, end)
        if data is None or not 0 <= n <= len(data) // _SMALLEST_RECORD:
            return None
        columns = np.empty((N_ROWS, n), dtype=np.int64)
        found = read_records(
            np.frombuffer(data, dtype=np.uint8),
            0,
            base_offset,
            base_ms,
            max_ms if attributes & _APPEND_TIME else -1,
            base_offset if control else self.position,
            columns,
        )
        if found == MALFORMED or (control and not found):
            return None
        if control:
            if data[columns[KEY_START, 0] : columns[KEY_END, 0]] == _ABORT:
                self._aborting.discard(producer)
            return batch
        batch.data, batch.columns, batch.n = data, columns, found
        if found:
            batch.start = _start_of(columns, 0)
        return batch

    def _payload(self, attributes: int, end: int) -> bytes | None:
        payload = self._data[self._at + _HEADER.size : end]
        codec = attributes & _CODEC
        if not codec:
            return payload
        try:
            return _DECODERS[codec](payload)
        except Exception:  # noqa: BLE001 - each library has its own; aiokafka raises it again
            return None

    def _begin_aborts(self, base_offset: int) -> None:
        while self._aborted and self._aborted[0][1] <= base_offset:
            self._aborting.add(self._aborted.pop(0)[0])


def compile_reader() -> None:
    """Compile the kernels, or load them: never first on the thread that must send heartbeats."""
    nothing = np.frombuffer(bytes(8), dtype=np.uint8)
    crc32c(nothing, 0, len(nothing))
    read_records(nothing, len(nothing), 0, 0, -1, 0, np.empty((N_ROWS, 0), dtype=np.int64))


_NOTHING: Final = np.empty((N_ROWS, 0), dtype=np.int64)


def _start_of(columns: Int64, record: int) -> int:
    """A place at or before the keys and values of the record and behind those of the one before."""
    starts = columns[(KEY_START, VALUE_START), record]
    known = starts[starts >= 0]
    return int(known.min()) if len(known) else int(columns[RECORD_END, record])


def _cut(batch: _Batch, max_records: int, max_bytes: int, at_least: int) -> _Batch:
    """The first records of what is left, within both limits."""
    n = min(batch.n, batch.first + max_records)
    ends = batch.columns[RECORD_END, batch.first : n]
    if len(ends) and ends[-1] - batch.start > max_bytes:
        fitting = int(np.searchsorted(ends, batch.start + max_bytes, side="right"))
        n = batch.first + max(at_least, fitting)
    return _Batch(
        data=batch.data,
        columns=batch.columns,
        first=batch.first,
        n=n,
        start=batch.start,
        next_offset=batch.next_offset,
    )


def _join(parts: list[_Batch]) -> Records:
    if not parts:
        columns, data = _NOTHING, bytes(PADDING)
    else:
        pieces: list[bytes | memoryview] = []
        moved, size = [], 0
        for part in parts:
            end = int(part.columns[RECORD_END, part.n - 1])
            pieces.append(memoryview(part.data)[part.start : end])
            own = part.columns[:, part.first : part.n].copy()
            spans = own[KEY_START : VALUE_END + 1]
            np.add(spans, size - part.start, out=spans, where=spans != NULL)
            moved.append(own)
            size += end - part.start
        pieces.append(bytes(PADDING))
        columns, data = np.concatenate(moved, axis=1), b"".join(pieces)
    return Records(
        offsets=np.ascontiguousarray(columns[OFFSET]),
        timestamps_ms=np.ascontiguousarray(columns[TIMESTAMP]),
        keys=Payloads(data, columns[KEY_START], columns[KEY_END]),
        values=Payloads(data, columns[VALUE_START], columns[VALUE_END]),
    )
