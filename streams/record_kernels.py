"""Kafka's record batches, format 2, compiled: checksum, and records into columns."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import kernel
from schemas.runs import Int64

UInt8 = NDArray[np.uint8]

OFFSET, TIMESTAMP, KEY_START, KEY_END, VALUE_START, VALUE_END, RECORD_END = range(7)
"""Rows of what `read_records` writes; a null's start and end are -1."""

N_ROWS: Final = 7

AT, END, N_RECORDS, BASE_OFFSET, BASE_MS, APPEND_MS, FIRST = range(7)
"""Columns of what `read_batches` is given of a batch; see `read_records`."""

N_FACTS: Final = 7
MALFORMED: Final = -1


def _crc_tables() -> NDArray[np.uint32]:
    tables = np.zeros((8, 256), dtype=np.uint32)
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        tables[0, byte] = crc
    for k in range(1, 8):
        for byte in range(256):
            before = int(tables[k - 1, byte])
            tables[k, byte] = (before >> 8) ^ int(tables[0, before & 0xFF])
    return tables


_CRC: Final = _crc_tables()
_BYTE: Final = np.uint32(0xFF)


@kernel
def _word(data: UInt8, at: int) -> np.uint32:
    return (
        np.uint32(data[at])
        | np.uint32(data[at + 1]) << np.uint32(8)
        | np.uint32(data[at + 2]) << np.uint32(16)
        | np.uint32(data[at + 3]) << np.uint32(24)
    )


@kernel
def crc32c(data: UInt8, start: int, end: int) -> int:
    """CRC-32C of ``data[start:end]``, eight bytes a step (slicing-by-8); 0.6 ns a byte."""
    crc = np.uint32(0xFFFFFFFF)
    at = start
    while at + 8 <= end:
        low = _word(data, at) ^ crc
        high = _word(data, at + 4)
        crc = (
            _CRC[7, low & _BYTE]
            ^ _CRC[6, (low >> np.uint32(8)) & _BYTE]
            ^ _CRC[5, (low >> np.uint32(16)) & _BYTE]
            ^ _CRC[4, low >> np.uint32(24)]
            ^ _CRC[3, high & _BYTE]
            ^ _CRC[2, (high >> np.uint32(8)) & _BYTE]
            ^ _CRC[1, (high >> np.uint32(16)) & _BYTE]
            ^ _CRC[0, high >> np.uint32(24)]
        )
        at += 8
    while at < end:
        crc = (crc >> np.uint32(8)) ^ _CRC[0, (crc ^ np.uint32(data[at])) & _BYTE]
        at += 1
    return int(crc ^ np.uint32(0xFFFFFFFF))


@kernel
def _varint(data: UInt8, at: int, end: int) -> tuple[int, int]:
    """A zigzag number and the place behind it; place -1 when it does not end before `end`."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while at < end and shift < np.uint64(70):
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return int(np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1))), at
        shift += np.uint64(7)
    return 0, -1


@kernel
def checksums(data: UInt8, spans: Int64, out: Int64) -> None:
    """CRC-32C of ``data[spans[i, 0]:spans[i, 1]]`` into ``out[i]``."""
    for i in range(len(spans)):
        out[i] = crc32c(data, spans[i, 0], spans[i, 1])


@kernel
def read_batches(data: UInt8, facts: Int64, out: Int64, found: Int64) -> None:
    """Read the records of batches, one behind the other, into columns; ends at the first malformed one.

    Parameters
    ----------
    data : UInt8
        Their records, uncompressed.
    facts : Int64
        (B, 7) by batch: `AT` to `FIRST`.
    out : Int64
        (7, N) for N records at most; its rows are `OFFSET` to `RECORD_END`.
    found : Int64
        (B,) records written of each batch, or `MALFORMED`.
    """
    n = 0
    for i in range(len(facts)):
        found[i] = read_records(data, facts[i], out, n)
        if found[i] == MALFORMED:
            return
        n += found[i]


@kernel
def read_records(data: UInt8, facts: Int64, out: Int64, column: int) -> int:
    """Read the records of one batch into columns from `column` on.

    Parameters
    ----------
    data : UInt8
        Holds the records from `AT` to `END`, uncompressed.
    facts : Int64
        (7,): also how many there are; what their deltas are added to; the broker's time for all of them,
        or -1 where each has the producer's; and below which offset records are left out.
    out : Int64
        (7, N) with a column for each record; its rows are `OFFSET` to `RECORD_END`.

    Returns
    -------
    int
        Records written, or `MALFORMED`: unless all are whole and end at `END`.
    """
    at, size = facts[AT], facts[END]
    base_offset, base_ms, append_ms, first = (
        facts[BASE_OFFSET],
        facts[BASE_MS],
        facts[APPEND_MS],
        facts[FIRST],
    )
    n = column
    for _ in range(facts[N_RECORDS]):
        length, at = _varint(data, at, size)
        if at < 0 or length < 0 or length > size - at:
            return MALFORMED
        end = at + length
        if length < 1:
            return MALFORMED
        delta_ms, at = _varint(data, at + 1, end)  # behind the attributes, which are unused
        if at < 0:
            return MALFORMED
        delta, at = _varint(data, at, end)
        if at < 0:
            return MALFORMED
        key_start, key_end, at = _bytes(data, at, end)
        if at < 0:
            return MALFORMED
        value_start, value_end, at = _bytes(data, at, end)
        if at < 0:
            return MALFORMED
        n_headers, at = _varint(data, at, end)
        if at < 0 or n_headers < 0:
            return MALFORMED
        for _header in range(n_headers):
            start, _end, at = _bytes(data, at, end)
            if at < 0 or start < 0:
                return MALFORMED
            start, _end, at = _bytes(data, at, end)
            if at < 0:
                return MALFORMED
        if at != end:
            return MALFORMED
        if base_offset + delta >= first:
            out[OFFSET, n] = base_offset + delta
            out[TIMESTAMP, n] = base_ms + delta_ms if append_ms < 0 else append_ms
            out[KEY_START, n] = key_start
            out[KEY_END, n] = key_end
            out[VALUE_START, n] = value_start
            out[VALUE_END, n] = value_end
            out[RECORD_END, n] = end
            n += 1
    return n - column if at == size else MALFORMED


@kernel
def _bytes(data: UInt8, at: int, end: int) -> tuple[int, int, int]:
    """Span of a nullable byte string and the place behind it; place -1 when it is malformed."""
    length, at = _varint(data, at, end)
    if at < 0 or length > end - at:
        return -1, -1, -1
    if length < 0:
        return -1, -1, at
    return at, at + length, at + length
