"""Recorded streams with their catalogues: what items are, and from when on they can be recommended.

A stream of `data_sets` knows an item from its first event on. Here an item is in the catalogue earlier,
so that it can be asked for before anyone has watched it:

    listed = min(published, first event)        published: by the catalogue, or January 1 of the
                                                year that ends the title, "Heat (1995)"

An item of which neither is known enters with its first event. So the catalogue says nothing of when an item
will be watched; but those of ratings hold hardly an item that is not rated at some time of the recording
(kuairand's is whole), for every contender alike. Slots are given out in the order of `listed`, then of
the catalogue's file: that order tells nothing either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from learners.prequential import Rules, Stream
from schemas.records import Event, Item

from ..sources import open_source
from .columns import events_of, stream_of
from .data_sets import DATA_SETS, FORMATS, by_item

_YEAR: Final = re.compile(r"\((\d{4})\)\s*$")


class Catalogued(Struct, frozen=True):
    """A stream, and the catalogue's record of each of its items by slot; None where it has none."""

    stream: Stream
    items: list[Item | None]


def released_ms(item: Item) -> int | None:
    """When an item was published, ms since 1970; None where the catalogue does not say.

    >>> released_ms(Item(item_id="1", title="Heat (1995)"))
    788918400000
    """
    if item.published_ts_ms is not None:
        return item.published_ts_ms
    found = _YEAR.search(item.title or "")
    if found is None or not 1 <= int(found[1]) <= 9_998:
        return None
    return int(datetime(int(found[1]), 1, 1, tzinfo=UTC).timestamp() * 1000)


def plain_title(item: Item | None) -> str:
    """The title without the year that ends it.

    >>> plain_title(Item(item_id="1", title="Heat (1995)"))
    'Heat'
    """
    return "" if item is None or item.title is None else _YEAR.sub("", item.title).strip()


def load_catalogued(name: str, data: Path) -> tuple[Catalogued, Rules]:
    """A data set of `DATA_SETS` that brings a catalogue, and the rules that go with it.

    Without events before the log (kuairand's watch lists): after them hardly an item is new.

    Raises
    ------
    SourceError
        The data cannot be read.
    """
    chosen = DATA_SETS[name]
    default, folder = FORMATS[chosen.format], data / chosen.folder
    source = open_source(chosen.format, folder)
    events = list(events_of(source))
    if default.ties == "item":
        events.sort(key=by_item)
    records = (record.value for record in source.items())
    items = [msgspec.json.decode(value, type=Item) for value in records if value is not None]
    rules = Rules(exclude_seen=not default.repeats, ties_together=default.ties == "together")
    return with_catalogue(stream_of(name, events, lambda _: False), events, items), rules


def with_catalogue(stream: Stream, events: list[Event], items: Iterable[Item]) -> Catalogued:
    """The stream of `events` with its slots given out anew, as items enter the catalogue."""
    by_id = {item.item_id: item for item in items}
    first_ms: dict[str, int] = {}
    for event in events:
        first_ms.setdefault(event.item_id, event.ts_ms)
    place = {item_id: at for at, item_id in enumerate(by_id)}
    listed = {}
    for item_id in [*by_id, *(one for one in first_ms if one not in by_id)]:
        item = by_id.get(item_id)
        published = None if item is None else released_ms(item)
        known = [ms for ms in (published, first_ms.get(item_id)) if ms is not None]
        if known:
            listed[item_id] = min(known)
    order = sorted(listed, key=lambda one: (listed[one], place.get(one, len(place))))
    slots = {item_id: slot for slot, item_id in enumerate(order)}
    renumbered = np.array([slots[item_id] for item_id in first_ms], dtype=np.int32)
    moved = replace(
        stream,
        items=renumbered[stream.items],
        n_items=len(order),
        listed_ms=np.array([listed[item_id] for item_id in order], dtype=np.int64),
    )
    return Catalogued(moved, [by_id.get(item_id) for item_id in order])
