"""A store in a folder: temporary file, fsync, hard link, fsync of the folder.

A rename would overwrite; a hard link fails where the name is taken. Temporary files are locked
while they are written, so that another process can tell an abandoned one from one in use.
"""

from __future__ import annotations

import fcntl
import functools
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from schemas.errors import ExistsError, MissingError, StoreError

from .pace import PIECE_BYTES, SYNC_BYTES, Pace
from .store import Buffer

TEMPORARY: Final = ".tmp"
_WRITE_BYTES: Final = 8 << 20
_T = TypeVar("_T")


class LocalStore:
    """Blobs as files below `root`; see `streams.checkpoint.store.Store`.

    Parameters
    ----------
    root : str or Path
        Folder of this store; made when something is written.
    temporary : Path, optional
        Folder of temporary files, on the same filesystem.
    """

    blocking = True

    def __init__(self, root: str | Path, temporary: Path | None = None) -> None:
        self._root = Path(root).absolute()
        self._temporary = temporary or self._root / TEMPORARY

    def __repr__(self) -> str:
        return str(self._root)

    def create(self, name: str, *data: Buffer, pace: Pace | None = None) -> None:
        """See `Store.create`."""
        path = self._root / name
        with _told(path), self._written(data, durable=True, pace=pace) as temporary:
            _in_folder(path, lambda: os.link(temporary, path))
            _sync_folder(path.parent)

    def put(self, name: str, data: Buffer) -> None:
        """See `Store.put`."""
        path = self._root / name
        with _told(path), self._written((data,), durable=False) as temporary:
            _in_folder(path, lambda: temporary.replace(path))

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        path = self._root / name
        with _told(path):
            return path.read_bytes()

    def names(self, folder: str) -> list[str]:
        """See `Store.names`."""
        path = self._root / folder
        with _told(path):
            try:
                return sorted(name for name in os.listdir(path) if not name.startswith("."))
            except FileNotFoundError:
                return []

    def delete(self, name: str) -> None:
        """See `Store.delete`; folders that are empty then go too."""
        path = self._root / name
        with _told(path):
            path.unlink(missing_ok=True)
            with suppress(OSError):
                for folder in path.parents:
                    if folder == self._root:
                        break
                    folder.rmdir()

    def append(self, name: str) -> LocalAppender:
        """See `Store.append`; one file."""
        path = self._root / name
        with _told(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            descriptor = _in_folder(path, lambda: os.open(path, flags, 0o644))
            try:
                _sync_folder(path.parent)
            except BaseException:
                os.close(descriptor)
                raise
        return LocalAppender(path, descriptor)

    def sync(self, name: str) -> None:
        """See `Store.sync`."""
        path = self._root / name
        with _told(path):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            _sync_folder(path.parent)

    def sub(self, folder: str) -> LocalStore:
        """See `Store.sub`."""
        return LocalStore(self._root / folder, self._temporary)

    def sweep(self) -> None:
        """Remove temporary files that nobody holds a lock on."""
        with _told(self._temporary):
            try:
                abandoned = os.listdir(self._temporary)
            except FileNotFoundError:
                return
            for name in abandoned:
                with suppress(FileNotFoundError, BlockingIOError):
                    path = self._temporary / name
                    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        path.unlink()
                    finally:
                        os.close(descriptor)

    @contextmanager
    def _written(
        self, data: tuple[Buffer, ...], *, durable: bool, pace: Pace | None = None
    ) -> Iterator[Path]:
        """A locked temporary file with `data`; gone afterwards, whatever happens."""
        path, descriptor = self._locked()
        try:
            if pace is None:
                for part in data:
                    _write_all(descriptor, part)
            else:
                _write_evenly(descriptor, data, pace)
            if durable:
                os.fsync(descriptor)
            yield path
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _locked(self) -> tuple[Path, int]:
        """A new temporary file, locked; another one when it was swept before it was locked."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while True:
            path = self._temporary / secrets.token_hex(16)
            descriptor = _in_folder(path, functools.partial(os.open, path, flags, 0o644))
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return path, descriptor
            os.close(descriptor)


class LocalAppender:
    """A file that grows."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        """See `Appender.write`."""
        with _told(self._path):
            _write_all(self._descriptor, data)

    def sync(self) -> None:
        """See `Appender.sync`."""
        with _told(self._path):
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """See `Appender.close`."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the operating system says, as errors of the one tree."""
    try:
        yield
    except FileExistsError as error:
        raise ExistsError(f"{path} exists") from error
    except FileNotFoundError as error:
        raise MissingError(f"{path} does not exist") from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from error


def _in_folder(path: Path, action: Callable[[], _T]) -> _T:
    """Do what needs the folder of `path`; make the folder when it is missing."""
    try:
        return action()
    except FileNotFoundError:
        _make_folder(path.parent)
        return action()


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_evenly(descriptor: int, data: tuple[Buffer, ...], pace: Pace) -> None:
    unsynced = 0
    for part in data:
        view = memoryview(part).cast("B")
        for first in range(0, len(view), PIECE_BYTES):
            piece = view[first : first + PIECE_BYTES]
            _write_all(descriptor, piece)
            unsynced += len(piece)
            if pace(len(piece)) and unsynced >= SYNC_BYTES:
                os.fdatasync(descriptor)
                unsynced = 0


def _write_all(descriptor: int, data: Buffer) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view[:_WRITE_BYTES]) :]
