"""Decoded media as they leave a decoder's process: small arrays, whatever the file was."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]  # as in schemas.runs, which brings numba with it: decoders are to start fast


class Picture(Struct, frozen=True, eq=False):
    """`pixels` uint8 (side, side, 3) RGB; `width` and `height` of the file.

    `text` are the words on it; None where nobody read them, or reading went over a limit.
    """

    pixels: UInt8
    width: int
    height: int
    text: str | None = None


class Sound(Struct, frozen=True, eq=False):
    """Mono sound after loudness and silence: `segments`, each float32 (n_samples,) at `sample_rate` Hz.

    `duration_s` is that of the file, silence included.
    """

    segments: list[Float32]
    sample_rate: int
    duration_s: float


class Film(Struct, frozen=True, eq=False):
    """`frames` uint8 (n, side, side, 3) RGB at `times_s` float32 (n,), and the sound track.

    `sound` is None without a usable track, and `no_sound` says why: ``empty`` where the file has none.
    """

    frames: UInt8
    times_s: Float32
    duration_s: float
    width: int
    height: int
    sound: Sound | None
    no_sound: str | None


Decoded = Picture | Sound | Film


class _Array(Struct, array_like=True):
    kind: str
    shape: list[int]
    data: bytes


def pack(decoded: Decoded) -> bytes:
    """The bytes of `unpack`."""
    return msgspec.msgpack.encode((type(decoded).__name__, decoded), enc_hook=_to_wire)


def unpack(data: bytes) -> Decoded:
    """What `pack` wrote; the arrays are views of `data` and read-only.

    >>> unpack(pack(Picture(np.zeros((2, 2, 3), np.uint8), 20, 10))).pixels.shape
    (2, 2, 3)
    """
    name, fields = msgspec.msgpack.decode(data, type=tuple[str, msgspec.Raw])
    kinds: dict[str, type[Decoded]] = {"Picture": Picture, "Sound": Sound, "Film": Film}
    return msgspec.msgpack.decode(fields, type=kinds[name], dec_hook=_from_wire)


def _to_wire(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value)
        return _Array(value.dtype.str, list(value.shape), value.tobytes())
    raise NotImplementedError(type(value))


def _from_wire(_: type, value: Any) -> Any:
    array = msgspec.convert(value, _Array)
    return np.frombuffer(array.data, dtype=np.dtype(array.kind)).reshape(array.shape)
