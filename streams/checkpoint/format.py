"""Bytes of stored records: arrays in the safetensors format, JSON under a seal.

A sealed record is one line of JSON, a newline, and the body::

    {"format": "reelflow-checkpoint", "version": 1, "blake2b": "<32 hex digits>"}
    {"epoch": 3, ...}

with ``blake2b = BLAKE2b-128(format 0 version 0 body)``. This envelope is the same in all versions,
so that a reader tells a record of a later version from a damaged one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
import xxhash
from msgspec import Struct
from numpy.typing import NDArray

from schemas.errors import DamagedError, StateError
from schemas.learner import Arrays

from .store import Buffer

VERSION: Final = 1
UPGRADES: Final[dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]]] = {}
"""(format, version) -> what makes its body one of the next version; holds one version back."""

DIGEST_BYTES: Final = 16
PIECE_BYTES: Final = 2 << 20
NEWER: Final = "was written by a newer reelflow"
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*")
_DTYPES: Final = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "U32": "<u4",
    "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
_CODES: Final = {np.dtype(text): code for code, text in _DTYPES.items()}
_S = TypeVar("_S")


class Cut(Struct, kw_only=True):
    """State at one sequence: named units of named arrays, and JSON-able `meta`."""

    sequence: int
    units: Mapping[str, Arrays]
    meta: dict[str, Any]


class UnitInfo(Struct, kw_only=True, frozen=True):
    """One unit as a manifest lists it; `digest_of_unit` of its bytes."""

    n_bytes: int
    xxh3_128: str


class Manifest(Struct, kw_only=True, frozen=True):
    """What a checkpoint consists of; written last, so it exists only when the rest does."""

    epoch: int
    sequence: int
    written_at_ms: int
    units: dict[str, UnitInfo]
    meta: dict[str, Any]


class CheckpointInfo(Struct, kw_only=True, frozen=True):
    """A checkpoint that was written."""

    name: str
    epoch: int
    sequence: int
    n_bytes: int


class Checkpoint(Struct, kw_only=True):
    """A checkpoint that was read and verified; arrays are read-only."""

    name: str
    epoch: int
    sequence: int
    n_bytes: int
    written_at_ms: int
    units: dict[str, Arrays]
    meta: dict[str, Any]


def digest_of_unit(parts: Iterable[Buffer]) -> str:
    """``XXH3-128`` of all parts, hexadecimal: finds damage, and is no seal against malice.

    A unit is tens or hundreds of MB, written every few seconds beside the learner: a cryptographic
    hash took an eighth of a second of a core for 80 MB, this one a tenth of that. Cost: 0.1 to 0.3 ms
    a MB, in pieces that hold the GIL for less than a millisecond.
    """
    hasher = xxhash.xxh3_128()
    for part in parts:
        view = memoryview(part)
        for first in range(0, len(view), PIECE_BYTES):
            hasher.update(view[first : first + PIECE_BYTES])
    return hasher.hexdigest()


def _digest(payload: bytes) -> str:
    return hashlib.blake2b(payload, digest_size=DIGEST_BYTES).hexdigest()


def seal(kind: str, body: Struct) -> bytes:
    """A sealed record of format ``reelflow-<kind>``."""
    payload = msgspec.json.encode(body)
    head = {"format": f"reelflow-{kind}", "version": VERSION, "blake2b": _seal_of(kind, VERSION, payload)}
    return json.dumps(head).encode() + b"\n" + payload + b"\n"


def unseal(kind: str, name: str, data: bytes, cls: type[_S]) -> _S:
    """The body of a sealed record; `name` is for messages.

    Raises
    ------
    DamagedError
        The bytes are not those that were sealed.
    StateError
        Another version wrote it, and this one cannot read it.
    """
    line, _, rest = data.partition(b"\n")
    payload = rest[:-1]
    try:
        head = msgspec.json.decode(line, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise DamagedError(f"{name} is damaged: it does not begin as a record of ours") from None
    intact = head.blake2b == _seal_of(kind, head.version, payload) and rest[-1:] == b"\n"
    if head.format != f"reelflow-{kind}" or not intact:
        raise DamagedError(f"{name} is damaged: its digest is not that of its bytes")
    version = head.version
    check_version(f"reelflow-{kind}", version, name)
    body = msgspec.json.decode(payload)
    if version < VERSION:
        body = UPGRADES[f"reelflow-{kind}", version](body)
    try:
        return msgspec.convert(body, cls)
    except msgspec.ValidationError as error:
        raise StateError(f"{name}: {error}") from None


def check_version(format_name: str, version: int, name: str) -> None:
    """Refuse what this release cannot read: anything later, anything more than one version back.

    Raises
    ------
    StateError
        Names both versions.
    """
    if version > VERSION:
        raise StateError(
            f"{name} {NEWER} ({format_name} version {version}, this one reads up to {VERSION}): go back to"
            " that release, or use another worker.state_dir to fold the log anew"
        )
    if version < VERSION and (format_name, version) not in UPGRADES:
        raise StateError(
            f"{name} is of {format_name} version {version}, which is too old for this release: start the"
            " release between once, or use another worker.state_dir to fold the log anew"
        )


def encode_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> list[Buffer]:
    """Named arrays in the safetensors format, as parts to be written one after the other.

    Arrays that are contiguous and little-endian are not copied. The widest elements stand first, so
    all are aligned.

    Raises
    ------
    StateError
        A dtype that the format does not have.
    """
    kept = []
    for name, array in arrays.items():
        little = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        if little.dtype not in _CODES:
            raise StateError(f"array {name!r} of {array.dtype} cannot be stored")
        kept.append((name, little))
    kept.sort(key=lambda pair: (-pair[1].itemsize, pair[0]))
    header: dict[str, Any] = {}
    parts: list[Buffer] = []
    offset = 0
    for name, array in kept:
        header[name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        parts.append(array.reshape(-1).view(np.uint8).data)
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *parts]


def decode_arrays(data: bytes) -> Arrays:
    """What `encode_arrays` encoded: views of `data`, read-only.

    Raises
    ------
    DamagedError
        The bytes are not in the format.
    """
    try:
        end = 8 + int.from_bytes(data[:8], "little")
        header: dict[str, Any] = json.loads(data[8:end])
        header.pop("__metadata__", None)
        view = memoryview(data)
        arrays: Arrays = {}
        for name, entry in header.items():
            dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"]
            first, last = entry["data_offsets"]
            arrays[name] = np.frombuffer(view[end + first : end + last], dtype).reshape(shape)
        return arrays
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"not in the safetensors format: {error}") from None


def check_unit_name(name: str) -> None:
    """Refuse a unit name that could not be a file name.

    Raises
    ------
    StateError
        Names it.
    """
    if not _NAME.fullmatch(name):
        raise StateError(f"unit {name!r}: only letters, digits, dot, dash and underscore")


class _Head(Struct, frozen=True):
    format: str
    version: int
    blake2b: str


def _seal_of(kind: str, version: int, payload: bytes) -> str:
    return _digest(f"reelflow-{kind}\0{version}\0".encode() + payload)
