"""Checks before decoding: pixels, and whether a file is as long as its own headers say.

Decoders tend to make do with what is there.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, Final

from schemas.errors import MediaError

from .limits import MediaLimits

_UNKNOWN: Final = frozenset({0, 0xFFFFFFFF})
MAX_BOXES: Final = 100_000


def check_length(file: BinaryIO, kind: str) -> None:
    """Raise `MediaError` truncated when the container promises more bytes; leaves `file` at its start.

    Covers RIFF (wav, webp, avi) and ISO boxes (mp4, avif); other kinds are left to their decoders.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if kind in {"wav", "webp", "avi"}:
        _check_riff(file, size)
    elif kind in {"mp4", "avif"}:
        _check_boxes(file, size, kind)
    file.seek(0)


def check_pixels(width: int, height: int, limits: MediaLimits) -> None:
    """Raise `MediaError` too_many_pixels for a larger picture or frame than allowed."""
    if width * height > limits.max_pixels:
        raise MediaError("too_many_pixels", f"{width} x {height}, {limits.max_pixels} allowed")


def _check_riff(file: BinaryIO, size: int) -> None:
    head = file.read(12)
    declared = struct.unpack("<I", head[4:8])[0] if len(head) == 12 else size
    # One byte less is a missing pad; writers to a pipe leave 0 or all ones.
    if len(head) < 12 or (declared not in _UNKNOWN and declared + 7 > size):
        raise MediaError("truncated", f"{size} bytes of {declared + 8}")


def _check_boxes(file: BinaryIO, size: int, kind: str) -> None:
    """Walk the boxes of the first level."""
    position = 0
    names = set()
    for _ in range(MAX_BOXES):
        if position >= size:
            break
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            if position and not head.strip(b"\0"):
                break
            raise MediaError("truncated", "ends in the head of a box")
        length, name = struct.unpack(">I4s", head[:8])
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        if length == 0:  # to the end
            length = size - position
        if length < 8:
            break  # the rest is no box: the decoder says what it is worth
        names.add(name)
        position += length
    if position > size:
        raise MediaError("truncated", f"{size} bytes of {position}")
    if kind == "mp4" and b"moov" not in names and b"moof" not in names:
        raise MediaError("truncated", "no moov box: the recording did not end")
