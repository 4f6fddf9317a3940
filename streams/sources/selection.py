"""A part of a source: a span of time, a number of events, times moved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from schemas.errors import SourceError

from .source import Record, Source, Times

_MOVED_FIELDS = ("ts_ms", "published_ts_ms", "expires_ts_ms")


class SelectedSource:
    """Events of `source` with since <= ts < until, at most `limit`, their times moved by `shift_ms`.

    The whole catalogue is kept; changes of the catalogue between the events are kept up to `until`.
    """

    def __init__(
        self, source: Source, since_ms: int | None, until_ms: int | None, limit: int | None, shift_ms: int
    ) -> None:
        self.name = source.name
        self._source = source
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._limit = limit
        self._shift_ms = shift_ms
        self.times_ms: Times | None = None
        if source.times_ms is not None:
            times = source.times_ms
            kept = np.ones(len(times), dtype=np.bool_)
            if since_ms is not None:
                kept &= times >= since_ms
            if until_ms is not None:
                kept &= times < until_ms
            self.times_ms = times[kept][:limit] + shift_ms
        self.n_events = None if self.times_ms is None else len(self.times_ms)

    def items(self) -> Iterator[Record]:
        """Whole catalogue."""
        for record in self._source.items():
            yield self._moved(record)

    def events(self) -> Iterator[Record]:
        """Chosen events."""
        left = self._limit
        for record in self._source.events():
            if self._until_ms is not None and record.ts_ms >= self._until_ms:
                continue
            if record.kind == "event":
                if self._since_ms is not None and record.ts_ms < self._since_ms:
                    continue
                if left is not None:
                    if left == 0:
                        return
                    left -= 1
            yield self._moved(record)

    def _moved(self, record: Record) -> Record:
        return shifted(record, self._shift_ms) if self._shift_ms else record


def select(
    source: Source,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    limit: int | None = None,
    shift_ms: int = 0,
) -> Source:
    """Part of `source`; `source` itself when nothing is asked for."""
    if since_ms is None and until_ms is None and limit is None and not shift_ms:
        return source
    return SelectedSource(source, since_ms, until_ms, limit, shift_ms)


def span_ms(source: Source) -> tuple[int, int]:
    """First and last event time of a source; reads it through where it does not know.

    Raises
    ------
    SourceError
        There are no events.
    """
    times = source.times_ms
    if times is None:
        # Only messages that say a time count: broken ones, passed on for a test, may not.
        stamps = (_time_in(record) for record in source.events() if record.kind == "event")
        times = np.fromiter((ts for ts in stamps if ts is not None), dtype=np.int64)
    if not len(times):
        raise SourceError(f"{source.name}: no events to send")
    return int(times.min()), int(times.max())


def shifted(record: Record, shift_ms: int) -> Record:
    """The same message with its times moved; one that is not a JSON object is left as it is.

    Unknown fields are kept. Cost: about 2 microseconds.

    >>> shifted(Record(b"u", b'{"ts_ms":5,"x":[1]}', 5), 10)
    Record(key=b'u', value=b'{"ts_ms":15,"x":[1]}', ts_ms=15, kind='event')
    """
    message = _object_in(record.value)
    if message is None:
        return record._replace(ts_ms=record.ts_ms + shift_ms)
    for field in _MOVED_FIELDS:
        if type(message.get(field)) is int:
            message[field] += shift_ms
    return record._replace(value=msgspec.json.encode(message), ts_ms=record.ts_ms + shift_ms)


def _object_in(value: bytes | None) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        message = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def _time_in(record: Record) -> int | None:
    message = _object_in(record.value)
    ts_ms = None if message is None else message.get("ts_ms")
    return ts_ms if type(ts_ms) is int else None
