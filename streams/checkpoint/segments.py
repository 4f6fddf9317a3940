"""The journal: which ranges of which partitions were applied, in the order applied.

Entries have consecutive sequences. A journal is one folder an epoch, ``journal/EPOCH``, of
segments named by the sequence of their first entry; a segment ends with a cut. A segment is a row
of frames, one a group commit::

    "RFJ1"  length uint32  group uint64  crc32 uint32  payload        (little-endian)

with ``crc32`` over length, group and payload. Frame 0 of a segment holds its header; the others,
a MessagePack array of entries. A group is written only when the one before it is durable, so bytes
that are no frame can be the torn end of a crash only where no later group follows.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final, Literal

import msgspec
from msgspec import Struct

from schemas.errors import DamagedError

from .format import VERSION, check_version
from .store import Store

FOLDER: Final = "journal"
FORMAT: Final = "reelflow-journal"
MAGIC: Final = b"RFJ1"
_HEAD: Final = struct.Struct("<4sIQI")
_CHECKED: Final = struct.Struct("<IQ")


class JournalRun(Struct, kw_only=True, array_like=True, gc=False):
    """Offsets ``[first, next)`` of one partition were applied.

    Inputs that compaction may remove stand here by value: N keys, values, offsets and broker
    timestamps (milliseconds); otherwise these are None and the log has the records.
    """

    topic: str
    partition: int
    first: int
    next: int
    keys: list[bytes | None] | None = None
    values: list[bytes | None] | None = None
    offsets: list[int] | None = None
    timestamps: list[int] | None = None


class JournalEntry(Struct, kw_only=True, array_like=True):
    """One batch as it was applied, the place of a cut, or a decision that folding cannot make again.

    `drift` says that the model began to adapt because viewers turned away from the lists of `surface`.
    Entries follow each other by `sequence`.
    """

    sequence: int
    runs: list[JournalRun]
    kind: Literal["batch", "cut", "drift"] = "batch"
    surface: str = ""


class SegmentHead(Struct, kw_only=True):
    """Header of a segment."""

    format: str
    version: int
    epoch: int
    first: int


class Segment(Struct, kw_only=True, frozen=True):
    """A segment in a store: sequence of its first entry, and its blobs in order."""

    epoch: int
    first: int
    blobs: list[str]


def epoch_text(epoch: int) -> str:
    """An epoch in a name; sorts as the number does."""
    return f"{epoch:08d}"


def segment_name(epoch: int, first: int) -> str:
    """Name of a segment, or of what its blobs begin with."""
    return f"{FOLDER}/{epoch_text(epoch)}/{first:016d}"


def segment_head(epoch: int, first: int) -> bytes:
    """Frame 0 of a segment."""
    described = SegmentHead(format=FORMAT, version=VERSION, epoch=epoch, first=first)
    return frame(0, msgspec.msgpack.encode(described))


def frame(group: int, payload: bytes) -> bytes:
    """One frame; see the module's docstring."""
    checksum = zlib.crc32(payload, zlib.crc32(_CHECKED.pack(len(payload), group)))
    return _HEAD.pack(MAGIC, len(payload), group, checksum) + payload


def segments(store: Store, epoch: int) -> list[Segment]:
    """Segments of an epoch, in order."""
    folder = f"{FOLDER}/{epoch_text(epoch)}"
    found: dict[int, list[str]] = {}
    for name in store.names(folder):
        number = name.partition("-")[0]
        if number.isdecimal():
            found.setdefault(int(number), []).append(f"{folder}/{name}")
    return [Segment(epoch=epoch, first=first, blobs=blobs) for first, blobs in sorted(found.items())]


def read_segment(store: Store, segment: Segment) -> Iterator[JournalEntry]:
    """Entries of a segment up to its end, or to where a crash tore it.

    Raises
    ------
    DamagedError
        Bytes within it are not what was written.
    StateError
        A version wrote it that this one cannot read.
    """
    name = segment_name(segment.epoch, segment.first)
    data = b"".join(store.read(blob) for blob in segment.blobs)
    position, group = 0, 0
    while (payload := _payload(data, position, group)) is not None:
        if group == 0:
            head = msgspec.msgpack.decode(payload, type=SegmentHead)
            check_version(head.format, head.version, name)
            if (head.epoch, head.first) != (segment.epoch, segment.first):
                raise DamagedError(f"{name} holds entries of another segment")
        else:
            yield from msgspec.msgpack.decode(payload, type=list[JournalEntry])
        position += _HEAD.size + len(payload)
        group += 1
    # A group is one write together with the header, so either of the two may be torn.
    newest = max(group, 1)
    while (position := data.find(MAGIC, position + 1)) >= 0:
        if len(data) < position + _HEAD.size:
            return
        later = _HEAD.unpack_from(data, position)[2]
        if later > newest and _payload(data, position, later) is not None:
            raise DamagedError(f"{name} is damaged: group {later} is whole, group {group} is not")


def read_entries(store: Store, epoch: int, *, after: int, upto: int) -> Iterator[JournalEntry]:
    """Entries of one epoch with ``after < sequence <= upto``, as far as there are any.

    Raises
    ------
    DamagedError
        One is missing before another that is there, or damaged.
    """
    expected = after + 1
    found = segments(store, epoch)
    for i, segment in enumerate(found):
        following = found[i + 1].first if i + 1 < len(found) else None
        if (following is not None and following <= expected) or segment.first > upto:
            continue
        if segment.first > expected:
            raise _missing(epoch, expected, segment.first - 1)
        sequence = segment.first
        for entry in read_segment(store, segment):
            if entry.sequence != sequence:
                raise _missing(epoch, sequence, entry.sequence - 1)
            sequence += 1
            if expected <= entry.sequence <= upto:
                expected += 1
                yield entry
        if following is not None and sequence != following and expected <= upto:
            raise _missing(epoch, sequence, following - 1)


def _missing(epoch: int, first: int, last: int) -> DamagedError:
    return DamagedError(f"the journal of epoch {epoch} lacks entries {first} to {last}")


def _payload(data: bytes, position: int, group: int) -> bytes | None:
    """Payload of the frame of `group` at a position, None when there is no such frame, whole."""
    if len(data) < position + _HEAD.size:
        return None
    magic, length, number, checksum = _HEAD.unpack_from(data, position)
    payload = data[position + _HEAD.size : position + _HEAD.size + length]
    if magic != MAGIC or number != group or len(payload) != length:
        return None
    return payload if zlib.crc32(payload, zlib.crc32(_CHECKED.pack(length, number))) == checksum else None
