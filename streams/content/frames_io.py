"""Frames between the pool, a decoder and its jobs: one byte of kind, four of length, the payload."""

from __future__ import annotations

import os
import select
import struct
import time
from typing import Final

READY: Final = b"Y"
"""From a decoder: its packages are imported."""
FAILED: Final = b"X"
"""From a decoder: it cannot start; extra and missing package, by a blank."""
JOB: Final = b"J"
FETCHED: Final = b"F"
"""From a job: the medium is here, and decoding begins."""
DECODED: Final = b"D"
"""From a job: a result as `RESULT`, which another may follow that says more."""
RESULT: Final = b"R"
REFUSED: Final = b"E"
"""Reason and message of a `MediaError`."""

MAX_PAYLOAD: Final = 1 << 28
_HEAD: Final = struct.Struct("<cI")


class EndOfFrames(Exception):  # noqa: N818 - a signal of control flow
    """The other end is closed, or does not speak in frames."""


def write_frame(handle: int, kind: bytes, payload: bytes = b"") -> None:
    """Write one frame whole."""
    view = memoryview(_HEAD.pack(kind, len(payload)) + payload)
    while view:
        view = view[os.write(handle, view) :]


def read_frame(handle: int, deadline: float | None = None) -> tuple[bytes, bytes]:
    """Kind and payload of the next frame.

    Raises
    ------
    TimeoutError
        It is not here whole at `deadline` (of `time.monotonic`).
    EndOfFrames
        There is none.
    """
    kind, length = _HEAD.unpack(_read(handle, _HEAD.size, deadline))
    if length > MAX_PAYLOAD:
        raise EndOfFrames
    return kind, _read(handle, length, deadline)


def _read(handle: int, size: int, deadline: float | None) -> bytes:
    data = bytearray()
    waiting = select.poll()
    waiting.register(handle, select.POLLIN)
    while len(data) < size:
        if deadline is not None and not waiting.poll(max(0.0, deadline - time.monotonic()) * 1e3):
            raise TimeoutError
        part = os.read(handle, size - len(data))
        if not part:
            raise EndOfFrames
        data += part
    return bytes(data)
