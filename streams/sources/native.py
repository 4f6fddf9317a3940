"""Native JSON lines: a log of messages in the order in which they arrive.

A line is ``{"event": {...}}``, ``{"item": {...}}``, ``{"withdraw": "item id"}`` or a bare event.
What stands in ``event`` and ``item`` is sent byte by byte. The order of the file is kept, late
events included; items before the first event are the catalogue. ``reelflow simulate`` writes it.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from schemas.checks import EVENTS, ITEMS
from schemas.errors import ContractError, SourceError

from .source import NO_TIME_MS, Record, Times, item_record, withdrawal_record

_ABSENT = Raw()  # no JSON value is empty


class _Line(Struct):
    event: Raw = _ABSENT
    item: Raw = _ABSENT
    withdraw: str | None = None


class _Keyed(Struct):
    user_id: str | None = None


_LINE = msgspec.json.Decoder(_Line)
_KEYED = msgspec.json.Decoder(_Keyed)


class NativeSource:
    """Messages of a file of JSON lines, packed with gzip or not.

    Parameters
    ----------
    path : Path
        The file.
    catalogue : Path or None
        Another file whose items come first; bare lines in it are items.
    pass_invalid : bool
        Whether what breaks the contract of an event is sent as it stands (so that dead letters can
        be tried) instead of raising.
    """

    def __init__(self, path: Path, *, catalogue: Path | None = None, pass_invalid: bool = False) -> None:
        for file in (path, catalogue):
            if file is not None and not file.is_file():
                raise SourceError(f"{file}: no such file")
        self.name = str(path)
        self.n_events: int | None = None
        self.times_ms: Times | None = None
        self._path = path
        self._catalogue = catalogue
        self._pass_invalid = pass_invalid

    def items(self) -> Iterator[Record]:
        """Items of the catalogue file, then those before the first event.

        Raises
        ------
        SourceError
            Names file and line.
        """
        if self._catalogue is not None:
            for number, line in _lines(self._catalogue):
                yield _catalogue_record(self._catalogue, number, line)
        yield from takewhile(lambda record: record.kind == "item", self._records())

    def events(self) -> Iterator[Record]:
        """Everything from the first event on, in the order of the file.

        Raises
        ------
        SourceError
            Names file and line.
        """
        begun = False
        for record in self._records():
            begun = begun or record.kind == "event"
            if begun:
                yield record

    def _records(self) -> Iterator[Record]:
        ts_ms = NO_TIME_MS
        for number, line in _lines(self._path):
            record = self._record(number, line, ts_ms)
            ts_ms = record.ts_ms
            yield record

    def _record(self, number: int, line: bytes, last_ts_ms: int) -> Record:
        """Message of a line; one without a time of its own takes that of the line before."""
        try:
            envelope = _LINE.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            if self._pass_invalid:
                return Record(_key_in(line), line, last_ts_ms)
            raise SourceError(f"{self._path}, line {number}: {error}") from error
        if envelope.withdraw is not None:
            return withdrawal_record(envelope.withdraw, last_ts_ms)
        if item := bytes(envelope.item):
            return _item(self._path, number, item)._replace(ts_ms=last_ts_ms)
        value = bytes(envelope.event) or line
        try:
            event = EVENTS.decode(value)
        except ContractError as error:
            if self._pass_invalid:
                return Record(_key_in(value), value, last_ts_ms)
            raise SourceError(f"{self._path}, line {number}: {error}") from error
        return Record(event.user_id.encode(), value, event.ts_ms)


def _catalogue_record(file: Path, number: int, line: bytes) -> Record:
    try:
        envelope = _LINE.decode(line)
    except msgspec.DecodeError as error:
        raise SourceError(f"{file}, line {number}: {error}") from error
    if envelope.withdraw is not None:
        return withdrawal_record(envelope.withdraw, NO_TIME_MS)
    return _item(file, number, bytes(envelope.item) or line)


def _item(file: Path, number: int, value: bytes) -> Record:
    try:
        return item_record(ITEMS.decode(value))._replace(value=value)
    except ContractError as error:
        raise SourceError(f"{file}, line {number}: {error}") from error


def _key_in(value: bytes) -> bytes | None:
    """The key that a producer would have used, if the message names a user at all."""
    try:
        user_id = _KEYED.decode(value).user_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if user_id is None else user_id.encode("utf-8", "replace")


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    with gzip.open(file, "rb") if file.name.endswith(".gz") else file.open("rb") as stream:
        try:
            for number, line in enumerate(stream, start=1):
                if content := line.rstrip(b"\r\n"):
                    yield number, content
        except (OSError, EOFError) as error:
            raise SourceError(f"{file}: {error}") from error


def native_line(record: Record) -> bytes:
    r"""Line of a message, with its end; an event stands in it byte by byte.

    >>> native_line(Record(b"i1", None, 0, "item"))
    b'{"withdraw":"i1"}\n'
    """
    if record.value is None:
        return b'{"withdraw":' + msgspec.json.encode((record.key or b"").decode()) + b"}\n"
    return b'{"' + record.kind.encode() + b'":' + record.value + b"}\n"
