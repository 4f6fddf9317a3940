"""Message sets as a broker would send them: transactions, markers, gaps of compaction, every codec."""

from __future__ import annotations

import struct
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from msgspec import Struct

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
BASE_MS = 1_700_000_000_000
APPEND_MS = BASE_MS + 5_000
_CRC_AT, _ATTRIBUTES_AT, _LAST_DELTA_AT = 17, 21, 23
_APPEND_TIME, _CONTROL = 0x08, 0x20

Key = bytes | None
Value = bytes | None


class Batch(Struct, kw_only=True):
    """What a batch holds; `kept` places of `size` survived compaction."""

    size: int
    kept: list[tuple[int, Key, Value]]
    headers: list[tuple[str, bytes | None]] = []
    codec: str = "none"
    producer: int = -1
    transactional: bool = False
    marker: str = ""  # "abort" or "commit": a control batch
    append_time: bool = False


def encode(batch: Batch, base_offset: int) -> bytes:
    """The batch's bytes; it takes the offsets from `base_offset` to that plus its size."""
    builder: Any = DefaultRecordBatchBuilder(
        2,
        0 if batch.marker else CODECS[batch.codec],
        batch.transactional or bool(batch.marker),
        batch.producer,
        0 if batch.producer >= 0 else -1,
        0 if batch.producer >= 0 else -1,
        1 << 24,
    )
    if batch.marker:
        builder.append(0, BASE_MS, struct.pack(">HH", 0, batch.marker == "commit"), b"\x00" * 6, [])
    for place, key, value in batch.kept:
        builder.append(place, BASE_MS + 3 * place, key, value, batch.headers)
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base_offset)
    attributes = struct.unpack_from(">h", data, _ATTRIBUTES_AT)[0]
    if batch.marker:
        attributes |= _CONTROL
    if batch.append_time:
        attributes |= _APPEND_TIME
        struct.pack_into(">q", data, 35, APPEND_MS)
    struct.pack_into(">h", data, _ATTRIBUTES_AT, attributes)
    struct.pack_into(">i", data, _LAST_DELTA_AT, batch.size - 1)
    struct.pack_into(">I", data, _CRC_AT, calc_crc32c(bytes(data[_ATTRIBUTES_AT:])))
    return bytes(data)


def message_set(batches: list[Batch], first: int = 0) -> tuple[bytes, int]:
    """All batches one behind the other from offset `first`; and the offset behind them."""
    data = b""
    for batch in batches:
        data += encode(batch, first)
        first += batch.size
    return data, first


def aborted(batches: list[Batch], first: int = 0, position: int = 0) -> list[tuple[int, int]]:
    """Producer and first offset of each aborted transaction that ends at or behind `position`.

    So a broker lists them with what it sends from there.
    """
    begun: dict[int, int] = {}
    found = []
    for batch in batches:
        if batch.marker:
            start = begun.pop(batch.producer, None)
            if batch.marker == "abort" and start is not None and first >= position:
                found.append((batch.producer, start))
        elif batch.transactional:
            begun.setdefault(batch.producer, first)
        first += batch.size
    return found
