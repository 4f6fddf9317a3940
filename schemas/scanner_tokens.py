"""Tokens of JSON as compiled code reads them, and no more of JSON than is beyond doubt.

Every reader takes where to begin and returns where the token ends, or `DOUBT`. Doubted is what
is wrong, and what is right but seldom: exponents, long numbers, deep nesting. Buffers
end in `payloads.PADDING` zero bytes; no token holds one, so no reader leaves the buffer, and a message
that ends too early is found out by where its last token ends.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from .compiled import inlined, kernel
from .words import UInt8, byte_at, word_at

DOUBT: Final = -1
MAX_DIGITS: Final = 15
_MAX_DEPTH: Final = 32

_QUOTE, _BACKSLASH, _COMMA, _COLON, _DOT, _MINUS, _ZERO, _NINE, _U = (ord(c) for c in '"\\,:.-09u')
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_LIST, _CLOSE_LIST = (ord(c) for c in "{}[]")
_NULL, _TRUE, _ALSE = (int.from_bytes(c, "little") for c in (b"null", b"true", b"alse"))


@inlined
def after_blanks(buffer: UInt8, at: int) -> int:
    """The first byte from `at` on that is no white space."""
    while True:
        c = byte_at(buffer, at)
        if c > 32 or (c not in (32, 10, 13, 9)):
            return at
        at += 1


@inlined
def _first_special(word: np.uint64) -> int:
    """Place of the first byte that is a quote, a backslash, a control or not ASCII; 8 if none is.

    Borrows make false hits behind a true one only, so the lowest is right.
    """
    ones = np.uint64(0x0101010101010101)
    tops = np.uint64(0x8080808080808080)
    quotes = word ^ (ones * np.uint64(34))
    slashes = word ^ (ones * np.uint64(92))
    hits = (
        ((quotes - ones) & ~quotes)
        | ((slashes - ones) & ~slashes)
        | ((word - ones * np.uint64(32)) & ~word)
        | word
    ) & tops
    if hits == np.uint64(0):
        return 8
    below = (hits & (~hits + np.uint64(1))) - np.uint64(1)
    return int(np.int64(((below & ones) * ones) >> np.uint64(56))) - 1


@kernel
def _utf8_bytes(buffer: UInt8, at: int) -> int:
    """Bytes of the character of two bytes or more at `at`; 0 if it is not UTF-8."""
    lead, second = byte_at(buffer, at), byte_at(buffer, at + 1)
    low, high, n = 0x80, 0xBF, 0
    if 0xC2 <= lead <= 0xDF:
        n = 2
    elif 0xE0 <= lead <= 0xEF:
        n = 3
        if lead == 0xE0:
            low = 0xA0
        elif lead == 0xED:
            high = 0x9F
    elif 0xF0 <= lead <= 0xF4:
        n = 4
        if lead == 0xF0:
            low = 0x90
        elif lead == 0xF4:
            high = 0x8F
    if n == 0 or not low <= second <= high:
        return 0
    for i in range(2, n):
        if byte_at(buffer, at + i) & 0xC0 != 0x80:
            return 0
    return n


@kernel
def _code_unit(buffer: UInt8, at: int) -> int:
    """Value of a backslash, a u and four hexadecimal digits at `at`; `DOUBT` without them."""
    if byte_at(buffer, at) != _BACKSLASH or byte_at(buffer, at + 1) != _U:
        return DOUBT
    value = 0
    for i in range(at + 2, at + 6):
        c = byte_at(buffer, i)
        if _ZERO <= c <= _NINE:
            digit = c - _ZERO
        elif 97 <= (c | 32) <= 102:  # a to f
            digit = (c | 32) - 87
        else:
            return DOUBT
        value = value << 4 | digit
    return value


@kernel
def _escape_bytes(buffer: UInt8, at: int) -> int:
    """Bytes of the escape of one character at `at`; 0 if it is none."""
    c = byte_at(buffer, at + 1)
    if c in (_QUOTE, _BACKSLASH, 47, 98, 102, 110, 114, 116):  # and one of /bfnrt
        return 2
    unit = _code_unit(buffer, at)
    if unit < 0 or 0xDC00 <= unit <= 0xDFFF:
        return 0
    if 0xD800 <= unit <= 0xDBFF:
        return 12 if 0xDC00 <= _code_unit(buffer, at + 6) <= 0xDFFF else 0
    return 6


@inlined
def text_end(buffer: UInt8, at: int) -> tuple[int, int, bool]:
    """Closing quote of the string whose first byte is at `at`, its characters, whether it has escapes."""
    start, n_more, escaped = at, 0, False
    while True:
        skipped = _first_special(word_at(buffer, at))
        at += skipped
        if skipped == 8:
            continue
        c = byte_at(buffer, at)
        if c == _QUOTE:
            return at, at - start - n_more, escaped
        n = 0
        if c >= 0x80:
            n = _utf8_bytes(buffer, at)
        elif c == _BACKSLASH:
            n = _escape_bytes(buffer, at)
            escaped = True
        if n == 0:
            return DOUBT, 0, escaped
        n_more += n - 1
        at += n


@inlined
def digits_end(buffer: UInt8, at: int) -> tuple[int, int]:
    """End and value of the digits at `at`: no leading zero, `MAX_DIGITS` at most."""
    start, value = at, 0
    while True:
        c = byte_at(buffer, at)
        if not _ZERO <= c <= _NINE:
            break
        value = value * 10 + (c - _ZERO)
        at += 1
        if at - start > MAX_DIGITS:
            return DOUBT, 0
    if at == start or (at - start > 1 and byte_at(buffer, start) == _ZERO):
        return DOUBT, 0
    return at, value


@inlined
def fraction_end(buffer: UInt8, at: int) -> tuple[int, bool]:
    """End of what follows the digits before a point, and whether it is nothing or zeros."""
    if byte_at(buffer, at) != _DOT:
        return at, True
    at += 1
    start, zeros = at, True
    while True:
        c = byte_at(buffer, at)
        if not _ZERO <= c <= _NINE:
            break
        zeros = zeros and c == _ZERO
        at += 1
        if at - start > MAX_DIGITS:
            return DOUBT, False
    return (at, zeros) if at > start else (DOUBT, False)


@inlined
def literal_end(buffer: UInt8, at: int) -> tuple[int, int]:
    """End of null, true or false, and -1, 1 or 0 for it."""
    four = int(np.int64(word_at(buffer, at) & np.uint64(0xFFFFFFFF)))
    if four == _NULL:
        return at + 4, -1
    if four == _TRUE:
        return at + 4, 1
    if byte_at(buffer, at) == 102:  # the f of false
        four = int(np.int64(word_at(buffer, at + 1) & np.uint64(0xFFFFFFFF)))
        if four == _ALSE:
            return at + 5, 0
    return DOUBT, 0


@kernel
def _scalar_end(buffer: UInt8, at: int) -> int:
    c = byte_at(buffer, at)
    if c == _QUOTE:
        end, _, _ = text_end(buffer, at + 1)
        return end + 1 if end >= 0 else DOUBT
    if c == _MINUS or _ZERO <= c <= _NINE:
        end, _ = digits_end(buffer, at + 1 if c == _MINUS else at)
        if end >= 0:
            end, _ = fraction_end(buffer, end)
        return end
    end, _ = literal_end(buffer, at)
    return end


@kernel
def _key_end(buffer: UInt8, at: int) -> int:
    """Where the value begins whose key begins at `at`."""
    at = after_blanks(buffer, at)
    if byte_at(buffer, at) != _QUOTE:
        return DOUBT
    end, _, _ = text_end(buffer, at + 1)
    if end < 0:
        return DOUBT
    at = after_blanks(buffer, end + 1)
    return at + 1 if byte_at(buffer, at) == _COLON else DOUBT


@kernel
def value_end(buffer: UInt8, at: int) -> int:
    """End of any value that begins at `at` or behind white space there."""
    depth, objects = 0, np.uint64(0)  # the lowest bit: whether the innermost is an object
    while True:
        at = after_blanks(buffer, at)
        c = byte_at(buffer, at)
        if c in (_OPEN_OBJECT, _OPEN_LIST):
            if depth == _MAX_DEPTH:
                return DOUBT
            depth += 1
            is_object = c == _OPEN_OBJECT
            objects = objects << np.uint64(1) | np.uint64(is_object)
            at = after_blanks(buffer, at + 1)
            if byte_at(buffer, at) != (_CLOSE_OBJECT if is_object else _CLOSE_LIST):
                if is_object:
                    at = _key_end(buffer, at)
                    if at < 0:
                        return DOUBT
                continue
        else:
            at = _scalar_end(buffer, at)
            if at < 0:
                return DOUBT
        while depth > 0:  # a value ended, or an empty object or list ends
            at = after_blanks(buffer, at)
            c = byte_at(buffer, at)
            is_object = objects & np.uint64(1) == np.uint64(1)
            if c == _COMMA:
                at += 1
                if is_object:
                    at = _key_end(buffer, at)
                    if at < 0:
                        return DOUBT
                break
            if c != (_CLOSE_OBJECT if is_object else _CLOSE_LIST):
                return DOUBT
            at += 1
            depth -= 1
            objects = objects >> np.uint64(1)
        else:
            return at
