"""Record batches of a fetched message set, opened: checked, decompressed, their records found.

What is compiled hands the interpreter over and takes it back, which costs more than the work on a batch
of a few records, as many producers send them. So small batches are opened together: one call for all
checksums, one for all LZ4 frames, one for all records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct as Layout
from typing import Final

import numpy as np
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from msgspec import Struct

from schemas.runs import Int64

from .lz4_kernels import NOT_OURS, decode_frames, frame_sizes
from .record_kernels import (
    KEY_END,
    KEY_START,
    MALFORMED,
    N_FACTS,
    N_RECORDS,
    N_ROWS,
    RECORD_END,
    VALUE_START,
    checksums,
    read_batches,
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

MOST_TOGETHER: Final = 64
MOST_BYTES_TOGETHER: Final = 1 << 16
MOST_DATA_TOGETHER: Final = 1 << 20
"""Batches that are opened together, their bytes as sent, and uncompressed: but for the last one of them."""

_LZ4: Final = 3
SMALL_FRAME_BYTES: Final = 4_096
"""Up to this size LZ4 frames are decoded by us, together: for larger ones the library is quicker."""

_DECODERS: Final[dict[int, Callable[[bytes], bytes]]] = {
    1: gzip_decode,
    2: snappy_decode,
    3: lz4_decode,
    4: zstd_decode,
}


class Batch(Struct):
    """Records of one batch that are left to take: columns `first` to `n` of `columns`."""

    data: bytes
    columns: Int64  # (7, N), of all batches that were opened together
    first: int
    n: int
    start: int  # where record `first` begins in data
    next_offset: int


class _Head(Struct, frozen=True):
    """A whole batch in the message set."""

    at: int
    end: int
    base_offset: int
    crc: int
    attributes: int
    next_offset: int
    base_ms: int
    max_ms: int
    producer: int
    n: int

    @property
    def control(self) -> bool:
        """Whether it is a marker that ends a transaction."""
        return bool(self.attributes & _CONTROL)


class BatchOpener:
    """Opens the batches of a message set in order; it is strict.

    Parameters
    ----------
    data : bytes
        Record batches as the broker sent them; the last may be cut off.
    aborted : Sequence[tuple[int, int]]
        Producer id and first offset of the aborted transactions in it, as the broker sent them.

    Attributes
    ----------
    ended : bool
        Whether nothing is left to open.
    doubtful : bool
        Whether the first batch is not understood.
    """

    def __init__(self, data: bytes, aborted: Sequence[tuple[int, int]]) -> None:
        self.ended = False
        self.doubtful = False
        self._data = data
        self._buffer = np.frombuffer(data, dtype=np.uint8)
        self._at = 0
        self._aborted = sorted(aborted, key=lambda one: one[1])
        self._aborting: set[int] = set()

    def open(self, position: int) -> list[Batch]:
        """The next batches, without records where none are to be read, and none of offsets below `position`.

        A batch in doubt ends the message set; where it is the first one, all of it is in doubt.
        """
        heads, ended, doubt = self._heads()
        spans = np.array([(head.at + _CRC_FROM, head.end) for head in heads], dtype=np.int64).reshape(-1, 2)
        sums = np.empty(len(heads), dtype=np.int64)
        checksums(self._buffer, spans, sums)
        wrong = np.flatnonzero(sums != np.array([head.crc for head in heads], dtype=np.int64))
        if len(wrong):
            heads, doubt = heads[: wrong[0]], True
        opened, malformed = self._opened(heads, position)
        if opened:
            self._at = heads[len(opened) - 1].end
        at_end = len(opened) == len(heads)
        if malformed or (at_end and doubt):
            self.doubtful = not self._at
        self.ended = malformed or (at_end and (ended or doubt))
        return opened

    def _heads(self) -> tuple[list[_Head], bool, bool]:
        """Headers of the next batches, as far as they go together; whether none follows, or one in doubt."""
        heads: list[_Head] = []
        at, data = self._at, self._data
        while len(heads) < MOST_TOGETHER and at - self._at < MOST_BYTES_TOGETHER:
            left = len(data) - at
            if left > _MAGIC_AT and data[at + _MAGIC_AT] != _MAGIC:
                return heads, False, True
            if left < _HEADER.size:  # cut off, and fetched again
                return heads, True, False
            base, length, _, _, crc, attributes, last_delta, base_ms, max_ms, producer, _, _, n = (
                _HEADER.unpack_from(data, at)
            )
            if length < _HEADER.size - _SIZE_BEFORE_LENGTH:
                return heads, False, True
            end = at + _SIZE_BEFORE_LENGTH + length
            if end > len(data):
                return heads, True, False
            head = _Head(at, end, base, crc, attributes, base + last_delta + 1, base_ms, max_ms, producer, n)
            heads.append(head)
            at = end
            if head.control:  # says what is to be read of those behind it
                break
        return heads, False, False

    def _opened(self, heads: list[_Head], position: int) -> tuple[list[Batch], bool]:
        """Records of batches, none of those that are not to be read; and whether one in doubt came next."""
        parts: list[bytes] = []
        facts: list[tuple[int, ...]] = []
        places: list[int | None] = []  # in facts
        size, first, malformed = 0, position, False
        small = self._small_frames(heads)
        for number, head in enumerate(heads):
            self._begin_aborts(head.base_offset)
            aborted = head.attributes & _TRANSACTIONAL and head.producer in self._aborting
            if not head.control and (aborted or not head.n):
                if not aborted and head.end != head.at + _HEADER.size:
                    malformed = True
                    break
                places.append(None)
            else:
                part = small[number] if number in small else self._payload(head)
                if part is None or not 0 <= head.n <= len(part) // _SMALLEST_RECORD:
                    malformed = True
                    break
                append_ms = head.max_ms if head.attributes & _APPEND_TIME else -1
                wanted = head.base_offset if head.control else first
                end = size + len(part)
                places.append(len(facts))
                facts.append((size, end, head.n, head.base_offset, head.base_ms, append_ms, wanted))
                parts.append(part)
                size = end
            first = max(first, head.next_offset)
            if size > MOST_DATA_TOGETHER:
                break
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        columns, found = self._columns(data, facts)
        batches: list[Batch] = []
        column = 0
        for head, place in zip(heads, places, strict=False):
            n = 0 if place is None else found[place]
            if n == MALFORMED or (head.control and not n):
                return batches, True
            if head.control:
                if data[columns[KEY_START, column] : columns[KEY_END, column]] == _ABORT:
                    self._aborting.discard(head.producer)
                batches.append(Batch(data, columns, 0, 0, 0, head.next_offset))
            else:
                start = start_of(columns, column) if n else 0
                batches.append(Batch(data, columns, column, column + n, start, head.next_offset))
            column += n
        return batches, malformed

    @staticmethod
    def _columns(data: bytes, facts: list[tuple[int, ...]]) -> tuple[Int64, list[int]]:
        """Columns of the batches' records, and how many each has; up to the first that is malformed."""
        table = np.array(facts, dtype=np.int64).reshape(-1, N_FACTS)
        columns = np.empty((N_ROWS, int(table[:, N_RECORDS].sum())), dtype=np.int64)
        found = np.full(len(table), MALFORMED, dtype=np.int64)
        read_batches(np.frombuffer(data, dtype=np.uint8), table, columns, found)
        return columns, found.tolist()

    def _small_frames(self, heads: list[_Head]) -> dict[int, bytes]:
        """Small LZ4 frames decoded, by place of their batch; without those that are for the library."""
        wanted = [
            place
            for place, head in enumerate(heads)
            if head.attributes & _CODEC == _LZ4 and head.end - head.at <= SMALL_FRAME_BYTES
        ]
        if not wanted:
            return {}
        spans = np.array(
            [(heads[place].at + _HEADER.size, heads[place].end) for place in wanted], dtype=np.int64
        )
        sizes = np.empty(len(wanted), dtype=np.int64)
        frame_sizes(self._buffer, spans, MOST_DATA_TOGETHER, sizes)
        # As many as are opened together: those behind are not looked at before the next call.
        before = np.cumsum(np.maximum(sizes, 0)) - np.maximum(sizes, 0)
        n = int(np.count_nonzero(before <= MOST_DATA_TOGETHER))
        wanted, spans, sizes = wanted[:n], spans[:n], sizes[:n]
        out = np.empty(int(sizes[sizes != NOT_OURS].sum()), dtype=np.uint8)
        decode_frames(self._buffer, spans, sizes, out)
        data, end = out.tobytes(), 0
        found: dict[int, bytes] = {}
        for place, n in zip(wanted, sizes.tolist(), strict=True):
            if n != NOT_OURS:
                start, end = end, end + n
                found[place] = data[start:end]
        return found

    def _payload(self, head: _Head) -> bytes | None:
        payload = self._data[head.at + _HEADER.size : head.end]
        codec = head.attributes & _CODEC
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
    numbers = np.empty(0, dtype=np.int64)
    checksums(nothing, numbers.reshape(0, 2), numbers)
    read_batches(nothing, numbers.reshape(0, N_FACTS), numbers.reshape(N_ROWS, 0), numbers)
    frame_sizes(nothing, numbers.reshape(0, 2), 0, numbers)
    decode_frames(nothing, numbers.reshape(0, 2), numbers, np.empty(0, dtype=np.uint8))


def start_of(columns: Int64, record: int) -> int:
    """A place at or before the keys and values of the record and behind those of the one before."""
    starts = columns[(KEY_START, VALUE_START), record]
    known = starts[starts >= 0]
    return int(known.min()) if len(known) else int(columns[RECORD_END, record])
