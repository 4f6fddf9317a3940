"""A store in memory that keeps synced and unsynced bytes apart, and fails at the call it is told to.

Every call that changes something is numbered from 1 over all views (`sub`). A fault is raised before the
call did anything, half way, or after it was done:

    store = FaultyStore()
    store.fail(at=7, how="half", error=Crash)      # and not again
    store.fail(at=7, error=StoreError, calls=3)    # three calls in a row
    ...
    store.lose_power(rng)    # what was not synced is gone, all or part of it; deletes may be undone

With `interrupt`, something else happens between two calls, reads included.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal

from schemas.errors import ExistsError, MissingError
from streams.checkpoint.pace import Pace
from streams.checkpoint.store import Buffer

How = Literal["before", "half", "after"]
HOWS: tuple[How, ...] = ("before", "half", "after")


class Disk:
    """What all views of one store share."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}  # as readers see them
        self.synced: dict[str, bytes] = {}  # what a power loss leaves of those that differ
        self.absent: set[str] = set()  # blobs that a power loss may remove altogether
        self.deleted: dict[str, bytes] = {}  # what it may bring back
        self.n_calls = 0
        self.log: list[str] = []
        self.at = 0
        self.calls = 0
        self.how: How = "before"
        self.error: Callable[[str], BaseException] = RuntimeError
        self.until_interrupt = 0
        self.interruption: Callable[[], None] | None = None

    def visit(self) -> None:
        """Before every call: let the other one go on when it is its turn."""
        if self.interruption is not None:
            self.until_interrupt -= 1
            if self.until_interrupt < 0:
                interruption, self.interruption = self.interruption, None
                interruption()

    def step(self, what: str) -> How | None:
        """Count a call; how it is to fail, None when it is not."""
        self.visit()
        self.n_calls += 1
        self.log.append(what)
        if not self.at <= self.n_calls < self.at + self.calls:
            return None
        if self.how == "before":
            raise self.failure(what)
        return self.how

    def failure(self, what: str) -> BaseException:
        """The error of the fault that is set."""
        return self.error(f"call {self.n_calls}, {self.how}: {what}")


class FaultyStore:
    """See the module's docstring; a `streams.checkpoint.store.Store`."""

    def __init__(self, disk: Disk | None = None, folder: str = "", *, blocking: bool = False) -> None:
        self.disk = disk or Disk()
        self.blocking = blocking
        self._folder = folder

    @property
    def n_calls(self) -> int:
        """Calls so far that change something."""
        return self.disk.n_calls

    def fail(
        self, *, at: int, how: How = "before", error: Callable[[str], BaseException], calls: int = 1
    ) -> None:
        """Let the call number `at` (counted from the store's beginning), and those after it, fail."""
        self.disk.at, self.disk.how, self.disk.error, self.disk.calls = at, how, error, calls

    def interrupt(self, after: int, interruption: Callable[[], None] | None) -> None:
        """Call `interruption` once, after so many further calls of any kind."""
        self.disk.until_interrupt, self.disk.interruption = after, interruption

    def lose_power(self, rng: random.Random) -> None:
        """Drop or tear what was not synced; undo some deletes."""
        disk = self.disk
        for path, synced in disk.synced.items():
            written = disk.blobs[path][len(synced) :]
            kept = written[: rng.randint(0, len(written))]
            if kept and rng.random() < 0.3:  # blocks reach the disk in any order
                hole = rng.randrange(len(kept))
                kept = kept[:hole] + bytes(min(16, len(kept) - hole)) + kept[hole + 16 :]
            disk.blobs[path] = synced + kept
        for path in sorted(disk.absent):  # the order of a set is not the seed's
            if rng.random() < 0.5:
                disk.blobs.pop(path, None)
        for path, data in disk.deleted.items():
            if rng.random() < 0.3:
                disk.blobs.setdefault(path, data)
        disk.synced.clear()
        disk.absent.clear()
        disk.deleted.clear()

    def damage(self, rng: random.Random, folder: str) -> str | None:
        """Flip a bit of a blob below `folder`, cut its end off, or remove it; which, and how."""
        paths = [path for path in self.paths() if path.startswith(folder) and self.disk.blobs[path]]
        if not paths:
            return None
        path = rng.choice(paths)
        data = bytearray(self.disk.blobs[path])
        at = rng.randrange(len(data))
        how = rng.choice(["flipped", "cut", "removed"])
        if how == "removed":
            del self.disk.blobs[path]
        else:
            data[at] ^= 1 << rng.randrange(8)
            self.disk.blobs[path] = bytes(data if how == "flipped" else data[:at])
        self.disk.synced.pop(path, None)  # whatever stood there is gone for good
        self.disk.absent.discard(path)
        return f"{how} {path}[{at}]"

    def paths(self) -> list[str]:
        """Full names of all blobs."""
        return sorted(self.disk.blobs)

    def create(self, name: str, *data: Buffer, pace: Pace | None = None) -> None:
        path, disk = self._folder + name, self.disk
        how = disk.step(f"create {path}")
        if path in disk.blobs:
            raise ExistsError(f"{path} exists")
        disk.blobs[path] = b"".join(data)
        disk.deleted.pop(path, None)
        if how == "half":  # it has its name, and the folder was not synced
            disk.absent.add(path)
        else:
            folder = path.rpartition("/")[0]
            disk.absent = {other for other in disk.absent if other.rpartition("/")[0] != folder}
        if how is not None:
            raise disk.failure(f"create {path}")

    def put(self, name: str, data: Buffer) -> None:
        path, disk = self._folder + name, self.disk
        how = disk.step(f"put {path}")
        if how == "half":
            raise disk.failure(f"put {path}")
        if path not in disk.blobs:
            disk.absent.add(path)
        disk.blobs[path] = bytes(data)
        if how is not None:
            raise disk.failure(f"put {path}")

    def read(self, name: str) -> bytes:
        self.disk.visit()
        try:
            return self.disk.blobs[self._folder + name]
        except KeyError:
            raise MissingError(f"{self._folder + name} does not exist") from None

    def names(self, folder: str) -> list[str]:
        self.disk.visit()
        prefix = f"{self._folder}{folder}/"
        n = len(prefix)
        # A copy, in one step: another thread may write meanwhile.
        paths = list(self.disk.blobs)
        return sorted({path[n:].partition("/")[0] for path in paths if path.startswith(prefix)})

    def delete(self, name: str) -> None:
        path, disk = self._folder + name, self.disk
        how = disk.step(f"delete {path}")
        if how == "half":
            raise disk.failure(f"delete {path}")
        data = disk.blobs.pop(path, None)
        disk.absent.discard(path)
        if data is not None:
            disk.deleted[path] = disk.synced.pop(path, data)
        if how is not None:
            raise disk.failure(f"delete {path}")

    def append(self, name: str) -> FaultyAppender:
        path, disk = self._folder + name, self.disk
        how = disk.step(f"append {path}")
        if path in disk.blobs:
            raise ExistsError(f"{path} exists")
        disk.blobs[path] = disk.synced[path] = b""
        if how == "half":
            disk.absent.add(path)
        if how is not None:
            raise disk.failure(f"append {path}")
        return FaultyAppender(disk, path)

    def sync(self, name: str) -> None:
        path, disk = self._folder + name, self.disk
        how = disk.step(f"sync {path}")
        if how == "half":
            raise disk.failure(f"sync {path}")
        disk.synced.pop(path, None)
        disk.absent.discard(path)
        if how is not None:
            raise disk.failure(f"sync {path}")

    def sub(self, folder: str) -> FaultyStore:
        return FaultyStore(self.disk, f"{self._folder}{folder}/", blocking=self.blocking)

    def sweep(self) -> None:
        """Nothing is left to sweep."""


class FaultyAppender:
    """A blob whose end may be lost."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path

    def write(self, data: bytes) -> None:
        disk, path = self._disk, self._path
        how = disk.step(f"write {path}")
        if path not in disk.blobs:
            return  # removed behind an open file
        disk.synced.setdefault(path, disk.blobs[path])
        disk.blobs[path] += data[: len(data) // 2] if how == "half" else data
        if how is not None:
            raise disk.failure(f"write {path}")

    def sync(self) -> None:
        disk, path = self._disk, self._path
        how = disk.step(f"sync {path}")
        if how == "half" and path in disk.synced:
            synced, written = disk.synced[path], disk.blobs[path]
            disk.synced[path] = written[: (len(synced) + len(written)) // 2]
            raise disk.failure(f"sync {path}")
        disk.synced.pop(path, None)
        if how is not None:
            raise disk.failure(f"sync {path}")

    def close(self) -> None:
        """Does not sync."""
