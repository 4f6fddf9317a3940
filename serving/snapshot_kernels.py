"""Compiled writer of snapshot JSON from prepared fragments; the layout is that of `records.Snapshot`.

A fragment is a run of bytes in a buffer; `ends[i]` is where number i ends and `ends[i - 1]` where
it begins. Buffers have `SLACK` bytes behind their last fragment, because copies go in whole chunks
and overrun: the next write goes over what was too much.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import inlined, kernel
from schemas.runs import Float32, Int8, Int32, Int64

UInt8 = NDArray[np.uint8]

CHUNK: Final = 32
SLACK: Final = 64
QUOTE: Final = 34
BACKSLASH: Final = 92
ZERO: Final = 48
SPACE: Final = 32
LETTER_U: Final = 117
HEX: Final = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
SHORT: Final = np.zeros(128, dtype=np.uint8)
"""By byte, the letter of its short escape; 0 where there is none."""
SHORT[[8, 9, 10, 12, 13, QUOTE, BACKSLASH]] = np.frombuffer(b'btnfr"\\', dtype=np.uint8)
MAX_DIGITS: Final = 20

(
    HEAD,
    AFTER_ID,
    AFTER_USER,
    AFTER_OFFSET,
    AFTER_EVENT,
    AFTER_TS,
    OF_NONE,
    FALLBACK_NONE,
    FALLBACK_COLD,
    FALLBACK_STALE,
    TAIL,
    ITEM,
    SCORE,
    BECAUSE,
    AFTER_BECAUSE,
    BECAUSE_NEAR,
    TASTE,
    POPULAR,
    DOT,
    OFFSET,
    EXPLORE,
    AFTER_EXPLORE,
    CONTENT,
    AFTER_CONTENT,
    N_TEXTS,
) = range(25)
"""What follows is told of variants, one text each."""


class Fragments(NamedTuple):
    """Fragments one behind the other."""

    data: UInt8
    ends: Int64  # (n + 1,), ends[0] is the beginning of the first


class ListColumns(NamedTuple):
    """The columns of `Ranked` that are published; (B, k) each."""

    items: Int32
    relevance: Float32
    sources: Int8
    reasons: Int32
    propensities: Float32  # (B, k), or (0, 0) for 1 throughout; told of what was explored


@inlined
def is_escaped(byte: np.uint8) -> bool:
    """Whether JSON has this byte of a string as an escape sequence."""
    return bool(byte < SPACE or byte == QUOTE or byte == BACKSLASH)  # noqa: SIM109 - three vector compares


@kernel
def escaped_sizes(data: UInt8, starts: Int64, ends: Int64) -> tuple[int, int]:
    """Bytes of all texts as JSON has them, without quotes, and of the longest."""
    total = longest = 0
    for i in range(len(starts)):
        size = int(ends[i] - starts[i])
        text = data[starts[i] : ends[i]]
        n_escaped = 0
        for p in range(len(text)):  # a vector loop: escapes are rare
            n_escaped += is_escaped(text[p])
        if n_escaped:
            for byte in text:
                if is_escaped(byte):
                    size += 1 if SHORT[byte] != 0 else 5
        total += size
        longest = max(longest, size)
    return total, longest


@kernel
def put_escaped(out: UInt8, q: int, text: UInt8) -> int:
    """One text with its escapes; returns where it ends."""
    for byte in text:
        if not is_escaped(byte):
            out[q] = byte
            q += 1
            continue
        out[q] = BACKSLASH
        if SHORT[byte] != 0:
            out[q + 1] = SHORT[byte]
            q += 2
        else:
            out[q + 1] = LETTER_U
            out[q + 2] = out[q + 3] = ZERO
            out[q + 4] = HEX[byte >> 4]
            out[q + 5] = HEX[byte & 15]
            q += 6
    return q


@kernel
def put_texts(
    data: UInt8, starts: Int64, ends: Int64, out: UInt8, out_ends: Int64, first: int, start: int
) -> int:
    """Texts as JSON has them, without quotes, one behind the other to `out` from `start` on.

    ``out_ends[first + 1 :]`` gets where each ends; returns where the last one ends.
    """
    q = start
    for i in range(len(starts)):
        n = ends[i] - starts[i]
        source, target = data[starts[i] : ends[i]], out[q : q + n]
        n_escaped = 0
        for p in range(n):  # copied and looked at in one vector loop: escapes are rare
            target[p] = source[p]
            n_escaped += is_escaped(source[p])
        q = q + n if n_escaped == 0 else put_escaped(out, q, source)
        out_ends[first + 1 + i] = q
    return q


@inlined
def put(out: UInt8, p: int, data: UInt8, start: int, end: int) -> int:
    """Copy a run in chunks; returns where it ends.

    Views that begin where the run does leave the loop without index arithmetic, so that it
    becomes vector moves: 2 ns a run instead of 60.
    """
    n = end - start
    target, source = out[p:], data[start:]
    for j in range((n + CHUNK - 1) // CHUNK * CHUNK):
        target[j] = source[j]
    return p + n


@kernel
def put_number(out: UInt8, p: int, value: int, digits: UInt8) -> int:
    """Decimal digits of a number that is not negative."""
    n = 0
    left = np.uint64(value)
    while True:
        rest = left // np.uint64(10)
        digits[n] = np.uint8(ZERO + left - rest * np.uint64(10))
        n += 1
        left = rest
        if left == np.uint64(0):
            break
    for j in range(n):
        out[p + j] = digits[n - 1 - j]
    return p + n


@inlined
def put_ratio(out: UInt8, p: int, ratio: np.float32) -> int:
    """Four decimals of a number in (0, 1)."""
    n = min(max(int(ratio * np.float64(10000.0) + 0.5), 1), 9999)
    out[p] = ZERO + n // 1000
    out[p + 1] = ZERO + n // 100 % 10
    out[p + 2] = ZERO + n // 10 % 10
    out[p + 3] = ZERO + n % 10
    return p + 4


@kernel
def write_snapshots(
    out: UInt8,
    bounds: Int64,
    texts: Fragments,
    ids: Fragments,
    users: Fragments,
    events: Fragments,
    lists: ListColumns,
    partitions: Int64,
    offsets: Int64,
    ts_ms: Int64,
    fallbacks: Int8,
    variants: Int8,
    first_sequence: int,
    digits: UInt8,
) -> None:
    """Write B snapshots; number i stands in ``out[bounds[i]:bounds[i + 1]]``.

    `digits` (MAX_DIGITS,) is scratch memory.
    """
    td, te = texts.data, texts.ends
    idd, ide = ids.data, ids.ends
    ud, ue = users.data, users.ends
    ed, ee = events.data, events.ends
    items, relevance, sources, reasons = lists.items, lists.relevance, lists.sources, lists.reasons
    propensities = lists.propensities
    p = 0
    for i in range(len(offsets)):
        bounds[i] = p
        p = put(out, p, td, te[HEAD], te[HEAD + 1])
        p = put(out, p, ud, ue[i], ue[i + 1])
        p = put(out, p, td, te[DOT], te[DOT + 1])
        p = put_number(out, p, partitions[i], digits)
        p = put(out, p, td, te[DOT], te[DOT + 1])
        p = put_number(out, p, first_sequence + i, digits)
        p = put(out, p, td, te[AFTER_ID], te[AFTER_ID + 1])
        p = put(out, p, ud, ue[i], ue[i + 1])
        p = put(out, p, td, te[AFTER_USER], te[AFTER_USER + 1])
        p = put_number(out, p, partitions[i], digits)
        p = put(out, p, td, te[OFFSET], te[OFFSET + 1])
        p = put_number(out, p, offsets[i], digits)
        p = put(out, p, td, te[AFTER_OFFSET], te[AFTER_OFFSET + 1])
        p = put(out, p, ed, ee[i], ee[i + 1])
        p = put(out, p, td, te[AFTER_EVENT], te[AFTER_EVENT + 1])
        p = put_number(out, p, ts_ms[i], digits)
        p = put(out, p, td, te[AFTER_TS], te[AFTER_TS + 1])
        v = OF_NONE if variants[i] < 0 else N_TEXTS + variants[i]
        p = put(out, p, td, te[v], te[v + 1])
        f = FALLBACK_NONE + fallbacks[i]
        p = put(out, p, td, te[f], te[f + 1])
        is_first = True
        for j in range(items.shape[1]):
            b = items[i, j]
            if b < 0:
                continue
            if not is_first:
                out[p] = 44
                p += 1
            is_first = False
            p = put(out, p, td, te[ITEM], te[ITEM + 1])
            p = put(out, p, idd, ide[b], ide[b + 1])
            p = put(out, p, td, te[SCORE], te[SCORE + 1])
            p = put_ratio(out, p, relevance[i, j])
            why = reasons[i, j]
            if sources[i, j] == 0 and why >= 0:
                p = put(out, p, td, te[BECAUSE], te[BECAUSE + 1])
                p = put(out, p, idd, ide[why], ide[why + 1])
                p = put(out, p, td, te[AFTER_BECAUSE], te[AFTER_BECAUSE + 1])
            elif sources[i, j] == 3 and why >= 0:
                p = put(out, p, td, te[BECAUSE_NEAR], te[BECAUSE_NEAR + 1])
                p = put(out, p, idd, ide[why], ide[why + 1])
                p = put(out, p, td, te[AFTER_BECAUSE], te[AFTER_BECAUSE + 1])
            elif sources[i, j] == 4:
                p = put(out, p, td, te[EXPLORE], te[EXPLORE + 1])
                p = put_ratio(out, p, propensities[i, j] if len(propensities) else np.float32(1.0))
                p = put(out, p, td, te[AFTER_EXPLORE], te[AFTER_EXPLORE + 1])
            elif sources[i, j] == 5:
                p = put(out, p, td, te[CONTENT], te[CONTENT + 1])
                p = put_ratio(out, p, propensities[i, j] if len(propensities) else np.float32(1.0))
                p = put(out, p, td, te[AFTER_CONTENT], te[AFTER_CONTENT + 1])
            elif sources[i, j] == 1:
                p = put(out, p, td, te[TASTE], te[TASTE + 1])
            else:
                p = put(out, p, td, te[POPULAR], te[POPULAR + 1])
        p = put(out, p, td, te[TAIL], te[TAIL + 1])
    bounds[len(offsets)] = p
