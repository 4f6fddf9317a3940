"""Compiled reader of many flat JSON objects: columns straight from the bytes, and what it doubts.

For each message it either fills the row and is sure, or doubts. Sure means that msgspec gives
the same values for the same bytes: the text is JSON and UTF-8, every known field stands once and
within its limits, required ones are there, and the record key is the key field. Everything else
is doubted and goes to the full decoder, which alone decides what is wrong with it. Unknown fields
may hold any value, are read by the same rules, and are skipped.

Cost: about 0.15 microseconds a message of 240 bytes whose fields come in the order of the one
before, and of a known order; 0.05 more where they do not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiled import inlined, kernel
from .runs import UNKNOWN, Int64, UInt64
from .scanner_fields import (
    BOOLEAN,
    COLUMN,
    END_WORD,
    ENUM,
    FIRST_WORD,
    HIGH,
    INTEGER,
    KIND,
    LOW,
    NUMBER,
    OPTIONAL,
    TEXT,
    ScanFields,
)
from .scanner_tokens import after_blanks, digits_end, fraction_end, literal_end, text_end, value_end
from .words import UInt8, byte_at, is_same, word_at

Bools = NDArray[np.bool_]

_QUOTE, _COMMA, _COLON, _ZERO, _NINE, _OPEN, _CLOSE, _N = (ord(c) for c in '",:09{}n')


class ScanColumns(NamedTuple):
    """What is written, by kept field and message; rows of doubted messages hold anything."""

    sure: Bools  # (N,)
    starts: Int64  # (texts, N)
    ends: Int64  # (texts, N)
    numbers: Int64  # (numbers, N) -1 unknown
    after: Int64  # (F + 1,) the field that last followed each, F for the start; -1 at first


@inlined
def _is_word(buffer: UInt8, at: int, words: UInt64, row: int) -> bool:
    """Whether the string whose first byte is at `at` is word `row`."""
    return bool(
        (word_at(buffer, at) & words[row, 2]) == words[row, 0]
        and (word_at(buffer, at + 8) & words[row, 3]) == words[row, 1]
        and byte_at(buffer, at + int(np.int64(words[row, 4]))) == _QUOTE
    )


@inlined
def _field_at(buffer: UInt8, at: int, names: UInt64, guess: int, last: int) -> int:
    """Field whose name begins at `at`, -1 if none: the guessed one first, then those behind `last`."""
    n = len(names)
    if guess >= 0 and _is_word(buffer, at, names, guess):
        return guess
    field = last
    for _ in range(n):
        field = field + 1 if field + 1 < n else 0
        if _is_word(buffer, at, names, field):
            return field
    return -1


@inlined
def _value(buffer: UInt8, at: int, field: int, fields: ScanFields, out: ScanColumns, i: int) -> int:
    """Read the value of a known field into row `i`; its end, or -1."""
    parts = fields.parts
    kind, column, c = parts[field, KIND], parts[field, COLUMN], byte_at(buffer, at)
    if kind == TEXT and c == _QUOTE:
        end, n_chars, escaped = text_end(buffer, at + 1)
        is_within = parts[field, LOW] <= n_chars <= parts[field, HIGH]
        if end < 0 or not is_within or (escaped and column >= 0):
            return -1
        if column >= 0:
            out.starts[column, i] = at + 1
            out.ends[column, i] = end
        return end + 1
    value = UNKNOWN
    end = -1
    if kind in (INTEGER, NUMBER) and _ZERO <= c <= _NINE:
        end, value = digits_end(buffer, at)
        if end < 0:
            return -1
        end, whole = fraction_end(buffer, end)
        # A number whose whole part is below the limit is below it with any fraction.
        if kind == INTEGER and not whole:
            return -1
        if value < parts[field, LOW] or value + (not whole) > parts[field, HIGH]:
            return -1
    elif kind == ENUM and c == _QUOTE:
        for row in range(parts[field, FIRST_WORD], parts[field, END_WORD]):
            if _is_word(buffer, at + 1, fields.words, row):
                value = row - parts[field, FIRST_WORD]
                end = at + 2 + int(np.int64(fields.words[row, 4]))
                break
    elif c == _N or kind == BOOLEAN:
        end, value = literal_end(buffer, at)
        if value < 0 and parts[field, OPTIONAL] == 0:
            return -1
    if column >= 0:
        out.numbers[column, i] = value
    return end


@inlined
def _is_sure(buffer: UInt8, at: int, end: int, fields: ScanFields, out: ScanColumns, i: int) -> bool:
    """Read the message ``buffer[at:end]`` into row `i`."""
    after, n_fields = out.after, len(fields.names)
    at = after_blanks(buffer, at)
    if byte_at(buffer, at) != _OPEN:
        return False
    found, last = np.uint64(0), n_fields
    at = after_blanks(buffer, at + 1)
    while True:
        if byte_at(buffer, at) != _QUOTE:
            return False
        field = _field_at(buffer, at + 1, fields.names, after[last], last if last < n_fields else -1)
        if field >= 0:
            bit = np.uint64(1) << np.uint64(field)
            if found & bit != np.uint64(0):
                return False
            found |= bit
            after[last] = field
            last = field
            at = at + 2 + int(np.int64(fields.names[field, 4]))
        else:
            at, _, escaped = text_end(buffer, at + 1)
            if at < 0 or escaped:  # the name of a known field may be written with escapes
                return False
            at += 1
        at = after_blanks(buffer, at)
        if byte_at(buffer, at) != _COLON:
            return False
        at = after_blanks(buffer, at + 1)
        at = _value(buffer, at, field, fields, out, i) if field >= 0 else value_end(buffer, at)
        if at < 0:
            return False
        at = after_blanks(buffer, at)
        c = byte_at(buffer, at)
        if c == _COMMA:
            at = after_blanks(buffer, at + 1)
        elif c == _CLOSE:
            break
        else:
            return False
    # No reader looks at `end`. If the last brace stands before it, so does all that was read.
    is_whole = at < end and after_blanks(buffer, at + 1) >= end
    return bool(is_whole and (found & fields.required) == fields.required)


@kernel
def scan(
    buffer: UInt8,
    starts: Int64,
    ends: Int64,
    keys: UInt8,
    key_starts: Int64,
    key_ends: Int64,
    fields: ScanFields,
    key_column: int,
    max_bytes: int,
    out: ScanColumns,
) -> int:
    """Read all messages; returns of how many it is sure.

    Message i is ``buffer[starts[i]:ends[i]]``, its key ``keys[key_starts[i]:key_ends[i]]``; both
    buffers end in `payloads.PADDING` zero bytes. A message of more than `max_bytes` is doubted unread.
    """
    n_sure = 0
    for i in range(len(out.sure)):
        for column in range(len(out.numbers)):
            out.numbers[column, i] = UNKNOWN
        start, end = starts[i], ends[i]
        sure = end - start <= max_bytes and _is_sure(buffer, start, end, fields, out, i)
        if sure:
            key, key_end = key_starts[i], key_ends[i]
            first, last = out.starts[key_column, i], out.ends[key_column, i]
            sure = last - first == key_end - key and is_same(buffer, first, last, keys, key)
        out.sure[i] = sure
        n_sure += sure
    return n_sure
