"""Where state is kept: immutable named blobs in a folder or in an object store.

Names are relative paths such as ``epochs/00000001``. Names whose last part begins with a dot are
the store's own and never listed.
"""

from __future__ import annotations

import secrets
from typing import Protocol, TypeAlias

from schemas.errors import ConfigurationError, ExistsError, StoreError

from .pace import Pace

Buffer: TypeAlias = bytes | bytearray | memoryview


class Appender(Protocol):
    """A blob, or a row of blobs, that grows at its end; see `Store.append`."""

    def write(self, data: bytes) -> None:
        """Add bytes; they may be lost until `sync` has returned."""

    def sync(self) -> None:
        """Return when everything written is durable.

        Raises
        ------
        StoreError
            It may or may not be durable; nothing more may be written here.
        """

    def close(self) -> None:
        """End; does not sync."""


class Store(Protocol):
    """Named blobs. Every method raises `StoreError` with its cause when it could not do its work.

    Attributes
    ----------
    blocking : bool
        Whether calls wait for a disk or a network. Where they do not (memory), a journal needs no
        thread of its own.
    """

    blocking: bool

    def create(self, name: str, *data: Buffer, pace: Pace | None = None) -> None:
        """Make a blob of the parts one after the other: all or nothing, durable on return.

        Of several that create the same name exactly one succeeds. With a `pace` a disk is written to
        in pieces that are durable one by one; other stores need not ask it.

        Raises
        ------
        ExistsError
            There is a blob of that name.
        """

    def put(self, name: str, data: Buffer) -> None:
        """Make or replace a small blob: a reader sees the old one or the new one; not durable."""

    def read(self, name: str) -> bytes:
        """All bytes of a blob.

        Raises
        ------
        MissingError
            There is none of that name.
        """

    def names(self, folder: str) -> list[str]:
        """Last parts of what stands directly in a folder, blobs and folders, sorted; [] without it."""

    def delete(self, name: str) -> None:
        """Remove a blob; nothing happens when there is none. May be undone by a power loss."""

    def append(self, name: str) -> Appender:
        """Begin blobs that grow: ``name``, or ``name-00000000``, ``name-00000001``, ... (one a sync).

        Raises
        ------
        ExistsError
            There is a blob of that name.
        """

    def sync(self, name: str) -> None:
        """Return when a blob that another process may have left unsynced is durable; nothing without it."""

    def sub(self, folder: str) -> Store:
        """The same store seen from a folder."""

    def sweep(self) -> None:
        """Remove what writers that no longer exist left unfinished."""


def open_store(url: str, *, probe: bool = True) -> Store:
    """The store at a path or URL.

    Parameters
    ----------
    url : str
        A folder (a plain path or ``file://``; made when it is not there), or a URL that fsspec
        knows (``s3://bucket/folder``; its own package must be installed).
    probe : bool
        Try first whether two exclusive creates of one name are told apart; needs the right to write.

    Raises
    ------
    ConfigurationError
        The filesystem is unknown, or cannot create exclusively: two writers could not be told apart.
    StoreError
        It cannot be reached or written.
    """
    store: Store
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        from .local import LocalStore

        store = LocalStore(rest if separator else url)
    else:
        from .objects import ObjectStore

        store = ObjectStore.at(url)
    if probe:
        _probe(store, url)
    return store


def _probe(store: Store, url: str) -> None:
    name = f".probe-{secrets.token_hex(8)}"
    store.create(name, b"1")
    try:
        store.create(name, b"2")
    except ExistsError:
        return
    except StoreError as error:
        raise ConfigurationError("worker.state_dir", f"{url}: an exclusive create failed: {error}") from error
    finally:
        store.delete(name)
    raise ConfigurationError(
        "worker.state_dir", f"{url}: this filesystem overwrites where it should create exclusively"
    )
