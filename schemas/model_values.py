"""Values of the model topics: MessagePack maps whose arrays are little-endian bytes.

Every value is absolute: the last one of a key is all there is to know of it, so a replica can
neither miss nor count twice. What is common to all: `epoch` (number of the learner's tenure),
`sequence` (batches it had applied) and `lineage` (a random name of the model, given when it began
empty: slots of one lineage mean nothing in another).

Arrays whose type is fixed are plain bytes, C order; their dtype and shape stand with the field.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from .errors import ContractError, StateError
from .learner import Arrays
from .records import Id, TimestampMs

MODEL_SCHEMA_VERSION: Final = 1
HEAD: Final = "head"

Slot = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Count = Annotated[int, Meta(ge=0)]

_G = TypeVar("_G", bound=np.generic)
_S = TypeVar("_S", bound="ModelValue")


def _array(what: str) -> Meta:
    return Meta(description=what)


class ModelValue(Struct, kw_only=True):
    """What every value begins with."""

    schema_version: Annotated[int, Meta(ge=1, le=MODEL_SCHEMA_VERSION)] = MODEL_SCHEMA_VERSION
    epoch: Annotated[Count, Meta(description="number of the learner's tenure; only grows")]
    sequence: Annotated[Count, Meta(description="batches that the learner had applied")]
    lineage: Annotated[Id, Meta(description="random name of the model that the slots belong to")]


class ItemValue(ModelValue, kw_only=True):
    """What the model knows of an item; key: item_id. H half-lives, F neighbours, d dimensions."""

    item_id: Id
    slot: Annotated[Slot, Meta(description="of the item in the arrays of this lineage")]
    reference_ms: Annotated[int, Meta(description="event time at which a weight of 1 weighs 1")]
    neighbours: Annotated[bytes, _array("int32 (F,) item slots of the transition row")]
    weights: Annotated[bytes, _array("float32 (F, 3) next, forward, backward")]
    row_sums: Annotated[bytes, _array("float32 (3,)")]
    references_ms: Annotated[bytes, _array("int64 (H,) event time at which a visit counts 1")]
    counts: Annotated[bytes, _array("float64 (H,) decayed visits")]
    vector: Annotated[
        Annotated[bytes, _array("float32 (d,)")] | None, Meta(description="null without embeddings")
    ] = None
    support: Annotated[Count, Meta(description="how often the item was a target")] = 0
    near: Annotated[bytes, _array("int32 (G,) item slots of the co-occurrence row")] = b""
    near_counts: Annotated[bytes, _array("float32 (G,)")] = b""
    visits: Annotated[float, Meta(description="visits that co-occurrence counted")] = 0.0
    linear: Annotated[bytes, _array("int32 (E,) item slots of the EASE row")] = b""
    linear_weights: Annotated[bytes, _array("float32 (E,)")] = b""
    heat: Annotated[bytes, _array("float64 (2,) decayed joins and leaves of a live room")] = b""
    heat_ts_ms: Annotated[int, Meta(description="event time that they are decayed to, -1 for no room")] = -1


class UserValue(ModelValue, kw_only=True):
    """The fine-tuned row of a user; key: user_id. Partitioned as the behaviour topic is."""

    user_id: Id
    slot: Annotated[Slot, Meta(description="of the user in the learner's arrays")]
    row: Annotated[bytes, _array("float32 (d,) added to the user's vector")]


class ArrayValue(Struct, kw_only=True):
    """An array that names its own type."""

    dtype: Annotated[str, Meta(pattern=r"^<[fi][48]$", description="as numpy writes it, little-endian")]
    shape: list[Count]
    data: Annotated[bytes, _array("C order")]


class DenseValue(ModelValue, kw_only=True):
    """A named group of dense parameters; key: name."""

    name: Id
    arrays: dict[str, ArrayValue]


class ModelShape(Struct, frozen=True, kw_only=True):
    """The settings that learner and replica must share; their names in `schemas.settings`."""

    transition_width: int
    transition_half_life_h: float
    popularity_half_lives_h: tuple[float, ...]
    history: int
    embeddings: bool
    dim: int
    seed: int
    live_half_life_min: float = 5.0


class HeadPosition(Struct, frozen=True, kw_only=True):
    """How far the learner had read a partition."""

    topic: str
    partition: Count
    next_offset: Annotated[Count, Meta(description="of the event that is applied next")]


class HeadValue(ModelValue, kw_only=True):
    """The end of every transaction; key: ``head``. It goes out when nothing else changed, too."""

    model: Annotated[Id, Meta(description="worker.model_name of the learner")]
    published_at_ms: TimestampMs
    events_learned: Count
    n_items: Annotated[Count, Meta(description="item slots given")]
    n_waiting: Annotated[Count, Meta(description="changed keys that later transactions bring")]
    positions: list[HeadPosition]
    shape: ModelShape


class _Versioned(Struct):
    schema_version: Any = MODEL_SCHEMA_VERSION


_ENCODER: Final = msgspec.msgpack.Encoder()


def encode_value(value: ModelValue) -> bytes:
    """Bytes of a value; 1 to 5 microseconds."""
    return _ENCODER.encode(value)


def decode_value(data: bytes, kind: type[_S]) -> _S:
    """Value of a record.

    Raises
    ------
    StateError
        It has a version that this release does not read; names it.
    ContractError
        It is no such value.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        refuse_unknown_version(data)
        raise ContractError(f"not a {kind.__name__}: {error}", reason="bad_value") from None


def refuse_unknown_version(data: bytes) -> None:
    """Raise `StateError` if `data` is a map with a version that this release does not read."""
    try:
        version = msgspec.msgpack.decode(data, type=_Versioned).schema_version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if version != MODEL_SCHEMA_VERSION:
        raise StateError(
            f"the model topics hold values of version {version!r}, written by another reelflow;"
            f" this one reads version {MODEL_SCHEMA_VERSION}"
        )


def packed(array: NDArray[np.generic]) -> bytes:
    """Little-endian bytes of an array, C order.

    >>> packed(np.array([1, 256], dtype=np.int32)).hex()
    '0100000000010000'
    """
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def unpacked(data: bytes, like: type[_G], width: int = 0) -> NDArray[_G]:
    """The array in `data`, read-only; (n, width) for a positive width.

    Raises
    ------
    ContractError
        `data` is no whole number of rows.
    """
    dtype = np.dtype(like)
    row = dtype.itemsize * max(width, 1)
    if len(data) % row:
        raise ContractError(f"{len(data)} bytes are no whole number of {row}", reason="bad_value")
    array = np.frombuffer(data, dtype=dtype.newbyteorder("<")).astype(dtype, copy=False)
    return array.reshape(-1, width) if width else array


def packed_arrays(arrays: Arrays) -> dict[str, ArrayValue]:
    """Named arrays as values."""
    return {
        name: ArrayValue(dtype=array.dtype.newbyteorder("<").str, shape=list(array.shape), data=packed(array))
        for name, array in arrays.items()
    }


def unpacked_arrays(values: dict[str, ArrayValue]) -> Arrays:
    """What `packed_arrays` packed, read-only.

    Raises
    ------
    ContractError
        Shape and bytes of an array differ.
    """
    arrays: Arrays = {}
    for name, value in values.items():
        dtype = np.dtype(value.dtype)
        if int(np.prod(value.shape, dtype=np.int64)) * dtype.itemsize != len(value.data):
            raise ContractError(
                f"array {name!r} of shape {value.shape} has {len(value.data)} bytes",
                reason="bad_value",
                field=name,
            )
        array = np.frombuffer(value.data, dtype=dtype).reshape(value.shape)
        arrays[name] = array.astype(dtype.newbyteorder("="), copy=False)
    return arrays
