"""Public values to bytes and back, for producers, readers and the gateway."""

from __future__ import annotations

from typing import Final

import msgspec

from .checks import EVENTS, Contract
from .records import Erasure, Event, Item, Snapshot

_ENCODER: Final = msgspec.json.Encoder()
SNAPSHOTS: Final = Contract(Snapshot, "user_id")


def json_bytes(value: msgspec.Struct) -> bytes:
    """A public value as JSON."""
    return _ENCODER.encode(value)


def encode_event(event: Event) -> bytes:
    """Value of a behaviour record; its key is ``event.user_id.encode()``.

    Encoding checks no limits: `decode_event` of the bytes does.

    >>> encode_event(Event(event_id="e-1", user_id="u1", item_id="v1", type="like", ts_ms=0))
    b'{"event_id":"e-1","user_id":"u1","item_id":"v1","type":"like","ts_ms":0}'
    """
    return _ENCODER.encode(event)


def encode_item(item: Item) -> bytes:
    """Value of a catalogue record; its key is ``item.item_id.encode()``."""
    return _ENCODER.encode(item)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Value of a recommendations record; its key is ``snapshot.user_id.encode()``."""
    return _ENCODER.encode(snapshot)


def encode_erasure(erasure: Erasure) -> bytes:
    """Value of an erasure record; its key is ``erasure.user_id.encode()``."""
    return _ENCODER.encode(erasure)


def decode_event(value: bytes) -> Event:
    """Event of a behaviour value, without its record key.

    Raises
    ------
    ContractError
        Names reason and field.
    """
    return EVENTS.decode(value)


def decode_snapshot(value: bytes) -> Snapshot:
    """Snapshot of a recommendations value (a null value means: the user was erased).

    Raises
    ------
    ContractError
        Names reason and field.
    """
    return SNAPSHOTS.decode(value)
