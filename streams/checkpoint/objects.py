"""A store on whatever fsspec reaches: object storage, above all.

Exclusive creates are ``pipe_file(mode="create")``, which object stores answer atomically (S3 with
If-None-Match). One sync of an appender is one immutable object.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from schemas.errors import ConfigurationError, ExistsError, MissingError, StoreError

from .pace import Pace
from .store import Buffer


class ObjectStore:
    """Blobs as objects below a URL; see `streams.checkpoint.store.Store`."""

    blocking = True

    def __init__(self, filesystem: AbstractFileSystem, root: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")

    @classmethod
    def at(cls, url: str) -> ObjectStore:
        """The store at a URL.

        Raises
        ------
        ConfigurationError
            fsspec does not know it, or the package for it is not installed.
        """
        try:
            # Listings must show what others wrote a moment ago.
            filesystem, root = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigurationError("worker.state_dir", f"{url}: {error}") from error
        return cls(filesystem, root)

    def __repr__(self) -> str:
        return f"{self._fs.protocol}:{self._root}"

    def create(self, name: str, *data: Buffer, pace: Pace | None = None) -> None:
        """See `Store.create`."""
        path = self._path(name)
        with _told(path):
            self._fs.pipe_file(path, b"".join(data), mode="create")

    def put(self, name: str, data: Buffer) -> None:
        """See `Store.put`."""
        path = self._path(name)
        with _told(path):
            self._fs.pipe_file(path, bytes(data))

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        path = self._path(name)
        with _told(path):
            return bytes(self._fs.cat_file(path))

    def names(self, folder: str) -> list[str]:
        """See `Store.names`."""
        path = self._path(folder)
        try:
            with _told(path):
                self._fs.invalidate_cache()
                found = [str(name).rstrip("/") for name in self._fs.ls(path, detail=False)]
        except MissingError:
            return []
        # Some object stores list a marker of the folder itself.
        names = {name.rpartition("/")[2] for name in found if name.rstrip("/") != path.rstrip("/")}
        return sorted(name for name in names if not name.startswith("."))

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        path = self._path(name)
        try:
            with _told(path):
                self._fs.rm_file(path)
        except MissingError:
            return

    def append(self, name: str) -> ObjectAppender:
        """See `Store.append`; one object a sync."""
        return ObjectAppender(self, name)

    def sync(self, name: str) -> None:
        """See `Store.sync`; an object that is there is durable."""

    def sub(self, folder: str) -> ObjectStore:
        """See `Store.sub`."""
        return ObjectStore(self._fs, self._path(folder))

    def sweep(self) -> None:
        """Nothing: an object that was not finished is none."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if self._root else name


class ObjectAppender:
    """Objects ``name-00000000`` and so on."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store = store
        self._name = name
        self._parts: list[bytes] = []
        self._n_synced = 0

    def write(self, data: bytes) -> None:
        """See `Appender.write`."""
        self._parts.append(data)

    def sync(self) -> None:
        """See `Appender.sync`."""
        if self._parts:
            self._store.create(f"{self._name}-{self._n_synced:08d}", *self._parts)
            self._parts.clear()
            self._n_synced += 1

    def close(self) -> None:
        """See `Appender.close`."""


@contextmanager
def _told(path: str) -> Iterator[None]:
    """What a filesystem says, as errors of the one tree."""
    try:
        yield
    except FileExistsError as error:
        raise ExistsError(f"{path} exists") from error
    except FileNotFoundError as error:
        raise MissingError(f"{path} does not exist") from error
    except Exception as error:
        raise StoreError(f"{path}: {str(error) or type(error).__name__}") from error
