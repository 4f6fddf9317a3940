"""What the scanner must know of a struct, as arrays: names, kinds, limits and words of its fields.

All is read off the struct, so the contract is written once. Kernels get it as arguments: what
they took from globals would be baked into their cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct, inspect

from .runs import Int64, UInt64

TEXT, INTEGER, ENUM, BOOLEAN, NUMBER = range(5)
KIND, LOW, HIGH, OPTIONAL, COLUMN, FIRST_WORD, END_WORD = range(7)
_MAX_FIELDS: Final = 60
_MAX_WORD_BYTES: Final = 16
_LARGEST: Final = 10**15
"""No number of more digits is read, here or by any reader that has floats only."""


class ScanFields(NamedTuple):
    """F fields, and the words of their enumerations, W in all.

    A row of `names` or `words` is a text as two little-endian words, the mask of each, and its
    length. `parts` has the kind, the limits (characters of a text, otherwise the value), whether
    null is allowed, the column that keeps the field (-1: none) and its rows in `words`.
    `required` has a bit for each field that must be there.
    """

    names: UInt64  # (F, 5)
    parts: Int64  # (F, 7)
    words: UInt64  # (W, 5)
    required: np.uint64


def scan_fields(
    struct: type[Struct],
    *,
    texts: Sequence[str],
    numbers: Sequence[str],
    codes: Mapping[str, Sequence[str]],
) -> ScanFields:
    """The tables of `struct`.

    Parameters
    ----------
    struct : type
        Its fields are strings, integers, floats, booleans or literals, optional or not.
    texts, numbers : sequences of str
        The fields that are kept, by column: spans of the former, values of the latter (of a float its
        whole part).
    codes : mapping of str to sequence of str
        The literals of each enumeration by code.

    Raises
    ------
    TypeError
        A field that the scanner cannot read or keep, or `codes` that are not those of the struct.
    """
    info = inspect.type_info(struct)
    if not isinstance(info, inspect.StructType) or info.forbid_unknown_fields:
        raise TypeError(f"the scanner reads no {struct.__name__}")
    if len(info.fields) > _MAX_FIELDS:
        raise TypeError(f"the scanner reads no more than {_MAX_FIELDS} fields")
    names: list[list[int]] = []
    parts: list[list[int]] = []
    words: list[list[int]] = []
    required = 0
    for index, field in enumerate(info.fields):
        name = field.encode_name
        kind, low, high, optional = _kind(name, field.type, codes.get(name, ()))
        kept = texts if kind == TEXT else numbers
        column = kept.index(name) if name in kept else -1
        if column >= 0 and kind == TEXT and not field.required:
            raise TypeError(f"the scanner keeps no field like {name}")
        literals = [_word(literal) for literal in codes.get(name, ())]
        names.append(_word(name))
        parts.append([kind, low, high, int(optional), column, len(words), len(words) + len(literals)])
        words += literals
        required |= int(field.required) << index
    missing = {*texts, *numbers, *codes} - {field.encode_name for field in info.fields}
    if missing:
        raise TypeError(f"{struct.__name__} has no {sorted(missing)}")
    return ScanFields(
        names=np.array(names, dtype=np.uint64),
        parts=np.array(parts, dtype=np.int64),
        words=np.array(words, dtype=np.uint64).reshape(-1, 5),
        required=np.uint64(required),
    )


def _kind(name: str, kind: inspect.Type, codes: Sequence[str]) -> tuple[int, int, int, bool]:
    """Kind of a field, its limits, and whether it may be null."""
    kind = _bare(kind)
    optional = isinstance(kind, inspect.UnionType)
    if isinstance(kind, inspect.UnionType):
        inner = [part for part in kind.types if not isinstance(part, inspect.NoneType)]
        optional = len(inner) < len(kind.types)
        kind = _bare(inner[0]) if len(inner) == 1 else kind
    match kind:
        case inspect.StrType(min_length=low, max_length=high, pattern=None):
            return TEXT, low or 0, _LARGEST if high is None else high, optional
        case inspect.IntType(gt=None, lt=None, ge=int(low), le=int(high), multiple_of=None):
            return INTEGER, low, high, optional
        case inspect.FloatType(gt=None, lt=None, ge=low, le=high, multiple_of=None) if (
            low is not None and high is not None
        ):
            return NUMBER, int(low), int(high), optional
        case inspect.BoolType():
            return BOOLEAN, 0, 1, optional
        case inspect.LiteralType(values=(int(only),)):
            return INTEGER, only, only, optional
        case inspect.LiteralType(values=values) if sorted(codes) == list(values):
            return ENUM, 0, 0, optional
    raise TypeError(f"the scanner reads no field like {name}")


def _bare(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _word(text: str) -> list[int]:
    """A row of `ScanFields.names` or `words`."""
    data = text.encode("ascii")
    if not 0 < len(data) <= _MAX_WORD_BYTES or set(data) & set(b'"\\'):
        raise TypeError(f"the scanner reads no {text!r}")
    ones = b"\xff" * len(data)
    halves = [part.ljust(_MAX_WORD_BYTES, b"\0") for part in (data, ones)]
    return [int.from_bytes(half[i : i + 8], "little") for half in halves for i in (0, 8)] + [len(data)]
